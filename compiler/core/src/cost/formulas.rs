//! A variant's time as a closed form that a launcher can evaluate: integer arithmetic over sizes and device numbers.
//!
//! The selector compares variants of one spec, so the form keeps what differs between them and between shapes and
//! devices, and nothing else:
//!
//! ```text
//! time    = launch + max(one, busiest, traffic)
//! one     = cycles(1) / clock                                    a CTA alone on its multiprocessor
//! busiest = ceil(ctas / sms) * cycles(resident) / resident / clock    the multiprocessor that gets most CTAs
//! traffic = bytes / bandwidth
//! cycles(r) = fixed + ceil(tiles * visited / 1024) * (other + tensor / tensor_per_clock + wgmma / wgmma_per_clock)
//! ```
//!
//! `fixed`, `other`, `tensor` and `wgmma` come from the walk of the kernel at one representative size through the queueing model
//! of [`super::time()`], with `r` CTAs on a multiprocessor: once at the reference device's tensor rates and once at twice
//! each of them, which tells the cycles that shrink with a faster tensor pipe from those that do not. `visited` is the
//! share of key tiles that the mask left there, in 1/1024.
//!
//! Of CTAs that stay and take one query tile after the other ([`resident_formula`]), the busiest counts:
//!
//! ```text
//! time    = launch + max(busiest / clock, traffic)
//! busiest = fixed * rounds + step * steps
//! rounds  = ceil(query tiles / ctas)
//! steps   = rounds * tiles                                       where every row sees all keys
//!           max(query tiles * visited / ctas, longest)           where a mask deals them out unevenly
//! ```
//!
//! `fixed` and `step` are such that the form equals the model at a short and a long sequence; `visited`, the mean number
//! of key tiles of a query tile, is the lower of the lines through three samples, because what a mask leaves grows at
//! most as fast as the sequence. `longest` is twice the mean, as under a causal mask, but no more than all.

use super::time::{Footprint, LAUNCH_NS, busiest, cta_cycles, occupancy};
use super::{Counts, Work};
use crate::device::Device;
use drawloom_lang::manifest::{DeviceFact, Formula};
use std::ops::Add;

/// What the closed form of one kernel needs to know beside its counts.
#[derive(Clone, PartialEq, Debug)]
pub struct Closed {
    /// CTAs.
    pub grid: Formula,
    /// Key tiles of a CTA if the mask hid nothing.
    pub tiles: Formula,
    /// Bytes of DRAM traffic.
    pub bytes: Formula,
    /// The value of `tiles` at the size of the counts.
    pub tiles_counted: u64,
    /// Tensor operations of a CTA for one key tile; 0 for a kernel without products, which is bound by its traffic.
    pub flops_per_tile: u64,
}

impl Closed {
    /// The share of key tiles that the mask left in a launch with these counts.
    pub fn share_of(&self, counts: &Counts) -> f64 {
        let ctas = counts.groups.iter().map(|g| g.ctas).sum::<u64>().max(1);
        let flops = self.flops_per_tile * self.tiles_counted * ctas;
        counts.total.mma_flops as f64 / (flops as f64).max(1.0)
    }
}

/// What the closed form of a kernel whose CTAs stay needs to know beside its samples.
#[derive(Clone, PartialEq, Debug)]
pub struct Resident {
    /// CTAs.
    pub grid: Formula,
    /// Query tiles of the launch.
    pub query_tiles: Formula,
    /// Key tiles of a query tile if the mask hid nothing.
    pub tiles: Formula,
    /// Bytes of DRAM traffic.
    pub bytes: Formula,
    /// Whether every row sees all keys.
    pub even: bool,
}

/// A launch that was counted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// CTAs.
    ctas: f64,
    /// Query tiles of all CTAs.
    query_tiles: f64,
    /// Key tiles that they visit, all together.
    steps: f64,
    /// Key tiles of a query tile if the mask hid nothing.
    tiles: f64,
    /// Cycles of the busiest CTA.
    cycles: f64,
}

impl Sample {
    /// The sample of a launch with these counts, whose query tiles would visit so many key tiles if nothing were hidden.
    pub fn new(of: &Footprint, counts: &Counts, tiles: u64, device: &Device) -> Sample {
        let ctas = counts.groups.iter().map(|g| g.ctas).sum::<u64>();
        Sample {
            ctas: ctas.max(1) as f64,
            query_tiles: counts.total.tiles.max(1) as f64,
            steps: counts.total.fills as f64 / 2.0,
            tiles: tiles.max(1) as f64,
            cycles: busiest(of, counts, device),
        }
    }

    fn visited(&self) -> f64 {
        self.steps / self.query_tiles
    }
}

/// The time in nanoseconds of a kernel whose CTAs stay, from samples of rising length.
pub fn resident_formula(resident: &Resident, samples: [Sample; 3]) -> Formula {
    let ctas = at_least_one(resident.grid.clone());
    let rounds = resident.query_tiles.clone().ceil_div(ctas.clone());
    let rounds_of = |s: &Sample| (s.query_tiles / s.ctas).ceil();
    let (steps, steps_of): (Formula, [f64; 3]) = if resident.even {
        let steps = rounds.clone() * resident.tiles.clone();
        (steps, samples.map(|s| rounds_of(&s) * s.tiles))
    } else {
        // In 1/1024 of a key tile.
        let line = |a: &Sample, b: &Sample| {
            let run = b.tiles - a.tiles;
            let slope = if run > 0.0 {
                (b.visited() - a.visited()) / run
            } else {
                0.0
            };
            let at_zero = b.visited() - slope * b.tiles;
            let scaled = |x: f64| Formula::Const((x * SHARE as f64).round() as i64);
            scaled(at_zero) + resident.tiles.clone() * scaled(slope)
        };
        let lines = line(&samples[0], &samples[1]).min(line(&samples[1], &samples[2]));
        let visited = Formula::Const(SHARE).max(lines);
        let all = resident.query_tiles.clone() * visited.clone();
        let share = all.ceil_div(ctas * SHARE);
        let twice = (visited * 2).ceil_div(SHARE);
        let longest = resident.tiles.clone().min(twice);
        (share.max(longest), samples.map(|s| s.steps / s.ctas))
    };
    // fixed * rounds + step * steps = cycles, at the first and the last sample.
    let [short, _, long] = [0, 1, 2].map(|n| (rounds_of(&samples[n]), steps_of[n].max(1.0), samples[n].cycles));
    let determinant = short.0 * long.1 - long.0 * short.1;
    let fixed = (short.2 * long.1 - long.2 * short.1) / determinant;
    let fixed = if fixed.is_finite() { fixed.max(0.0) } else { 0.0 };
    let step = ((long.2 - fixed * long.0) / long.1).max(0.0);
    let cycles = rounds * (fixed.round() as i64) + steps * (step.round() as i64);
    launch(cycles, &resident.bytes)
}

/// Nanoseconds of a launch whose busiest multiprocessor takes so many cycles, and which moves so many bytes.
fn launch(cycles: Formula, bytes: &Formula) -> Formula {
    let compute = (cycles * 1000).ceil_div(at_least_one(Formula::Device(DeviceFact::ClockMhz)));
    Formula::Const(LAUNCH_NS as i64) + compute.max(traffic(bytes))
}

/// Nanoseconds in which the DRAM moves so many bytes.
fn traffic(bytes: &Formula) -> Formula {
    (bytes.clone() * 1000).ceil_div(at_least_one(Formula::Device(DeviceFact::BytesPerMicrosecond)))
}

/// The denominator of the share of visited tiles.
const SHARE: i64 = 1024;

/// The time of one kernel in nanoseconds. `counts` are its counts at a representative size, `device` the one whose
/// rates split the cycles of a tile; the result holds for every device.
pub fn time_formula(of: &Footprint, counts: &Counts, closed: &Closed, device: &Device) -> Formula {
    let ctas = counts.groups.iter().map(|g| g.ctas).sum::<u64>().max(1);
    let resident = occupancy(of, device).ctas.max(1);
    let mean = mean(&counts.total, ctas);
    let share = (closed.grid.clone()).ceil_div(at_least_one(Formula::Device(DeviceFact::Sms)));
    let one = cycles(of, &mean, closed, 1, device);
    let busiest = (share * cycles(of, &mean, closed, resident, device)).ceil_div(resident);
    launch(one.max(busiest), &closed.bytes)
}

/// Cycles of a CTA that shares its multiprocessor with `resident - 1` others.
fn cycles(of: &Footprint, mean: &Work, closed: &Closed, resident: u32, device: &Device) -> Formula {
    let at = |device: &Device| cta_cycles(of, mean, resident, 0.0, device);
    let slow = at(device);
    if closed.flops_per_tile == 0 || closed.tiles_counted == 0 {
        return Formula::Const(slow.ceil() as i64);
    }
    let fixed = cta_cycles(of, &Work::default(), resident, 0.0, device);
    let tiles = (mean.mma_flops as f64 / closed.flops_per_tile as f64).max(1e-3);
    // slow - fixed = tiles * (other + tensor / T + wgmma / W); at 2 T and at 2 W half of one part is gone.
    let per_tile = |c: f64| (c - fixed).max(0.0) / tiles;
    let slow = per_tile(slow);
    let kinds = [
        (
            mean.mma_flops > mean.wgmma_flops,
            device.tensor_per_clock,
            DeviceFact::TensorPerClock,
            Device {
                tensor_per_clock: 2 * device.tensor_per_clock,
                ..*device
            },
        ),
        (
            mean.wgmma_flops > 0,
            device.wgmma_per_clock,
            DeviceFact::WgmmaPerClock,
            Device {
                wgmma_per_clock: 2 * device.wgmma_per_clock,
                ..*device
            },
        ),
    ];
    let mut other = slow;
    let mut products = Vec::new();
    for (_, rate, fact, faster) in kinds.into_iter().filter(|kind| kind.0) {
        let cycles = 2.0 * (slow - per_tile(at(&faster))).max(0.0);
        other -= cycles;
        let operations = Formula::Const((cycles * f64::from(rate)).ceil() as i64);
        products.push(operations.ceil_div(at_least_one(Formula::Device(fact))));
    }
    let other = Formula::Const(other.max(0.0).ceil() as i64);
    let tile = products.into_iter().fold(other, Formula::add);
    let visited = (tiles / closed.tiles_counted as f64 * SHARE as f64).ceil() as i64;
    let visited = (closed.tiles.clone() * visited).ceil_div(SHARE);
    Formula::Const(fixed.ceil() as i64) + visited * tile
}

/// The average CTA.
fn mean(total: &Work, ctas: u64) -> Work {
    Work {
        read: total.read.iter().map(|b| b / ctas).collect(),
        written: total.written.iter().map(|b| b / ctas).collect(),
        mma_flops: total.mma_flops / ctas,
        wgmma_flops: total.wgmma_flops / ctas,
        stalled_flops: total.stalled_flops / ctas,
        mufu: total.mufu / ctas,
        issue_milli: total.issue_milli / ctas,
        exps: total.exps / ctas,
        shared_read: total.shared_read / ctas,
        shared_once: total.shared_once / ctas,
        shared_written: total.shared_written / ctas,
        barriers: total.barriers / ctas,
        mbarriers: total.mbarriers / ctas,
        latency: total.latency / ctas,
        tiles: total.tiles / ctas,
        fills: total.fills / ctas,
    }
}

fn at_least_one(f: Formula) -> Formula {
    Formula::Const(1).max(f)
}

#[cfg(test)]
mod tests {
    use super::super::time::time;
    use super::super::{Group, Work};
    use super::*;
    use crate::device::{A100, H200};
    use drawloom_lang::manifest::Leaf;

    fn evaluate(f: &Formula, sizes: &[(&str, i64)], device: &Device) -> i64 {
        f.evaluate(&|leaf| match leaf {
            Leaf::Size(name) => sizes.iter().find(|s| s.0 == name).map(|s| s.1),
            Leaf::Splits => Some(1),
            Leaf::Device(fact) => Some(device.fact(fact)),
        })
        .expect("every leaf has a value")
    }

    /// A kernel that visits half of its `n / 64` tiles; at each `1 << 22` tensor operations and some of everything.
    fn counts(ctas: u64, tiles: u64) -> Counts {
        let tile = Work {
            mma_flops: 1 << 22,
            mufu: 1 << 13,
            issue_milli: 2_000_000,
            shared_read: 1 << 15,
            ..Work::default()
        };
        let mut work = Work::none(0);
        work.add(&tile, tiles / 2);
        let mut total = Work::none(0);
        total.add(&work, ctas);
        Counts {
            groups: vec![Group { ctas, work }],
            runs: vec![(0, ctas as u32)],
            total,
        }
    }

    #[test]
    fn the_closed_form_follows_the_model() {
        let of = Footprint {
            warps: 4,
            registers: 200,
            shared: 40_000,
            in_flight: 30_000,
            producer: None,
        };
        let n = || Formula::Size("n".into());
        let closed = Closed {
            grid: Formula::Size("ctas".into()),
            tiles: n().ceil_div(64),
            bytes: n(),
            tiles_counted: 64,
            flops_per_tile: 1 << 22,
        };
        let formula = time_formula(&of, &counts(264, 64), &closed, &A100);
        for device in [&A100, &H200] {
            for (ctas, n) in [(264, 4096), (2640, 4096), (2640, 16384), (100, 65536)] {
                let modelled = time(&of, &counts(ctas, n / 64), 0, device).expect("fits").ns;
                let closed = evaluate(&formula, &[("ctas", ctas as i64), ("n", n as i64)], device) as f64;
                assert!(
                    (0.7..1.4).contains(&(closed / modelled)),
                    "{}: {closed} for {modelled}",
                    device.name
                );
            }
        }
    }

    #[test]
    fn asynchronous_products_have_their_own_rate() {
        let of = Footprint {
            warps: 12,
            registers: 160,
            shared: 200_000,
            in_flight: 100_000,
            producer: None,
        };
        let closed = Closed {
            grid: Formula::Const(132),
            tiles: Formula::Const(64),
            bytes: Formula::Const(1),
            tiles_counted: 64,
            flops_per_tile: 1 << 22,
        };
        let mut counts = counts(132, 64);
        let synchronous = time_formula(&of, &counts, &closed, &H200);
        for work in counts.groups.iter_mut().map(|g| &mut g.work).chain([&mut counts.total]) {
            work.wgmma_flops = work.mma_flops;
        }
        let asynchronous = time_formula(&of, &counts, &closed, &H200);
        let named = |f: &Formula| serde_json::to_string(f).expect("invariant: plain data");
        assert!(named(&synchronous).contains("tensor_per_clock") && !named(&synchronous).contains("wgmma"));
        assert!(named(&asynchronous).contains("wgmma_per_clock") && !named(&asynchronous).contains("tensor_per_clock"));
        assert!(evaluate(&asynchronous, &[], &H200) < evaluate(&synchronous, &[], &H200));
        let modelled = time(&of, &counts, 0, &H200).expect("fits").ns;
        let closed = evaluate(&asynchronous, &[], &H200) as f64;
        assert!((0.7..1.4).contains(&(closed / modelled)), "{closed} for {modelled}");
    }

    #[test]
    fn traffic_is_a_floor() {
        let of = Footprint {
            warps: 4,
            registers: 64,
            shared: 0,
            in_flight: 2048,
            producer: None,
        };
        let closed = Closed {
            grid: Formula::Const(1),
            tiles: Formula::Const(0),
            bytes: Formula::Size("n".into()),
            tiles_counted: 0,
            flops_per_tile: 0,
        };
        let formula = time_formula(&of, &counts(1, 0), &closed, &H200);
        assert_eq!(
            evaluate(&formula, &[("n", 4_800_000_000)], &H200),
            LAUNCH_NS as i64 + 1_000_000
        );
    }
}
