//! Pictures in colours: as SVG, or as points for whoever writes PNG.

use super::grid::{Cover, Grid};
use std::fmt::Write;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// The most cells in a row or column of a painting.
const CELLS: usize = 128;

/// A mask in colours, cell by cell: blue where it is visible; with a kernel's tiles green in full tiles, orange in tiles
/// that the mask cuts, the hidden part of these pale.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Painting {
    cells: Grid,
    colours: Vec<Colour>,
    /// Points of a tile downwards and to the right.
    tile: Option<(usize, usize)>,
}

/// Paints `rows` by `cols` points.
pub fn paint(rows: usize, cols: usize, tiles: Option<&Grid>, visible: impl Fn(usize, usize) -> bool) -> Painting {
    let side = rows.max(cols).div_ceil(CELLS).max(1);
    let cells = Grid::sampled((rows, cols), (side, side), visible);
    let (height, width) = cells.shape();
    let places = (0..height).flat_map(|down| (0..width).map(move |across| (down, across)));
    let colours = places.zip(&cells.blocks).map(|((down, across), cover)| {
        let middle = |n: usize, size: usize| (n * side + side / 2).min(size.saturating_sub(1));
        let tile = tiles.and_then(|tiles| tiles.around(middle(down, rows), middle(across, cols)));
        colour(*cover, tile)
    });
    Painting {
        colours: colours.collect(),
        cells,
        tile: tiles.map(|tiles| (tiles.down, tiles.across)),
    }
}

fn colour(cell: Cover, tile: Option<Cover>) -> Colour {
    match (tile, cell) {
        (None, Cover::Full) => [0x2f, 0x5d, 0x8a],
        (None, Cover::Partial) => [0x8f, 0xb0, 0xd0],
        (None | Some(Cover::Empty), _) => [0xf4, 0xf4, 0xf4],
        (Some(Cover::Full), _) => [0x2e, 0x7d, 0x4f],
        (Some(Cover::Partial), Cover::Full) => [0xd9, 0x82, 0x2b],
        (Some(Cover::Partial), Cover::Partial) => [0xeb, 0xb0, 0x79],
        (Some(Cover::Partial), Cover::Empty) => [0xf6, 0xdc, 0xbf],
    }
}

impl Painting {
    /// The painting as SVG with a title, its longer side `side` pixels.
    pub fn svg(&self, title: &str, side: usize) -> String {
        let (rows, cols) = (self.cells.rows.max(1), self.cells.cols.max(1));
        let longer = rows.max(cols);
        let mut out = String::new();
        let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {cols} {rows}\" width=\"{}\" height=\"{}\" \
             shape-rendering=\"crispEdges\">\n<title>{escaped}</title>",
            (cols * side).div_ceil(longer),
            (rows * side).div_ceil(longer),
        );
        let background = colour(Cover::Empty, None);
        let _ = writeln!(
            out,
            "<rect width=\"{cols}\" height=\"{rows}\" fill=\"{}\"/>",
            hex(background)
        );
        // One path a colour, of runs of cells.
        let mut colours: Vec<Colour> = self.colours.iter().copied().filter(|c| *c != background).collect();
        colours.sort_unstable();
        colours.dedup();
        for colour in colours {
            let _ = writeln!(out, "<path fill=\"{}\" d=\"{}\"/>", hex(colour), self.runs(colour));
        }
        if let Some((down, across)) = self.tile {
            let mut lines = String::new();
            for y in (down..rows).step_by(down) {
                let _ = write!(lines, "M0 {y}h{cols}");
            }
            for x in (across..cols).step_by(across) {
                let _ = write!(lines, "M{x} 0v{rows}");
            }
            let width = longer as f64 / side.max(1) as f64 / 2.0;
            let _ = writeln!(out, "<path stroke=\"#888\" stroke-width=\"{width:.2}\" d=\"{lines}\"/>");
        }
        out.push_str("</svg>\n");
        out
    }

    /// The cells of a colour: rectangles as wide and high as they go.
    fn runs(&self, colour: Colour) -> String {
        let (height, width) = self.cells.shape();
        let (rows, cols, side) = (self.cells.rows, self.cells.cols, self.cells.down);
        let is = |down: usize, across: usize| self.colours[down * width + across] == colour;
        let mut done = vec![false; height * width];
        let mut path = String::new();
        for down in 0..height {
            for across in 0..width {
                if done[down * width + across] || !is(down, across) {
                    continue;
                }
                let free = |d: usize, a: usize| is(d, a) && !done[d * width + a];
                let right = (across..width).take_while(|a| free(down, *a)).count();
                let whole = |d: &usize| (across..across + right).all(|a| free(*d, a));
                let below = (down..height).take_while(whole).count();
                for d in down..down + below {
                    done[d * width..][across..across + right].fill(true);
                }
                let (x, y) = (across * side, down * side);
                let (w, h) = ((right * side).min(cols - x), (below * side).min(rows - y));
                let _ = write!(path, "M{x} {y}h{w}v{h}h-{w}z");
            }
        }
        path
    }

    /// Width, height and the points row by row, each cell `scale` points wide and high.
    pub fn points(&self, scale: usize) -> (usize, usize, Vec<Colour>) {
        let (height, width) = self.cells.shape();
        let scale = scale.max(1);
        let row = |y: usize| (0..width * scale).map(move |x| self.colours[y / scale * width + x / scale]);
        let points = (0..height * scale).flat_map(row).collect();
        (width * scale, height * scale, points)
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
