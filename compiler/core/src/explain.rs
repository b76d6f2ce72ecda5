//! What a person, or a check in CI, is told of a compiled operator: bytes against the lower bound, the limiting pipe,
//! tiles visited and skipped, shared memory, registers, the schedules chosen and why the others lost.
//!
//! In: kernels with their counts, and what the search considered. Out: an [`Explanation`], plain data that serialises to
//! JSON, and its text form. It stands last because it only retells.

use crate::cost::{Counts, Footprint, Pipe, occupancy, time};
use crate::device::Device;
use crate::search::{Loser, Reason};
use crate::target::{REGISTERS_PER_THREAD, Target};
use drawloom_kernel::ir::Kernel;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

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

    /// For CI: `Err` with the figures where the chosen variant issues more than `budget` bytes.
    ///
    /// # Errors
    /// The message to print.
    pub fn within(&self, budget: u64) -> Result<(), String> {
        match self.chosen() {
            Some(v) if v.issued_bytes() > budget => Err(format!(
                "{}: {} issues {} bytes, {} more than the budget of {budget}",
                self.spec,
                v.schedule,
                v.issued_bytes(),
                v.issued_bytes() - budget
            )),
            Some(_) => Ok(()),
            None => Err(format!("{}: no variant runs on {}", self.spec, self.device)),
        }
    }

    /// The report as text, for a terminal of 120 columns.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(|(n, x)| format!("{n} = {x}")).collect();
        writeln!(
            out,
            "{} ({}) for {} on {}: {}",
            self.spec,
            self.binding,
            self.targets.join(" and "),
            self.device,
            sizes.join(", ")
        )?;
        writeln!(
            out,
            "lower bound: {}, each input read and each output written once (a mask that hides keys can do with less)",
            bytes(self.bound_bytes)
        )?;
        for (target, why) in &self.without {
            writeln!(out, "none for {target}: {why}")?;
        }
        for v in &self.variants {
            let mark = if v.chosen { "chosen" } else { "" };
            writeln!(out, "\n{} {}: {}  {mark}", v.target, v.purpose, v.schedule)?;
            for k in &v.kernels {
                self.write_kernel(out, k)?;
            }
            if v.kernels.len() > 1
                && let Some(ns) = v.ns()
            {
                writeln!(
                    out,
                    "  together {}, {} issued",
                    microseconds(ns),
                    bytes(v.issued_bytes())
                )?;
            }
        }
        self.write_losers(out)
    }

    fn write_kernel(&self, out: &mut String, k: &KernelReport) -> std::fmt::Result {
        writeln!(out, "  {}: {} CTAs of {} warps", k.name, k.ctas, k.warps)?;
        let registers = if k.registers_estimated {
            "registers (estimated)"
        } else {
            "registers"
        };
        writeln!(
            out,
            "    occupies  {} {registers}, {} of shared memory",
            k.registers,
            bytes(k.shared.into())
        )?;
        if k.resident == 0 {
            return writeln!(out, "    does not fit: {}", k.resident_limit);
        }
        writeln!(
            out,
            "    resident  {} on a multiprocessor, bounded by {}; {:.2} waves",
            k.resident, k.resident_limit, k.waves
        )?;
        let share = k.issued_bytes() as f64 / self.bound_bytes.max(1) as f64;
        let list = |of: &BTreeMap<String, u64>| {
            of.iter()
                .map(|(n, b)| format!("{n} {}", bytes(*b)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(
            out,
            "    issued    {} = {share:.2} of the bound",
            bytes(k.issued_bytes())
        )?;
        writeln!(
            out,
            "              read {}; written {}",
            list(&k.read),
            list(&k.written)
        )?;
        writeln!(out, "    DRAM      {} (modelled)", bytes(k.dram_bytes))?;
        if let Some((visited, all)) = k.tiles {
            let skipped = all.saturating_sub(visited);
            let percent = 100.0 * skipped as f64 / all.max(1) as f64;
            writeln!(
                out,
                "    tiles     {visited} visited, {skipped} skipped ({percent:.0} %)"
            )?;
        }
        let mut pipes: Vec<(&String, &f64)> = k.pipes.iter().collect();
        pipes.sort_by(|a, b| b.1.total_cmp(a.1));
        let pipes: Vec<String> = pipes
            .into_iter()
            .map(|(n, ns)| format!("{n} {}", microseconds(*ns)))
            .collect();
        writeln!(
            out,
            "    time      {} (predicted), limited by {}",
            microseconds(k.ns),
            k.limit
        )?;
        writeln!(out, "              alone: {}", pipes.join(", "))
    }

    /// The nearest losers of each target and purpose, and how many could not run.
    fn write_losers(&self, out: &mut String) -> std::fmt::Result {
        const SHOWN: usize = 5;
        let mut purposes: Vec<(&str, &str)> = Vec::new();
        for l in &self.losers {
            if !purposes.contains(&(&l.target, &l.purpose)) {
                purposes.push((&l.target, &l.purpose));
            }
        }
        for (target, purpose) in purposes {
            let of = |l: &&LoserReport| l.target == target && l.purpose == purpose;
            let all: Vec<&LoserReport> = self.losers.iter().filter(of).collect();
            let mut slower: Vec<(f64, &LoserReport)> = all.iter().filter_map(|l| Some((l.slower?, *l))).collect();
            slower.sort_by(|a, b| a.0.total_cmp(&b.0));
            writeln!(
                out,
                "\nnot taken for {target} {purpose}: {} slower, {} cannot run",
                slower.len(),
                all.len() - slower.len()
            )?;
            for (_, l) in slower.into_iter().take(SHOWN) {
                writeln!(out, "  {}: {}", l.schedule, l.reason)?;
            }
            for l in all.iter().filter(|l| l.slower.is_none()).take(SHOWN) {
                writeln!(out, "  {}: {}", l.schedule, l.reason)?;
            }
        }
        Ok(())
    }
}

/// Bytes in the largest unit that leaves at least 1: `1.50 MiB`.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 1024.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{x:.2} {}", UNITS[unit])
    }
}

fn microseconds(ns: f64) -> String {
    format!("{:.1} us", ns / 1000.0)
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
        let issued = e.variants[0].issued_bytes();
        assert_eq!(e.within(issued), Ok(()));
        assert!(
            e.within(issued - 1)
                .expect_err("over")
                .contains("1 more than the budget")
        );
    }
}
