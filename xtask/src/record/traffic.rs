//! Records of bytes at DRAM: what a profiler counted, beside what the compiler predicts.

use super::explained::issued;
use crate::table::aligned;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the suite.
pub const SUITE: &str = "traffic";

/// What the suite binary writes with `--traffic`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launched {
    date: String,
    machine: String,
    commit: String,
    suite: String,
    rows: Vec<Launch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Launch {
    spec: String,
    dtype: String,
    sizes: BTreeMap<String, u64>,
    target: String,
    schedule: String,
    kernels: Vec<String>,
}

/// What is filed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    pub date: String,
    machine: String,
    commit: String,
    pub suite: String,
    rows: Vec<Row>,
}

/// A kernel's launch.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    spec: String,
    dtype: String,
    sizes: BTreeMap<String, u64>,
    target: String,
    schedule: String,
    kernel: String,
    /// Bytes that it asks of the memory system: counted by the compiler.
    issued_bytes: u64,
    /// Bytes at DRAM by the compiler's model of the L2 cache.
    modelled_bytes: u64,
    /// Bytes at DRAM by the profiler, read and written.
    read_bytes: u64,
    written_bytes: u64,
}

/// The compiler's report on a variant, by spec, type, sizes, schedule and target.
type Explained<'a> = dyn Fn(&str, &str, &BTreeMap<String, u64>, &str, &str) -> Result<Value> + 'a;

/// Joins what was launched with the profiler's CSV and the compiler's figures; `explained` gives a variant's report.
pub fn join(launched: Launched, csv: &str, explained: &Explained) -> Result<Traffic> {
    let mut profiled = profiled(csv)?.into_iter();
    let mut rows = Vec::new();
    for launch in launched.rows {
        let Launch {
            spec,
            dtype,
            sizes,
            target,
            schedule,
            kernels,
        } = launch;
        let variant = explained(&spec, &dtype, &sizes, &schedule, &target)?;
        let reports = variant["kernels"].as_array().map_or(&[][..], Vec::as_slice);
        ensure!(
            reports.len() == kernels.len(),
            "{spec}: the compiler makes {} kernels of it now",
            reports.len()
        );
        for (kernel, report) in kernels.into_iter().zip(reports) {
            let counted = profiled.find(|(name, _)| *name == kernel);
            let (_, [read_bytes, written_bytes]) = counted.with_context(|| format!("{kernel} was not profiled"))?;
            rows.push(Row {
                spec: spec.clone(),
                dtype: dtype.clone(),
                sizes: sizes.clone(),
                target: target.clone(),
                schedule: schedule.clone(),
                kernel,
                issued_bytes: issued(report),
                modelled_bytes: report["dram_bytes"].as_u64().unwrap_or(0),
                read_bytes,
                written_bytes,
            });
        }
    }
    Ok(Traffic {
        date: launched.date,
        machine: launched.machine,
        commit: launched.commit,
        suite: launched.suite,
        rows,
    })
}

/// Kernels in the order of their launches, each with the bytes that it read and wrote: a line of the CSV a metric.
fn profiled(csv: &str) -> Result<Vec<(String, [u64; 2])>> {
    // The profiler's own messages stand before the head.
    let mut lines = csv.lines().skip_while(|line| !line.contains("\"Kernel Name\""));
    let head = fields(lines.next().context("it has no column `Kernel Name`")?);
    let column = |name: &str| {
        let at = head.iter().position(|field| field == name);
        at.with_context(|| format!("it has no column `{name}`"))
    };
    let (id, kernel) = (column("ID")?, column("Kernel Name")?);
    let (metric, unit, value) = (column("Metric Name")?, column("Metric Unit")?, column("Metric Value")?);
    let mut launches: Vec<(String, String, [u64; 2])> = Vec::new();
    for line in lines {
        let fields = fields(line);
        let field = |at: usize| fields.get(at).map_or("", String::as_str);
        let which = match field(metric) {
            "dram__bytes_read.sum" => 0,
            "dram__bytes_write.sum" => 1,
            _ => continue,
        };
        let scale = match field(unit) {
            "byte" => 1.0,
            "Kbyte" => 1e3,
            "Mbyte" => 1e6,
            "Gbyte" => 1e9,
            other => anyhow::bail!("`{other}` is no unit of bytes"),
        };
        let number: f64 = field(value).replace(',', "").parse().context("a value is no number")?;
        if launches.last().is_none_or(|(last, ..)| last != field(id)) {
            // Symbols are plain: a parameter list behind one is the profiler's.
            let name = field(kernel).split('(').next().unwrap_or_default().to_owned();
            launches.push((field(id).to_owned(), name, [0; 2]));
        }
        if let Some((.., bytes)) = launches.last_mut() {
            bytes[which] = (number * scale).round() as u64;
        }
    }
    Ok(launches.into_iter().map(|(_, name, bytes)| (name, bytes)).collect())
}

/// The fields of a line of CSV whose fields are quoted.
fn fields(line: &str) -> Vec<String> {
    let trimmed = line.trim().trim_matches('"');
    trimmed.split("\",\"").map(str::to_owned).collect()
}

/// Reads a filed record.
pub fn check(path: &Path) -> Result<()> {
    super::read::<Traffic>(path).map(|_| ())
}

impl Traffic {
    /// A short table.
    pub fn table(&self) -> String {
        let mega = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let rows = self.rows.iter().map(|row| {
            let measured = row.read_bytes + row.written_bytes;
            vec![
                row.kernel.clone(),
                mega(row.issued_bytes),
                mega(row.modelled_bytes),
                mega(measured),
                format!("{:.2}", row.modelled_bytes as f64 / measured.max(1) as f64),
            ]
        });
        let head = [
            "kernel",
            "issued MB",
            "DRAM modelled",
            "DRAM measured",
            "modelled / measured",
        ];
        aligned(&head, &rows.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::{Launched, join};
    use serde_json::json;

    const CSV: &str = "==PROF== Connected to process 7
\"ID\",\"Process ID\",\"Kernel Name\",\"Metric Name\",\"Metric Unit\",\"Metric Value\"
\"0\",\"7\",\"fill\",\"dram__bytes_read.sum\",\"byte\",\"5\"
\"1\",\"7\",\"k_split\",\"dram__bytes_read.sum\",\"Mbyte\",\"1,234.5\"
\"1\",\"7\",\"k_split\",\"dram__bytes_write.sum\",\"Kbyte\",\"2\"
\"2\",\"7\",\"k_merge\",\"dram__bytes_read.sum\",\"byte\",\"64\"
\"2\",\"7\",\"k_merge\",\"dram__bytes_write.sum\",\"byte\",\"32\"
";

    #[test]
    fn kernels_are_joined_in_order() {
        let launched = || -> Launched {
            serde_json::from_value(json!({
                "date": "2026-01-31", "machine": "m", "commit": "c", "suite": "traffic",
                "rows": [{"spec": "s", "dtype": "bf16", "sizes": {"i": 1}, "target": "sm_80", "schedule": "x",
                          "kernels": ["k_split", "k_merge"]}],
            }))
            .expect("a record")
        };
        let report = |issued: u64| json!({"read": {"q": issued}, "written": {"o": 1}, "dram_bytes": 7});
        let variant = json!({"kernels": [report(9), report(19)]});
        let traffic = join(launched(), CSV, &|_, _, _, _, _| Ok(variant.clone())).expect("both were profiled");
        assert_eq!(traffic.rows.len(), 2);
        let first = &traffic.rows[0];
        assert_eq!((first.read_bytes, first.written_bytes), (1_234_500_000, 2000));
        assert_eq!((first.issued_bytes, first.modelled_bytes), (10, 7));
        assert_eq!(traffic.rows[1].issued_bytes, 20);
        let without = CSV.replace("k_merge", "other");
        assert!(join(launched(), &without, &|_, _, _, _, _| Ok(variant.clone())).is_err());
    }
}
