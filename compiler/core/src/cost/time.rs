//! From counts to time on a device.
//!
//! A multiprocessor is four schedulers, each with its share of the pipes: tensor, special functions, issue, shared
//! memory. The resident warps of a scheduler are the customers of a closed queueing network whose stations are these
//! pipes; a warp visits one at a time, and a visit's length is the warp's work there at the pipe's rate. Mean-value
//! analysis gives the time of a warp for any number of them: the sum of its pipes when it is alone, the busiest pipe
//! when there are many, and the imperfect overlap of two or three in between, without a fitted constant. Waiting that
//! occupies no pipe (latencies) is a delay station.
//!
//! CTAs are then dealt to the slots of the device in grid order, as the hardware does, which gives wave quantisation
//! and the tail of unequal CTAs. L2 and DRAM bound the result from below.
//!
//! # Source
//! Mean-value analysis: Reiser and Lavenberg 1980, Journal of the ACM 27(2).

use super::resident::{self, Producer};
use super::work::Work;
use super::{Counts, Group};
use crate::device::{Device, L2_PORT, RESERVED_SHARED};
use crate::target::REGISTER_UNIT;
use drawloom_kernel::ir::{Block, Effect, Kernel, Stmt};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What can limit a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pipe {
    /// Matrix products.
    Tensor,
    /// Special functions.
    Mufu,
    /// Instruction issue.
    Issue,
    /// Shared memory.
    Shared,
    /// The L2 cache.
    L2,
    /// DRAM.
    Hbm,
}

impl Pipe {
    /// All pipes, in the order of [`Time::pipes`].
    pub const ALL: [Pipe; 6] = [Pipe::Tensor, Pipe::Mufu, Pipe::Issue, Pipe::Shared, Pipe::L2, Pipe::Hbm];

    /// The name in reports and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Pipe::Tensor => "tensor",
            Pipe::Mufu => "mufu",
            Pipe::Issue => "issue",
            Pipe::Shared => "shared",
            Pipe::L2 => "l2",
            Pipe::Hbm => "hbm",
        }
    }
}

/// How many CTAs of a kernel a multiprocessor holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occupancy {
    /// CTAs; 0 if the kernel does not fit at all.
    pub ctas: u32,
    /// What allows no more: `registers`, `shared memory`, `warps` or `CTAs`.
    pub limit: &'static str,
}

/// What a CTA occupies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Warps.
    pub warps: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// Bytes that its copies keep in flight.
    pub in_flight: u32,
    /// What shapes its time if it has a producer.
    pub producer: Option<Producer>,
}

impl Footprint {
    /// The footprint of a kernel whose threads use this many registers. Where roles have budgets, their mean counts.
    pub fn of(kernel: &Kernel, registers: u32) -> Footprint {
        let warps = kernel.warps();
        let budgets: Option<u32> = (kernel.roles.iter())
            .map(|role| role.registers.map(|each| each * role.warps))
            .sum();
        Footprint {
            warps,
            registers: budgets.map_or(registers, |all| all / warps.max(1)),
            shared: kernel.shared_bytes(),
            in_flight: bytes_in_flight(kernel),
            producer: Producer::of(kernel),
        }
    }
}

/// The resident CTAs of a multiprocessor.
pub fn occupancy(of: &Footprint, device: &Device) -> Occupancy {
    let per_warp = (of.registers.max(1).next_multiple_of(8) * 32).next_multiple_of(REGISTER_UNIT);
    let warps = of.warps.max(1);
    let by_shared = if of.shared > device.shared_per_cta {
        0
    } else {
        device.shared_per_sm / (of.shared + RESERVED_SHARED)
    };
    let limits = [
        (device.registers / (per_warp * warps), "registers"),
        (by_shared, "shared memory"),
        (device.warps_per_sm / warps, "warps"),
        (device.ctas_per_sm, "CTAs"),
    ];
    let (ctas, limit) = limits
        .into_iter()
        .min_by_key(|l| l.0)
        .expect("invariant: there are four limits");
    Occupancy { ctas, limit }
}

/// The predicted time of a launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Time {
    /// Nanoseconds, launch included.
    pub ns: f64,
    /// Nanoseconds that each pipe would need alone if it were never idle, in the order of [`Pipe::ALL`].
    pub pipes: [f64; 6],
    /// The pipe that needs most.
    pub limit: Pipe,
    /// Resident CTAs of a multiprocessor.
    pub occupancy: Occupancy,
    /// Rounds of CTAs that the device runs.
    pub waves: f64,
    /// Bytes that reach DRAM, modelled: what the L2 does not keep of the issued ones.
    pub dram_bytes: u64,
}

/// Share of the nominal DRAM bandwidth that a kernel which only reads can have.
///
/// # Source
/// Measured: 4419 of 4800 GB/s on an H200, 2026-11-23.
pub(super) const DRAM_EFFICIENCY: f64 = 0.92;

/// Nanoseconds between a kernel's launch in a busy stream and its first instruction, and from its last to the next
/// kernel's: what a kernel without work costs. An assumption of ours, the same for all devices.
pub const LAUNCH_NS: f64 = 2000.0;

/// Accesses to DRAM that a CTA waits for before it can compute: the query tile and the first keys, which arrive
/// together, and the first values.
const PROLOGUE_ACCESSES: f64 = 2.0;

/// Predicts the time of a launch on a device; `None` where the kernel does not fit.
///
/// `unique_bytes` is the size of the data that the launch touches, each tensor once; see [`super::lower_bound`].
pub fn time(of: &Footprint, counts: &Counts, unique_bytes: u64, device: &Device) -> Option<Time> {
    let occupancy = occupancy(of, device);
    if occupancy.ctas == 0 {
        return None;
    }
    let grid: u64 = counts.groups.iter().map(|g| g.ctas).sum();
    let sms = u64::from(device.sms);
    let resident = grid.div_ceil(sms).clamp(1, occupancy.ctas.into()) as u32;
    let slots = (sms * u64::from(resident)) as usize;
    let issued = counts.total.global_bytes();
    // CTAs that stay work on as many query tiles at a time as there are of them.
    let parts = if of.producer.is_some() {
        counts.total.tiles
    } else {
        grid
    };
    let dram_bytes = dram_bytes(issued, unique_bytes, slots as f64 / parts.max(1) as f64, device);
    // Multiprocessors without a CTA leave their share of the DRAM to the others.
    let busy = grid.min(sms) as f64 / sms as f64;
    let from_dram = dram_bytes as f64 / issued.max(1) as f64 * busy;
    let durations: Vec<f64> = counts
        .groups
        .iter()
        .map(|g| cta_cycles(of, &g.work, resident, from_dram, device))
        .collect();
    let makespan = makespan(&counts.groups, &counts.runs, &durations, slots);

    let clocks = |n: f64| n / sms as f64 * 1000.0 / f64::from(device.clock_mhz);
    let cycles = |n: f64, rate: u32| clocks(n / f64::from(rate));
    let t = &counts.total;
    let l2 = t.global_bytes() as f64 / f64::from(device.l2_per_clock) * 1000.0 / f64::from(device.clock_mhz);
    let hbm = dram_bytes as f64 / (f64::from(device.bytes_per_microsecond) * DRAM_EFFICIENCY) * 1000.0;
    let pipes = [
        clocks(t.tensor_clocks(device)),
        cycles(t.mufu as f64, device.mufu_per_clock),
        cycles(t.issue_milli as f64 / 1000.0, device.issue_per_clock),
        cycles(t.shared_bytes() as f64, device.shared_per_clock),
        l2,
        hbm,
    ];
    let most = (0..6)
        .max_by(|&a, &b| pipes[a].total_cmp(&pipes[b]))
        .expect("invariant: there are six pipes");
    let busy = t.tensor_clocks(device) / sms as f64 / makespan.max(1.0);
    let clock = match of.producer {
        Some(_) => resident::clock_mhz(busy, device),
        None => f64::from(device.clock_mhz),
    };
    let compute = makespan * 1000.0 / clock;
    Some(Time {
        ns: if grid == 0 {
            0.0
        } else {
            compute.max(l2).max(hbm) + LAUNCH_NS
        },
        pipes,
        limit: Pipe::ALL[most],
        occupancy,
        waves: grid as f64 / (sms as f64 * f64::from(occupancy.ctas)),
        dram_bytes,
    })
}

/// Cycles of the CTA of a launch that works longest, where all of them are resident at once, one on a multiprocessor.
pub(super) fn busiest(of: &Footprint, counts: &Counts, device: &Device) -> f64 {
    let cycles = counts.groups.iter().map(|g| cta_cycles(of, &g.work, 1, 0.0, device));
    cycles.fold(0.0, f64::max)
}

/// Cycles from the start of a CTA to its end, with `resident` CTAs of its kind on the multiprocessor, when this share of
/// its bytes comes from DRAM.
pub(super) fn cta_cycles(of: &Footprint, work: &Work, resident: u32, from_dram: f64, device: &Device) -> f64 {
    if let Some(producer) = &of.producer {
        return resident::cycles(producer, work, device);
    }
    const SCHEDULERS: f64 = 4.0;
    let warps = f64::from(of.warps.max(1));
    // A warp's work at the rate of its scheduler.
    let share = |n: f64, rate: u32| n / f64::from(rate) * SCHEDULERS / warps;
    let pipes = [
        share(work.tensor_clocks(device), 1),
        share(work.mufu as f64, device.mufu_per_clock),
        share(work.issue_milli as f64 / 1000.0, device.issue_per_clock),
        share(work.shared_bytes() as f64, device.shared_per_clock),
    ];
    let latency = f64::from(device.dram_latency);
    let delay = work.latency as f64 / warps + PROLOGUE_ACCESSES * latency;
    let customers = (resident * of.warps).div_ceil(SCHEDULERS as u32);
    let computing = residence(&pipes, delay, customers);
    // Copies overlap with all of it, as far as the memory and the bytes in flight allow: the lines in flight of all
    // resident CTAs are the customers of the multiprocessor's port to the L2 and of its share of the DRAM.
    const LINE: f64 = 128.0;
    let lines = work.global_bytes() as f64 / LINE * f64::from(resident);
    let dram_per_clock =
        f64::from(device.bytes_per_microsecond) * DRAM_EFFICIENCY / f64::from(device.clock_mhz) / f64::from(device.sms);
    let memory = [LINE / f64::from(L2_PORT), LINE / dram_per_clock * from_dram];
    let in_flight = (f64::from(of.in_flight) * f64::from(resident) / LINE).clamp(1.0, 4096.0) as u32;
    let copying = lines * residence(&memory, latency, in_flight) / f64::from(in_flight);
    computing.max(copying)
}

/// Mean-value analysis: the time of one customer through all stations when `customers` circulate.
fn residence<const N: usize>(stations: &[f64; N], delay: f64, customers: u32) -> f64 {
    let mut queue = [0.0; N];
    let mut total = delay + stations.iter().sum::<f64>();
    for n in 1..=customers {
        let mut stay = [0.0; N];
        for ((stay, demand), queue) in stay.iter_mut().zip(stations).zip(queue) {
            *stay = demand * (1.0 + queue);
        }
        total = delay + stay.iter().sum::<f64>();
        if total <= 0.0 {
            return 0.0;
        }
        queue = stay.map(|s| s * f64::from(n) / total);
    }
    total
}

/// The largest grid whose CTAs are dealt one by one; beyond it quantisation is below a thousandth.
const DEALT: u64 = 1 << 17;

/// When the last CTA ends, if each slot takes the next CTA as soon as it is free.
fn makespan(groups: &[Group], runs: &[(u32, u32)], durations: &[f64], slots: usize) -> f64 {
    let grid: u64 = groups.iter().map(|g| g.ctas).sum();
    if grid > DEALT {
        let sum: f64 = groups.iter().zip(durations).map(|(g, d)| g.ctas as f64 * d).sum();
        return sum / slots as f64;
    }
    // Whole cycles order exactly.
    let mut free: BinaryHeap<Reverse<u64>> = BinaryHeap::with_capacity(slots);
    let mut last = 0;
    for &(group, ctas) in runs {
        let duration = durations[group as usize].ceil() as u64;
        for _ in 0..ctas {
            let start = if free.len() < slots {
                0
            } else {
                free.pop().map_or(0, |Reverse(t)| t)
            };
            last = last.max(start + duration);
            free.push(Reverse(start + duration));
        }
    }
    last as f64
}

/// Bytes that reach DRAM. What is touched again is found in the L2 as far as the data of the CTAs that run at the same
/// time, a share `active` of all data, fit into it.
fn dram_bytes(issued: u64, unique: u64, active: f64, device: &Device) -> u64 {
    let unique = unique.min(issued);
    let working_set = unique as f64 * active.min(1.0);
    let missed = if working_set > 0.0 {
        (1.0 - device.l2_bytes as f64 / working_set).max(0.0)
    } else {
        0.0
    };
    unique + ((issued - unique) as f64 * missed) as u64
}

/// Bytes that the copies of a CTA keep in flight: all slots of a buffer but the one being read; half of a single slot,
/// which is in flight about half of the time. A kernel without copies keeps one access of 16 bytes a lane.
fn bytes_in_flight(kernel: &Kernel) -> u32 {
    let mut written = BTreeMap::new();
    for role in &kernel.roles {
        copied(&role.body, kernel, &mut written);
    }
    written.values().sum::<u32>().max(kernel.warps() * 32 * 16)
}

fn copied(block: &Block, kernel: &Kernel, written: &mut BTreeMap<u32, u32>) {
    for stmt in &block.0 {
        match stmt {
            Stmt::Do(Effect::Copy { dst, .. }) => {
                let buffer = &kernel.buffers[dst.buf.index()];
                let bytes = match buffer.slots {
                    1 => buffer.bytes() / 2,
                    n => (n - 1) * buffer.slot_bytes(),
                };
                written.insert(dst.buf.0, bytes);
            }
            Stmt::Let { .. } | Stmt::Do(_) => {}
            Stmt::Loop(l) => copied(&l.body, kernel, written),
            Stmt::If(i) => {
                copied(&i.then, kernel, written);
                copied(&i.otherwise, kernel, written);
            }
            Stmt::Stream(s) => {
                s.stages.iter().for_each(|stage| copied(&stage.block, kernel, written));
                s.segments
                    .iter()
                    .for_each(|segment| copied(&segment.body, kernel, written));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{A100, H200, RTX_4090};

    #[test]
    fn one_warp_pays_for_every_pipe_and_many_for_the_busiest() {
        let pipes = [100.0, 60.0, 40.0];
        assert!((residence(&pipes, 10.0, 1) - 210.0).abs() < 1e-9);
        let many = residence(&pipes, 10.0, 64) / 64.0;
        assert!((100.0..103.0).contains(&many), "{many}");
        let two = residence(&pipes, 10.0, 2) / 2.0;
        assert!(100.0 < two && two < 210.0, "{two}");
    }

    #[test]
    fn occupancy_names_its_limit() {
        let of = |registers, shared| Footprint {
            warps: 4,
            registers,
            shared,
            in_flight: 1,
            producer: None,
        };
        assert_eq!(
            occupancy(&of(255, 1024), &A100),
            Occupancy {
                ctas: 2,
                limit: "registers"
            }
        );
        assert_eq!(
            occupancy(&of(128, 49 * 1024), &A100),
            Occupancy {
                ctas: 3,
                limit: "shared memory"
            }
        );
        assert_eq!(
            occupancy(&of(16, 0), &RTX_4090),
            Occupancy {
                ctas: 12,
                limit: "warps"
            }
        );
        assert_eq!(occupancy(&of(64, 128 * 1024), &RTX_4090).ctas, 0);
    }

    #[test]
    fn a_partial_wave_costs_a_whole_one() {
        let work = Work {
            mma_flops: 1 << 30,
            ..Work::default()
        };
        let of = Footprint {
            warps: 4,
            registers: 200,
            shared: 0,
            in_flight: 1,
            producer: None,
        };
        let at = |ctas: u64| {
            let counts = Counts {
                groups: vec![Group {
                    ctas,
                    work: work.clone(),
                }],
                runs: vec![(0, ctas as u32)],
                total: Work {
                    mma_flops: ctas << 30,
                    ..Work::default()
                },
            };
            time(&of, &counts, 0, &H200).expect("fits").ns
        };
        assert_eq!(at(264 + 1), at(2 * 264));
        assert!(at(264) < at(265));
        assert!((at(1 << 18) - LAUNCH_NS) / (at(1 << 16) - LAUNCH_NS) > 3.9);
    }

    #[test]
    fn the_cache_keeps_what_fits() {
        let (mib, issued) = (1u64 << 20, 1u64 << 40);
        assert_eq!(dram_bytes(issued, 10 * mib, 1.0, &H200), 10 * mib);
        assert!(dram_bytes(issued, 1000 * mib, 1.0, &H200) > issued / 2);
        assert_eq!(dram_bytes(issued, 1000 * mib, 0.01, &H200), 1000 * mib);
        assert_eq!(dram_bytes(100, 1000, 1.0, &H200), 100);
    }
}
