//! The report in words.

use super::{Explanation, KernelReport, LoserReport};
use std::collections::BTreeMap;
use std::fmt::Write;

impl Explanation {
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
        let roofline = self.roofline();
        if !roofline.is_empty() {
            write!(out, "\n{roofline}")?;
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
