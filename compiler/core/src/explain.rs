//! What a person, or a check in CI, is told of a compiled operator: bytes against the lower bound, the limiting pipe,
//! tiles visited and skipped, shared memory, registers, the schedules chosen and why the others lost.
//!
//! In: kernels with their counts, and what the search considered. Out: an [`Explanation`], plain data that serialises to
//! JSON, and its text form. It stands last because it only retells.

mod budget;
mod roofline;
mod text;

pub use budget::Budget;
pub use roofline::Roofs;

use crate::cost::{Counts, Footprint, Pipe, occupancy, time};
use crate::device::Device;
use crate::search::{Loser, Reason};
use crate::target::{REGISTERS_PER_THREAD, Target};
use drawloom_kernel::ir::Kernel;
use serde::Serialize;
use std::collections::BTreeMap;

/// A report on one operator, for one set of sizes on one device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explanation {
    /// Name of the spec.
    pub spec: String,
    /// What was chosen of its type sets and finite axes, as text: `bf16, d = 128`.
    pub binding: String,
    /// Instruction sets that the device runs.
    pub targets: Vec<String>,
    /// Those that have no kernels of their own for this operator, and why.
    pub without: Vec<(String, String)>,
    /// Device.
    pub device: String,
    /// What it could do at best.
    pub roofs: Roofs,
    /// Sizes of the run-time axes.
    pub sizes: Vec<(String, u64)>,
    /// Bytes of all inputs and outputs, each once.
    pub bound_bytes: u64,
    /// The portfolio; the fastest here is marked.
    pub variants: Vec<VariantReport>,
    /// Schedules that were considered and not taken.
    pub losers: Vec<LoserReport>,
}

/// One member of the portfolio.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct VariantReport {
    /// Instruction set.
    pub target: String,
    /// What it is in the portfolio for.
    pub purpose: String,
    /// Its schedule, in one line.
    pub schedule: String,
    /// Whether it is the one that the selector takes here.
    pub chosen: bool,
    /// Its kernels in order.
    pub kernels: Vec<KernelReport>,
}

/// One kernel's launch.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct KernelReport {
    /// Symbol.
    pub name: String,
    /// CTAs.
    pub ctas: u64,
    /// Warps of a CTA.
    pub warps: u32,
    /// Issued bytes read, by tensor: counted, exact.
    pub read: BTreeMap<String, u64>,
    /// Issued bytes written, by tensor: counted, exact.
    pub written: BTreeMap<String, u64>,
    /// Bytes at DRAM: modelled.
    pub dram_bytes: u64,
    /// Tensor operations: counted, exact; multiply and add count as two.
    pub flops: u64,
    /// Key tiles visited by all CTAs, and the number that a mask which hides nothing would visit; `None` for kernels
    /// without products.
    pub tiles: Option<(u64, u64)>,
    /// Dynamic shared memory of a CTA in bytes.
    pub shared: u32,
    /// Registers of a thread: by ptxas where it was at hand, else estimated.
    pub registers: u32,
    /// Whether the registers are an estimate.
    pub registers_estimated: bool,
    /// CTAs on a multiprocessor, 0 where the device cannot run it.
    pub resident: u32,
    /// What allows no more of them.
    pub resident_limit: String,
    /// Rounds of CTAs.
    pub waves: f64,
    /// Predicted time in nanoseconds.
    pub ns: f64,
    /// The pipe that needs most.
    pub limit: String,
    /// Nanoseconds that each pipe needs alone.
    pub pipes: BTreeMap<String, f64>,
}

/// A schedule that lost.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LoserReport {
    /// Instruction set.
    pub target: String,
    /// What it was considered for.
    pub purpose: String,
    /// The schedule, in one line.
    pub schedule: String,
    /// Why it lost.
    pub reason: String,
    /// How many times slower than the best it is predicted to be, if it could run.
    pub slower: Option<f64>,
}

/// The work of visiting one key tile, to tell visited tiles from skipped ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileWork {
    /// Tensor operations of a CTA for a tile.
    pub flops: u64,
    /// Tiles of all CTAs if nothing were masked.
    pub all: u64,
}

/// What a kernel does in a launch. `registers` are those of ptxas, if known; `unique_bytes` as in [`time`].
pub fn kernel_report(
    kernel: &Kernel,
    counts: &Counts,
    registers: Option<u32>,
    unique_bytes: u64,
    tile: Option<TileWork>,
    device: &Device,
) -> KernelReport {
    let estimated = crate::cost::estimate_registers(kernel).min(REGISTERS_PER_THREAD);
    let footprint = Footprint::of(kernel, registers.unwrap_or(estimated));
    let occupancy = occupancy(&footprint, device);
    let time = time(&footprint, counts, unique_bytes, device);
    let by_tensor = |bytes: &[u64]| {
        let named = kernel.params.iter().zip(bytes).filter(|(_, b)| **b > 0);
        named.map(|(p, b)| (p.name.clone(), *b)).collect()
    };
    let pipes = time.as_ref().map_or([0.0; 6], |t| t.pipes);
    KernelReport {
        name: kernel.name.clone(),
        ctas: counts.groups.iter().map(|g| g.ctas).sum(),
        warps: kernel.warps(),
        read: by_tensor(&counts.total.read),
        written: by_tensor(&counts.total.written),
        dram_bytes: time.as_ref().map_or(0, |t| t.dram_bytes),
        flops: counts.total.mma_flops,
        tiles: tile
            .filter(|t| t.flops > 0)
            .map(|t| (counts.total.mma_flops / t.flops, t.all)),
        shared: footprint.shared,
        registers: footprint.registers,
        registers_estimated: registers.is_none(),
        resident: occupancy.ctas,
        resident_limit: occupancy.limit.to_owned(),
        waves: time.as_ref().map_or(0.0, |t| t.waves),
        ns: time.as_ref().map_or(0.0, |t| t.ns),
        limit: time.as_ref().map_or("does not fit", |t| t.limit.name()).to_owned(),
        pipes: Pipe::ALL
            .iter()
            .zip(pipes)
            .map(|(p, ns)| (p.name().to_owned(), ns))
            .collect(),
    }
}

/// What the search considered and did not take.
pub fn loser_reports(target: &Target, losers: &[Loser]) -> Vec<LoserReport> {
    losers
        .iter()
        .map(|l| LoserReport {
            target: target.name.to_owned(),
            purpose: l.purpose.name().to_owned(),
            schedule: l.schedule.to_string(),
            reason: l.reason.to_string(),
            slower: match l.reason {
                Reason::Slower(by) | Reason::BoundSlower(by) => Some(by),
                Reason::Limit(_) | Reason::Multiple { .. } | Reason::NoKernel(_) => None,
            },
        })
        .collect()
}

impl KernelReport {
    /// Issued bytes, read and written.
    pub fn issued_bytes(&self) -> u64 {
        self.read.values().sum::<u64>() + self.written.values().sum::<u64>()
    }
}

impl VariantReport {
    /// Issued bytes of all kernels.
    pub fn issued_bytes(&self) -> u64 {
        self.kernels.iter().map(KernelReport::issued_bytes).sum()
    }

    /// Predicted time of all kernels in nanoseconds; `None` where the device cannot run one of them.
    pub fn ns(&self) -> Option<f64> {
        self.kernels
            .iter()
            .all(|k| k.resident > 0)
            .then(|| self.kernels.iter().map(|k| k.ns).sum())
    }
}

impl Explanation {
    /// The variant that the selector takes.
    pub fn chosen(&self) -> Option<&VariantReport> {
        self.variants.iter().find(|v| v.chosen)
    }

    /// The roofline in characters, for a terminal of 80 columns; empty where no variant runs on the device.
    pub fn roofline(&self) -> String {
        roofline::text(self)
    }

    /// The roofline as SVG.
    pub fn roofline_svg(&self) -> String {
        roofline::svg(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::count;
    use crate::cost::tests::{causal, inputs};
    use crate::device::H200;

    fn explanation() -> Explanation {
        let kernel = causal(4);
        let counts = count(&kernel, 2 * 16, &inputs(&[("n", 1024)])).expect("counts");
        let tile = TileWork {
            flops: 4 * 2 * 16 * 8 * 64,
            all: 32 * 32,
        };
        let report = kernel_report(&kernel, &counts, Some(40), 1 << 18, Some(tile), &H200);
        let variant = VariantReport {
            target: "sm_80".into(),
            purpose: "main".into(),
            schedule: "block_m=64 block_n=32".into(),
            chosen: true,
            kernels: vec![report],
        };
        let loser = |schedule: &str, slower: Option<f64>| LoserReport {
            target: "sm_80".into(),
            purpose: "main".into(),
            schedule: schedule.into(),
            reason: "because".into(),
            slower,
        };
        Explanation {
            spec: "causal".into(),
            binding: "bf16".into(),
            targets: vec!["sm_80".into(), "sm_90a".into()],
            without: vec![("sm_90a".into(), "no reason".into())],
            device: "H200".into(),
            roofs: Roofs::of(&H200),
            sizes: vec![("n".into(), 1024)],
            bound_bytes: 1 << 18,
            variants: vec![variant],
            losers: vec![loser("c", None), loser("b", Some(1.5)), loser("a", Some(1.2))],
        }
    }

    #[test]
    fn the_text_holds_every_figure() {
        let e = explanation();
        let text = e.text();
        let k = &e.variants[0].kernels[0];
        // Each of the 16 query tiles of two heads visits the keys up to its last row: 2 + 4 + ... + 32 tiles of 32 keys.
        assert_eq!(k.tiles, Some((2 * 272, 1024)));
        assert_eq!(k.read["k"], 2 * 272 * 32 * 128);
        for part in [
            "544 visited, 480 skipped (47 %)",
            "40 registers",
            "lower bound: 256.00 KiB",
            "2 slower, 1 cannot run",
            "none for sm_90a: no reason",
            "sm_80 main: block_m=64",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.find("  a: because") < text.find("  b: because"), "{text}");
    }

    #[test]
    fn json_keeps_exact_bytes() {
        let json: serde_json::Value = serde_json::to_value(explanation()).expect("invariant: plain data");
        assert_eq!(json["variants"][0]["kernels"][0]["read"]["k"], 2 * 272 * 32 * 128);
    }

    #[test]
    fn a_budget_is_kept_or_reported() {
        let e = explanation();
        let variant = &e.variants[0];
        let issued = variant.issued_bytes();
        let kept = Budget {
            bytes: Some(issued),
            registers: Some(40),
            shared: Some(variant.kernels[0].shared),
            time_us: variant.ns().map(|ns| ns / 1000.0),
            ..Budget::default()
        };
        assert_eq!(kept.exceeded(&e), [""; 0]);
        let tight = Budget {
            bytes: Some(issued - 1),
            registers: Some(39),
            time_us: Some(0.0),
            ..Budget::default()
        };
        let said = tight.exceeded(&e);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("issued bytes, 1 more than the budget"), "{said:?}");
        assert!(
            said[1].contains("40 registers, 1 more than the budget of 39"),
            "{said:?}"
        );
        let homeless = Explanation {
            variants: Vec::new(),
            ..e
        };
        assert!(kept.exceeded(&homeless)[0].contains("no variant runs on H200"));
    }

    #[test]
    fn the_roofline_shows_every_variant_and_both_roofs() {
        let e = explanation();
        let (text, svg) = (e.roofline(), e.roofline_svg());
        let k = &e.variants[0].kernels[0];
        let intensity = format!("at {:.0} operations a byte", k.flops as f64 / k.dram_bytes as f64);
        for part in [
            "wgmma 989",
            "mma.sync 6",
            "DRAM 4800 GB/s",
            "chosen",
            "─",
            "┄",
            "╱",
            &intensity,
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(
            text.lines()
                .take(16)
                .any(|line| line.contains('a') && line.contains('│')),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(
            svg.ends_with("</svg>\n") && svg.contains(&intensity) && svg.contains("989 TFLOP/s"),
            "{svg}"
        );
        let homeless = Explanation {
            variants: Vec::new(),
            ..e
        };
        assert_eq!(homeless.roofline(), "");
    }
}
