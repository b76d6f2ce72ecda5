//! Cycles of a CTA that stays: a producer, one to three warpgroups that compute, one query tile after the other.
//!
//! Such a CTA is alone on its multiprocessor, and its groups walk through the key tiles nearly in step, so the queueing of
//! [`super::time()`] (many independent warps) does not describe it. A step, one key tile for all groups, takes as long as
//! what bounds it most:
//!
//! - the tensor pipe, which works for one group after the other, and waits for the operands of narrow products;
//! - the chain of one group: its products, then the softmax between them. A warp issues its products in order and is held
//!   until they are nearly done, so that its softmax overlaps the products of the *other* groups;
//! - special functions, shared memory and the port to the L2.
//!
//! Bounds that are close to each other add up in part: the step is their `NORM`-norm. A query tile begins and ends with
//! products and a softmax that overlap nothing, and with the transfer of its queries and results.
//!
//! ```text
//! step = norm(tensor, tensor / groups + softmax, mufu, shared, port)
//! CTA  = (steps - tiles) * step + tiles * (tensor + softmax + store + ring) + transfers + waits
//! ```
//!
//! # Source
//! Order of the loop: Shah et al. 2024, arXiv:2407.08608, section 3.2. The constants are fitted to the rows of 512 and 8192
//! positions in `tests/record/2026-11-25-hopper-schedules.csv`, one H100; its other rows judge them, though the form of the model was chosen with all rows in view.

use super::time::DRAM_EFFICIENCY;
use super::work::{Work, query_buffer};
use crate::device::{Device, L2_PORT};
use drawloom_kernel::ir::Kernel;

/// What the time of a kernel with a producer depends on beside its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Warpgroups that compute.
    pub groups: u32,
    /// Whether results lie where the query tile was, so that the next cannot be fetched before they are stored.
    pub waits_for_store: bool,
    /// Whether the next query tile is fetched while this one is in use.
    pub ahead: bool,
    /// Slots of the rings of keys and values.
    pub stages: u32,
}

impl Producer {
    /// That of a kernel, if it has one.
    pub(super) fn of(kernel: &Kernel) -> Option<Producer> {
        let [_, computing] = kernel.roles.as_slice() else {
            return None;
        };
        Some(Producer {
            groups: computing.warps / 4,
            waits_for_store: kernel.buffers.iter().any(|b| b.alias.is_some()),
            ahead: query_buffer(kernel).is_some_and(|q| kernel.buffers[q.index()].slots > 1),
            stages: kernel.buffers.iter().map(|b| b.slots).max().unwrap_or(1),
        })
    }
}

/// Cycles that a softmax takes for each instruction slot: products of other groups contend for registers and issue.
const SOFTMAX: f64 = 2.59;
/// Exponent of the norm of a step's bounds.
const NORM: f64 = 10.1;
/// Share of the time for a tile's queries and results, at the multiprocessor's part of the DRAM's rate, that nothing hides:
/// nearly all CTAs come to the end of a tile together.
const TRANSFER: f64 = 0.90;
/// Share of the waits at barriers and for exchanges that nothing hides.
const WAITS: f64 = 0.68;
/// Cycles in which a query tile waits until the results before it are stored.
const STORE_WAIT: f64 = 580.0;
/// Cycles in which a query tile waits for the first slots of its rings, if these have two: a third one is filled ahead.
const RING_WAIT: f64 = 475.0;
/// Share of the tensor pipe's time with which the card's power limits its clock to the sustained one.
const POWER_SHARE: f64 = 1.0;

/// Cycles from the start of a CTA to its end.
pub(super) fn cycles(of: &Producer, work: &Work, device: &Device) -> f64 {
    let groups = f64::from(of.groups.max(1));
    let warps = 4.0 * groups + 1.0;
    let (steps, tiles) = (work.fills as f64 / 2.0, work.tiles as f64);
    if steps == 0.0 {
        return 0.0;
    }
    let step = |cycles: f64| cycles / steps;
    let stalls = work.stalled_flops as f64 / f64::from(device.wgmma_per_clock);
    let tensor = step(work.tensor_clocks(device) + stalls);
    let softmax = SOFTMAX * step(work.issue_milli as f64 / 1000.0) / warps;
    let bounds = [
        tensor,
        tensor / groups + softmax,
        step(work.mufu as f64 / f64::from(device.mufu_per_clock)),
        step(work.shared_bytes() as f64 / f64::from(device.shared_per_clock)),
        step(work.global_bytes() as f64 / f64::from(L2_PORT)),
    ];
    let most = bounds.into_iter().fold(1.0, f64::max);
    let period = most
        * bounds
            .map(|b| (b / most).powf(NORM))
            .iter()
            .sum::<f64>()
            .powf(1.0 / NORM);
    // As many bytes of queries as of results; the queries' are hidden if they are fetched ahead.
    let bytes = if of.ahead { 1.0 } else { 2.0 } * work.written.iter().sum::<u64>() as f64;
    let share =
        f64::from(device.bytes_per_microsecond) * DRAM_EFFICIENCY / f64::from(device.burst_mhz) / f64::from(device.sms);
    let transfer = TRANSFER * bytes / share.max(1.0);
    let waits = WAITS * work.latency as f64 / warps;
    let store = if of.waits_for_store { STORE_WAIT } else { 0.0 };
    let ring = RING_WAIT / f64::from(of.stages.max(2) - 1);
    (steps - tiles).max(0.0) * period + tiles * (tensor + softmax + store + ring) + transfer + waits
}

/// The clock of a long run whose tensor pipe works for this share of the time.
pub(super) fn clock_mhz(busy: f64, device: &Device) -> f64 {
    let (burst, sustained) = (f64::from(device.burst_mhz), f64::from(device.sustained_mhz));
    burst - (burst - sustained) * (busy / POWER_SHARE).clamp(0.0, 1.0)
}
