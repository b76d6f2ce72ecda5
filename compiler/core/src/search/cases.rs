//! The launches that schedules are ranked on: few, because each is walked for every finalist, and typical.

use super::{Problem, Purpose};
use crate::device::{A100, Device, H200, L4, RTX_3090, RTX_4090};
use crate::target::runs_on;

/// A representative launch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    /// Name for people.
    pub name: &'static str,
    /// Device.
    pub device: &'static Device,
    /// Batch entries.
    pub batch: u32,
    /// Query heads.
    pub heads: u32,
    /// Key heads: as many as query heads where they are not grouped.
    pub key_heads: u32,
    /// Queries.
    pub queries: u32,
    /// Keys.
    pub keys: u32,
}

/// The launches that a purpose is ranked on: those of its devices that run the target's code.
pub fn cases(problem: &Problem<'_>, purpose: Purpose) -> Vec<Case> {
    if problem.target.tma {
        return of_length(problem, purpose);
    }
    let (devices, split): (&[&'static Device], bool) = match purpose {
        Purpose::Main | Purpose::Medium | Purpose::Short => (&[&H200, &A100], false),
        Purpose::SmallShared | Purpose::Unaligned => (&[&RTX_4090, &RTX_3090, &L4], false),
        Purpose::Split => (&[&H200, &A100, &RTX_4090], true),
    };
    let key_heads = if problem.grouped { 8 } else { 32 };
    let case = |name, device, batch, queries, keys| Case {
        name,
        device,
        batch,
        heads: 32,
        key_heads,
        queries,
        keys,
    };
    let mut cases = Vec::new();
    for device in devices
        .iter()
        .copied()
        .filter(|d| runs_on(problem.target, d.capability))
    {
        if split {
            cases.push(case("decode b1 8k", device, 1, 1, 8192));
            cases.push(case("decode b16 8k", device, 16, 1, 8192));
        } else {
            cases.push(case("prefill b2 1k", device, 2, 1024, 1024));
            cases.push(case("prefill b1 4k", device, 1, 4096, 4096));
        }
    }
    cases
}

/// 16 384 positions in sequences of the purpose's length, 2048 features of all heads.
fn of_length(problem: &Problem<'_>, purpose: Purpose) -> Vec<Case> {
    const POSITIONS: u32 = 16_384;
    const FEATURES: u32 = 2048;
    let lengths: &[(&'static str, u32)] = match purpose {
        Purpose::Main => &[("b2 8k", 8192), ("b1 16k", 16_384)],
        Purpose::Medium => &[("b8 2k", 2048)],
        Purpose::Short => &[("b32 512", 512)],
        Purpose::SmallShared | Purpose::Unaligned | Purpose::Split => &[],
    };
    let heads = (FEATURES / problem.value_dim.max(1)).max(8);
    let case = |&(name, length): &(&'static str, u32)| Case {
        name,
        device: &H200,
        batch: POSITIONS / length,
        heads,
        key_heads: if problem.grouped { heads / 4 } else { heads },
        queries: length,
        keys: length,
    };
    lengths.iter().map(case).collect()
}
