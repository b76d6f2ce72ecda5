//! Pictures in characters: queries downwards, keys to the right.

use super::grid::{Cover, Grid};

/// The most characters in a line of a picture, and half of the most lines.
const WIDTH: usize = 64;

/// What the characters of [`picture`] with tiles mean.
pub const LEGEND: &str = "█ full tiles; in cut tiles ▓ visible, ░ hidden; · skipped tiles";

/// A picture of `rows` by `cols` points: `█` all visible, `·` none, `▀` and `▄` the upper or lower half, `▒` some.
///
/// With the grid of a kernel's tiles it shows what they do, by the tile in the middle of each character: see [`LEGEND`].
pub fn picture(rows: usize, cols: usize, tiles: Option<&Grid>, visible: impl Fn(usize, usize) -> bool) -> String {
    // Characters are about twice as high as wide: a character stands for two blocks, one above the other.
    let across = cols.div_ceil(WIDTH).max(rows.div_ceil(WIDTH)).max(1);
    let cells = Grid::sampled((rows, cols), (across, across), visible);
    let (height, width) = cells.shape();
    let mut out = String::new();
    for top in (0..height).step_by(2) {
        for left in 0..width {
            let (upper, lower) = (cells.block(top, left), cells.block(top + 1, left));
            let middle = (
                ((top + 1) * across).min(rows.saturating_sub(1)),
                (left * across + across / 2).min(cols.saturating_sub(1)),
            );
            let tile = tiles.and_then(|tiles| tiles.around(middle.0, middle.1));
            out.push(match tile {
                None => halves(upper, lower),
                Some(Cover::Full) => '█',
                Some(Cover::Empty) => '·',
                Some(Cover::Partial) if upper.max(lower) == Some(Cover::Empty) => '░',
                Some(Cover::Partial) => '▓',
            });
        }
        out.push('\n');
    }
    out
}

/// The character for two blocks; the lower one may be missing.
fn halves(upper: Option<Cover>, lower: Option<Cover>) -> char {
    match (upper, lower.unwrap_or(Cover::Empty)) {
        (Some(Cover::Full), Cover::Full) => '█',
        (Some(Cover::Full), Cover::Empty) => '▀',
        (Some(Cover::Empty) | None, Cover::Full) => '▄',
        (Some(Cover::Empty) | None, Cover::Empty) => '·',
        _ => '▒',
    }
}
