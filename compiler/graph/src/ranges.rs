//! Closed-form key ranges of a mask: which keys a tile of consecutive queries can see, and which it surely sees.
//!
//! A mask is a Boolean value over a query position `i`, a key index `j` and axes that are fixed within a tile (batch,
//! head). [`analyse`] turns it into [`Ranges`]: a union of [`Piece`]s, each with a *possible* interval (it contains every
//! key that some query of the tile sees through this piece) and a *certain* interval (every query of the tile sees all of
//! its keys). Endpoints are [`Sym`] expressions in the tile's first and last query position, sizes, run-time scalars and
//! table searches, so that affine, integer-division and sorted-table masks need no block table at all.
//!
//! - `sym`, `eval`, `text`: arithmetic on [`Sym`] that simplifies as it builds, proofs of `a <= b`, evaluation, printing.
//! - `read`, `expr`: a mask's graph nodes as conditions over linear forms in the key index.
//! - `analyse`, `part`: conditions to intervals per row. `tile`: those to intervals per tile.
//! - `plan`: evaluated pieces to the key tiles that a kernel visits.

mod analyse;
mod eval;
mod expr;
mod part;
mod plan;
mod read;
mod sym;
mod text;
mod tile;

pub use analyse::{Context, analyse};
pub use eval::{Env, Table};
pub use plan::{Extent, TileClass, TileCount, TileRun, classify_tile, count_tiles, plan_tiles};

/// An integer expression, the same for all points of a query tile.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Sym {
    /// Constant.
    Const(i64),
    /// Position of the tile's first query (`i` as masks see it, alignment included). It may be negative.
    RowLo,
    /// Position of the tile's last query, inclusive.
    RowHi,
    /// Size of the named axis.
    Len(String),
    /// A run-time integer scalar.
    Scalar(String),
    /// The index of the tile on the named axis (batch, head, key head: axes that are fixed in a tile).
    Fixed(String),
    /// Sum.
    Add(Box<Sym>, Box<Sym>),
    /// Difference.
    Sub(Box<Sym>, Box<Sym>),
    /// Product.
    Mul(Box<Sym>, Box<Sym>),
    /// Floor quotient, divisor positive.
    FloorDiv(Box<Sym>, Box<Sym>),
    /// Floor remainder, divisor positive.
    Rem(Box<Sym>, Box<Sym>),
    /// Smaller.
    Min(Box<Sym>, Box<Sym>),
    /// Larger.
    Max(Box<Sym>, Box<Sym>),
    /// `lhs <= rhs ? then : otherwise`.
    IfLe(Box<Sym>, Box<Sym>, Box<Sym>, Box<Sym>),
    /// An element of an integer input tensor; indices are clamped into range by the reader.
    Load {
        /// Input.
        table: String,
        /// One index per axis of the input.
        at: Vec<Sym>,
    },
    /// Binary search along the last axis of a non-decreasing integer input: the number of elements `< value`
    /// (`upper = false`) or `<= value` (`upper = true`).
    Search {
        /// Input, declared non-decreasing along its last axis.
        table: String,
        /// Indices on the axes before the last.
        at: Vec<Sym>,
        /// Searched value.
        value: Box<Sym>,
        /// Whether equal elements count.
        upper: bool,
    },
}

/// A half-open interval of keys `lo..hi`; empty where `lo >= hi`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interval {
    /// First key.
    pub lo: Sym,
    /// One past the last key.
    pub hi: Sym,
}

/// One conjunction of a mask in disjunctive form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Contains every key that any query of the tile sees through this piece; within `0..len(keys)`.
    pub possible: Interval,
    /// Every query of the tile sees each of these keys; within `possible` (or empty).
    pub certain: Interval,
}

/// The key ranges of a query tile: the union of its pieces. At most [`MAX_PIECES`]; a mask that would need more is
/// over-approximated by one piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranges {
    /// Pieces, in no particular order; they may overlap.
    pub pieces: Vec<Piece>,
}

impl std::fmt::Display for Ranges {
    /// One line per piece: `possible lo .. hi, certain lo .. hi`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, piece) in self.pieces.iter().enumerate() {
            let (possible, certain) = (&piece.possible, &piece.certain);
            let end = if n + 1 < self.pieces.len() { "\n" } else { "" };
            write!(
                f,
                "  possible {} .. {}, certain {} .. {}{end}",
                possible.lo, possible.hi, certain.lo, certain.hi
            )?;
        }
        Ok(())
    }
}

/// The largest number of pieces that [`analyse`] yields.
pub const MAX_PIECES: usize = 4;
