//! The schedule of one kernel: plain data, decided by `search` (or pinned by the spec), used by `lower` and `passes`.

use crate::target::{SM_80, SM_90A, Target};
use std::fmt;

/// How the tiled kernel of one fold is cut and run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Schedule {
    /// Query rows of a CTA's tile; each of the `warps` warps takes `block_m / warps`, a multiple of 16.
    pub block_m: u32,
    /// Keys of a tile, a multiple of 16.
    pub block_n: u32,
    /// Warps per CTA.
    pub warps: u32,
    /// Slots of the key and value buffers; copies run `stages - 1` tiles ahead (1: no overlap but V's with QK).
    pub stages: u32,
    /// Whether the query fragments stay in registers for the whole tile (otherwise they are read from shared memory).
    pub query: QueryHome,
    /// Bytes per global access: 16 normally, less for tensors that are not aligned to 16.
    pub access: u32,
    /// Whether rows pack the query heads of one key head (`i * ratio + r`) or belong to one head.
    pub pack: Pack,
    /// Whether the CTA sees all keys or one of `splits` parts of them and writes a partial result.
    pub keys: Keys,
    /// CTAs that must fit on a multiprocessor at once.
    pub min_ctas: u32,
    /// Who moves tiles from global to shared memory.
    pub fetch: Fetch,
    /// What is subtracted from the scores of tiles that no mask cuts.
    pub reference: Reference,
    /// Where results lie in shared memory before they are stored.
    pub staging: Staging,
    /// Slots of the query tile: with two, a producer fetches the next one while this one is in use.
    pub queries: u32,
}

/// Query tiles that a CTA which stays takes at most: of so many, a reference that may fail keeps verdicts.
pub const MAX_TILES: u32 = 64;

/// Where results lie in shared memory before they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Staging {
    /// In a buffer of their own, so that a producer can fetch the next query tile meanwhile.
    Own,
    /// Where the query tile was, if it has their type and size.
    Query,
}

/// Who moves tiles from global to shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fetch {
    /// All warps, which also compute; a CTA has one query tile.
    Together,
    /// A producer warp of its own, by bulk copies, beside `warps` computing ones in warpgroups of four; a CTA stays and
    /// takes one query tile after the other.
    Producer,
}

/// What is subtracted from scores before they are exponentiated. Any value does that keeps the sums in range, because it
/// cancels in the quotient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reference {
    /// The largest score so far: sums are rescaled whenever it grows.
    Running,
    /// The largest score of the tiles that the mask cuts (one of which comes first); in other tiles it stays. A query tile
    /// whose sums leave the range is computed again with the running maximum, in the same launch.
    First,
    /// Zero, where the spec bounds the scores.
    Zero,
}

/// Where the query operand of the first product lives in the loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QueryHome {
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

/// What the rows of a query tile enumerate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pack {
    /// Queries of one head.
    Queries,
    /// Queries times the heads of a group, heads fastest.
    QueriesAndHeads,
}

/// The share of the keys that one CTA sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Keys {
    /// All of them; the kernel normalises and writes the outputs.
    All,
    /// One part; the kernel writes `(o, lse)` partials to a workspace.
    Split,
}

impl Schedule {
    /// A producer beside warpgroups that compute, 64 rows of the query tile each.
    pub fn with_producer(block_m: u32, block_n: u32, stages: u32, reference: Reference, staging: Staging) -> Schedule {
        Schedule {
            block_m,
            block_n,
            warps: block_m / 16,
            stages,
            query: QueryHome::Shared,
            access: 16,
            pack: Pack::Queries,
            keys: Keys::All,
            min_ctas: 1,
            fetch: Fetch::Producer,
            reference,
            staging,
            queries: 1,
        }
    }

    /// Verdicts that a CTA keeps in shared memory: where the reference may fail, one for each query tile and warp, and one
    /// over all tiles for each warp.
    pub fn verdicts(&self) -> u32 {
        match self.reference {
            Reference::First => (MAX_TILES + 1) * self.warps,
            Reference::Running | Reference::Zero => 0,
        }
    }

    /// The oldest target that has what the schedule needs.
    pub fn target(&self) -> &'static Target {
        match self.fetch {
            Fetch::Together => &SM_80,
            Fetch::Producer => &SM_90A,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = match self.query {
            QueryHome::Registers => "reg",
            QueryHome::Shared => "smem",
        };
        write!(
            f,
            "block_m={} block_n={} warps={} stages={} q={query} access={}",
            self.block_m, self.block_n, self.warps, self.stages, self.access
        )?;
        if self.pack == Pack::QueriesAndHeads {
            f.write_str(" pack")?;
        }
        if self.keys == Keys::Split {
            f.write_str(" split")?;
        }
        if self.fetch == Fetch::Producer {
            f.write_str(" producer")?;
        }
        match self.reference {
            Reference::Running => {}
            Reference::First => f.write_str(" ref=first")?,
            Reference::Zero => f.write_str(" ref=zero")?,
        }
        if self.fetch == Fetch::Producer && self.staging == Staging::Query {
            f.write_str(" out=q")?;
        }
        if self.queries > 1 {
            write!(f, " queries={}", self.queries)?;
        }
        if self.min_ctas > 1 {
            write!(f, " min_ctas={}", self.min_ctas)?;
        }
        Ok(())
    }
}
