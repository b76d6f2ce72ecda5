//! Budgets: what a change to a spec, or to the compiler, may not exceed.

use super::Explanation;
use serde::Deserialize;

/// The most that the chosen variant may need, all its kernels together; what is `None` is free.
#[derive(Clone, Copy, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Issued bytes, read and written: exact.
    pub bytes: Option<u64>,
    /// Bytes at DRAM: modelled.
    pub dram_bytes: Option<u64>,
    /// Registers of a thread, of the kernel that has most.
    pub registers: Option<u32>,
    /// Dynamic shared memory of a CTA in bytes, of the kernel that has most.
    pub shared: Option<u32>,
    /// Predicted time in microseconds.
    pub time_us: Option<f64>,
}

impl Budget {
    /// What exceeds the budget, one sentence each with given, limit and excess.
    pub fn exceeded(&self, by: &Explanation) -> Vec<String> {
        let Some(variant) = by.chosen() else {
            return vec![format!("{}: no variant runs on {}", by.spec, by.device)];
        };
        let kernels = &variant.kernels;
        let dram: u64 = kernels.iter().map(|k| k.dram_bytes).sum();
        let registers = kernels.iter().map(|k| k.registers).max().unwrap_or(0);
        let shared = kernels.iter().map(|k| k.shared).max().unwrap_or(0);
        let whole = |limit: Option<u64>, given: u64, what: &str| {
            let limit = limit.filter(|limit| given > *limit)?;
            Some(format!(
                "{}: {} has {given} {what}, {} more than the budget of {limit}",
                by.spec,
                variant.schedule,
                given - limit
            ))
        };
        let time = variant.ns().map(|ns| ns / 1000.0).zip(self.time_us);
        let slow = time.filter(|(given, limit)| given > limit).map(|(given, limit)| {
            format!(
                "{}: {} is predicted to need {given:.1} us, {:.1} more than the budget of {limit}",
                by.spec,
                variant.schedule,
                given - limit
            )
        });
        let wide = |limit: Option<u32>| limit.map(u64::from);
        [
            whole(self.bytes, variant.issued_bytes(), "issued bytes"),
            whole(self.dram_bytes, dram, "bytes at DRAM"),
            whole(wide(self.registers), registers.into(), "registers"),
            whole(wide(self.shared), shared.into(), "bytes of shared memory"),
            slow,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
