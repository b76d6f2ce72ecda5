//! What blocks of a mask's points hold: all visible, none, some.

use std::ops::Range;

/// Sample points per block and direction, for pictures: a block of more points is judged by its edges and an even grid
/// between.
const SAMPLES: usize = 8;

/// How much of a block is visible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cover {
    /// Nothing: such a tile is not visited.
    Empty,
    /// Some of it: such a tile evaluates the mask.
    Partial,
    /// All of it: such a tile needs no mask.
    Full,
}

/// A mask in blocks of `down` by `across` points; those at the lower and right edge may be smaller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Points downwards: queries.
    pub rows: usize,
    /// Points to the right: keys.
    pub cols: usize,
    /// Points of a block downwards.
    pub down: usize,
    /// Points of a block to the right.
    pub across: usize,
    /// One per block, row by row.
    pub blocks: Vec<Cover>,
}

impl Grid {
    /// Blocks judged by all their points: the tiles of a kernel.
    pub fn exact(size: (usize, usize), block: (usize, usize), visible: impl Fn(usize, usize) -> bool) -> Grid {
        Grid::new(size, block, |range| (range.start..range.end).collect(), visible)
    }

    /// Blocks judged by sample points: the cells of a picture.
    pub fn sampled(size: (usize, usize), block: (usize, usize), visible: impl Fn(usize, usize) -> bool) -> Grid {
        Grid::new(size, block, samples, visible)
    }

    fn new(
        (rows, cols): (usize, usize),
        (down, across): (usize, usize),
        points: impl Fn(Range<usize>) -> Vec<usize>,
        visible: impl Fn(usize, usize) -> bool,
    ) -> Grid {
        let (down, across) = (down.max(1), across.max(1));
        let mut blocks = Vec::new();
        for top in (0..rows).step_by(down) {
            let lines = points(top..(top + down).min(rows));
            for left in (0..cols).step_by(across) {
                let columns = points(left..(left + across).min(cols));
                blocks.push(cover(&lines, &columns, &visible));
            }
        }
        Grid {
            rows,
            cols,
            down,
            across,
            blocks,
        }
    }

    /// Blocks downwards and to the right.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows.div_ceil(self.down), self.cols.div_ceil(self.across))
    }

    /// A block by its place in the grid.
    pub fn block(&self, down: usize, across: usize) -> Option<Cover> {
        let (height, width) = self.shape();
        (down < height && across < width).then(|| self.blocks[down * width + across])
    }

    /// The block in which a point lies.
    pub fn around(&self, row: usize, col: usize) -> Option<Cover> {
        self.block(row / self.down, col / self.across)
    }

    /// How many blocks are covered like this.
    pub fn count(&self, cover: Cover) -> usize {
        self.blocks.iter().filter(|block| **block == cover).count()
    }
}

fn cover(rows: &[usize], cols: &[usize], visible: impl Fn(usize, usize) -> bool) -> Cover {
    let (mut some, mut all) = (false, true);
    for &row in rows {
        for &col in cols {
            let seen = visible(row, col);
            some |= seen;
            all &= seen;
            if some && !all {
                return Cover::Partial;
            }
        }
    }
    if all { Cover::Full } else { Cover::Empty }
}

/// All points of a range, or its ends and an even grid between.
fn samples(range: Range<usize>) -> Vec<usize> {
    let count = range.len().min(SAMPLES);
    let steps = count.saturating_sub(1).max(1);
    (0..count)
        .map(|n| range.start + n * range.len().saturating_sub(1) / steps)
        .collect()
}
