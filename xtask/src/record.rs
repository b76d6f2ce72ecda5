//! Dated records: filed under `tests/record/`, and those of times shown as the README's table.

mod correctness;
mod explained;
mod traffic;

use crate::compiler;
use crate::process::root;
use crate::table::markdown;
use anyhow::{Context, Result, bail, ensure};
use correctness::Correctness;
use explained::{issued, variant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- benchmarks: written by `cargo xtask record --readme` -->";
const END: &str = "<!-- end of benchmarks -->";

/// Suites whose newest records the README shows; the others, sweeps of schedules among them, are for reading in place.
const SHOWN: [&str; 4] = ["forward", "masks", "decode", "backward"];

/// One run of one suite on one machine. A record may say more than this; none says less.
#[derive(Serialize, Deserialize)]
struct Record {
    /// `2026-01-31`.
    date: String,
    /// The GPU and what drives it.
    machine: String,
    /// What was measured.
    commit: String,
    /// Name of the set of rows.
    suite: String,
    rows: Vec<Row>,
}

/// One measured launch.
#[derive(Serialize, Deserialize)]
struct Row {
    spec: String,
    target: String,
    /// `fwd`, `bwd`, `decode`.
    pass: String,
    /// Sizes and mask, as the peers spell them: `b4 h16 s4096 d128 causal`.
    shape: String,
    /// The schedule that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    /// Median in milliseconds.
    ours_ms: f64,
    /// Half the distance between the quartiles over the median.
    spread: Option<f64>,
    /// Median of a few launches after a pause, when clocks are not yet lowered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ours_burst_ms: Option<f64>,
    /// Distance of the result from one in `f32`, over that one's norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
    /// What the cost model says, in milliseconds.
    predicted_ms: Option<f64>,
    /// Issued bytes by the cost model.
    predicted_bytes: Option<u64>,
    /// Medians of other implementations in the same run, in milliseconds.
    peers: BTreeMap<String, f64>,
    /// Theirs after a pause.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    peers_burst: BTreeMap<String, f64>,
}

/// What the benchmark binary writes: a record that the compiler's counts are still to be added to.
#[derive(Deserialize)]
struct Measured {
    date: String,
    machine: String,
    commit: String,
    suite: String,
    rows: Vec<Timed>,
}

#[derive(Deserialize)]
struct Timed {
    spec: String,
    target: String,
    pass: String,
    shape: String,
    /// `bf16`.
    dtype: String,
    /// Axes with their sizes.
    sizes: BTreeMap<String, u64>,
    /// The schedule that the selector took.
    schedule: String,
    ours_ms: f64,
    spread: f64,
    predicted_ms: f64,
    #[serde(default)]
    ours_burst_ms: Option<f64>,
    #[serde(default)]
    error: Option<f64>,
    /// Other implementations in the same process, where the benchmark runs them itself.
    #[serde(default)]
    peers: BTreeMap<String, f64>,
    #[serde(default)]
    peers_burst: BTreeMap<String, f64>,
}

/// A row of the peers' script: `name` ends with the pass.
#[derive(Deserialize)]
struct Peer {
    name: String,
    shape: String,
    ms: f64,
}

/// Files `result`: times with those of `peers`, errors, or launches with what the profiler wrote of them (`ncu`); with
/// `readme` writes the README's table.
pub fn record(result: Option<&Path>, peers: Option<&Path>, ncu: Option<&Path>, readme: bool) -> Result<()> {
    if let Some(result) = result {
        /// What every result says.
        #[derive(Deserialize)]
        struct Of {
            suite: String,
        }
        match read::<Of>(result)?.suite.as_str() {
            correctness::SUITE => {
                let record: Correctness = read(result)?;
                record.check()?;
                println!("{} runs, worst {:.3} of an allowance", record.runs(), record.worst());
                file(&record.date, &record.suite, &record)?;
            }
            traffic::SUITE => {
                let ncu = ncu.context("launches are recorded with what the profiler wrote: --ncu FILE")?;
                let csv = fs::read_to_string(ncu).with_context(|| format!("{} cannot be read", ncu.display()))?;
                compiler::build(compiler::DRAWLOOM)?;
                let record = traffic::join(read(result)?, &csv, &variant)?;
                print!("{}", record.table());
                file(&record.date, &record.suite, &record)?;
            }
            _ => {
                let mut record = count(read(result)?)?;
                let peers: Vec<Peer> = peers.map(read).transpose()?.unwrap_or_default();
                let joined = join(&mut record, &peers);
                if !peers.is_empty() {
                    println!("{joined} times of peers joined to {} rows", record.rows.len());
                }
                file(&record.date, &record.suite, &record)?;
            }
        }
    }
    if readme {
        let path = root().join("README.md");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, with_table(&text, &tables(&newest()?))?)?;
        println!("wrote the table of README.md");
    }
    ensure!(result.is_some() || readme, "nothing to do: give a result, or --readme");
    Ok(())
}

/// A complaint if the README's table is not that of the newest records, or a record has another form.
pub fn check_readme() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("README.md"))?;
    Ok(
        match newest().and_then(|records| with_table(&text, &tables(&records))) {
            Ok(wanted) if wanted == text => Vec::new(),
            Ok(_) => vec!["README.md: the table of benchmarks is old: run `cargo xtask record --readme`".to_owned()],
            Err(error) => vec![format!("README.md: {error:#}")],
        },
    )
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} has another form", path.display()))
}

/// Writes a record where it belongs; an error where one stands already, or its date or suite is no part of a file name.
fn file(date: &str, suite: &str, record: &impl Serialize) -> Result<()> {
    let plain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    ensure!(
        plain(date) && plain(suite),
        "date and suite make the file's name: letters, digits, - and _"
    );
    let folder = root().join("tests").join("record");
    fs::create_dir_all(&folder)?;
    let to = folder.join(format!("{date}-{suite}.json"));
    if to.exists() {
        bail!(
            "{} is there already: a record is not written over; remove it if it was wrong",
            to.display()
        );
    }
    fs::write(&to, serde_json::to_string_pretty(record)? + "\n")?;
    println!("wrote {}", to.strip_prefix(root()).unwrap_or(&to).display());
    Ok(())
}

/// The record of what was measured, with the bytes that the compiler counts.
fn count(measured: Measured) -> Result<Record> {
    compiler::build(compiler::DRAWLOOM)?;
    let Measured {
        date,
        machine,
        commit,
        suite,
        rows,
    } = measured;
    let rows = rows.into_iter().map(|row| {
        let predicted_bytes = issued_bytes(&row).with_context(|| format!("{} {}", row.spec, row.shape))?;
        let Timed {
            spec,
            target,
            pass,
            shape,
            ours_ms,
            spread,
            predicted_ms,
            schedule,
            ours_burst_ms,
            error,
            peers,
            peers_burst,
            dtype: _,
            sizes: _,
        } = row;
        Ok(Row {
            spec,
            target,
            pass,
            shape,
            ours_ms,
            spread: Some(spread),
            predicted_ms: Some(predicted_ms),
            predicted_bytes: Some(predicted_bytes),
            variant: Some(schedule),
            ours_burst_ms,
            error,
            peers,
            peers_burst,
        })
    });
    Ok(Record {
        date,
        machine,
        commit,
        suite,
        rows: rows.collect::<Result<_>>()?,
    })
}

/// Global bytes that the kernels of a row issue, read plus written, by the compiler.
fn issued_bytes(row: &Timed) -> Result<u64> {
    let variant = variant(&row.spec, &row.dtype, &row.sizes, &row.schedule, &row.target)?;
    let kernels = variant["kernels"].as_array().into_iter().flatten();
    Ok(kernels.map(issued).sum())
}

/// Adds the peers' times to rows of the same shape and pass; returns how many found a row.
fn join(record: &mut Record, peers: &[Peer]) -> usize {
    let mut joined = 0;
    for row in &mut record.rows {
        for peer in peers.iter().filter(|peer| peer.shape == row.shape) {
            if let Some(name) = peer.name.strip_suffix(&row.pass) {
                row.peers.insert(name.trim_end().to_owned(), peer.ms);
                joined += 1;
            }
        }
    }
    joined
}

/// The newest record of each suite, by suite.
fn newest() -> Result<Vec<Record>> {
    let folder = root().join("tests").join("record");
    let mut newest: BTreeMap<String, Record> = BTreeMap::new();
    for entry in folder.read_dir().into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let of = |suite: &str| path.to_string_lossy().ends_with(&format!("-{suite}.json"));
        if of(correctness::SUITE) {
            let checked = read::<Correctness>(&path)?.check();
            checked.with_context(|| path.display().to_string())?;
            continue;
        }
        if of(traffic::SUITE) {
            traffic::check(&path)?;
            continue;
        }
        let record: Record = read(&path)?;
        if newest.get(&record.suite).is_none_or(|other| other.date < record.date) {
            newest.insert(record.suite.clone(), record);
        }
    }
    Ok(newest.into_values().collect())
}

/// A sentence on the longest launch of a spec in the newest record that times it, if one does.
pub fn sentence(spec: &str) -> Result<Option<String>> {
    let mut records = newest()?;
    records
        .iter_mut()
        .for_each(|record| record.rows.retain(|row| row.spec == spec));
    records.retain(|record| !record.rows.is_empty());
    let Some(record) = records.iter().max_by(|a, b| a.date.cmp(&b.date)) else {
        return Ok(None);
    };
    let row = record.rows.iter().max_by(|a, b| a.ours_ms.total_cmp(&b.ours_ms));
    Ok(row.map(|row| {
        let peers = row.peers.iter().map(|(name, ms)| format!(", {name} {ms:.4}"));
        let (Record { date, machine, .. }, peers) = (record, peers.collect::<String>());
        let Row {
            shape, target, ours_ms, ..
        } = row;
        format!("Measured {date} on {machine}, {shape}, {target}, in milliseconds: {ours_ms:.4}{peers}.")
    }))
}

/// The tables of the records.
fn tables(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records.iter().filter(|record| SHOWN.contains(&record.suite.as_str())) {
        let Record {
            date,
            machine,
            commit,
            suite,
            rows,
        } = record;
        let peers: Vec<&String> = {
            let mut names: Vec<&String> = rows.iter().flat_map(|row| row.peers.keys()).collect();
            names.sort();
            names.dedup();
            names
        };
        let commit = &commit[..commit.len().min(10)];
        text +=
            &format!("\nSuite `{suite}`, {date}, {machine}, commit `{commit}`. Times are medians in milliseconds; ");
        text += "behind a peer's time stands its time over ours, so that more than 1 is a win.\n\n";
        let head = ["spec", "target", "pass", "shape", "ours", "predicted"].map(str::to_owned);
        let head: Vec<String> = head
            .into_iter()
            .chain(peers.iter().map(|name| (*name).clone()))
            .collect();
        let mut lines: Vec<Vec<String>> = rows.iter().map(|row| line(row, &peers)).collect();
        if !peers.is_empty() {
            let mean = peers.iter().map(|peer| geometric_mean(rows, peer));
            let empty = std::iter::repeat_n(String::new(), 5);
            lines.push(
                std::iter::once("geometric mean".to_owned())
                    .chain(empty)
                    .chain(mean)
                    .collect(),
            );
        }
        text += &markdown(&head, &lines);
    }
    if text.is_empty() {
        "\nNothing is recorded yet.\n".to_owned()
    } else {
        text
    }
}

fn line(row: &Row, peers: &[&String]) -> Vec<String> {
    let Row {
        spec,
        target,
        pass,
        shape,
        ours_ms,
        predicted_ms,
        ..
    } = row;
    let mut cells = vec![spec.clone(), target.clone(), pass.clone(), shape.clone()];
    cells.push(format!("{ours_ms:.4}"));
    cells.push(predicted_ms.map(|ms| format!("{ms:.4}")).unwrap_or_default());
    for peer in peers {
        let cell = row.peers.get(*peer).map(|ms| format!("{ms:.4} ({:.2})", ms / ours_ms));
        cells.push(cell.unwrap_or_default());
    }
    cells
}

fn geometric_mean(rows: &[Row], peer: &str) -> String {
    let logs: Vec<f64> = rows
        .iter()
        .filter_map(|row| Some((row.peers.get(peer)? / row.ours_ms).ln()))
        .collect();
    format!("({:.2})", (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// `text` with what stands between the marks replaced.
fn with_table(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("README.md has no line `{BEGIN}`"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("README.md has no line `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{Peer, Record, Row, join, tables, with_table};
    use std::collections::BTreeMap;

    fn record(rows: &[(&str, f64)]) -> Record {
        let row = |(shape, ours_ms): &(&str, f64)| Row {
            spec: "causal".into(),
            target: "sm_80".into(),
            pass: "fwd".into(),
            shape: (*shape).into(),
            variant: None,
            ours_ms: *ours_ms,
            ours_burst_ms: None,
            error: None,
            spread: Some(0.01),
            predicted_ms: Some(0.5),
            predicted_bytes: Some(1),
            peers: BTreeMap::new(),
            peers_burst: BTreeMap::new(),
        };
        let rows = rows.iter().map(row).collect();
        let [date, machine, commit, suite] = ["2026-01-31", "H200", "0123456789abcdef", "forward"].map(str::to_owned);
        Record {
            date,
            machine,
            commit,
            suite,
            rows,
        }
    }

    fn peer(name: &str, shape: &str, ms: f64) -> Peer {
        Peer {
            name: name.into(),
            shape: shape.into(),
            ms,
        }
    }

    #[test]
    fn peers_join_rows_of_their_shape_and_pass() {
        let mut record = record(&[("s512", 2.0), ("s1024", 4.0)]);
        let peers = [
            peer("fa2 fwd", "s512", 1.0),
            peer("fa2 bwd", "s512", 9.0),
            peer("fa2 fwd", "s1024", 16.0),
        ];
        assert_eq!(join(&mut record, &peers), 2);
        let text = tables(&[record]);
        assert!(
            text.contains("| causal | sm_80 | fwd | s512 | 2.0000 | 0.5000 | 1.0000 (0.50) |"),
            "{text}"
        );
        assert!(text.contains("| (1.41) |"), "{text}");
    }

    #[test]
    fn the_table_stands_between_its_marks() {
        let text = format!("a\n{}\nold\n{}\nb\n", super::BEGIN, super::END);
        let once = with_table(&text, "new").expect("the marks are there");
        assert_eq!(with_table(&once, "new").expect("the marks are there"), once);
        assert!(once.starts_with("a\n") && once.ends_with("\nb\n") && !once.contains("old"));
        assert!(with_table("no marks", "new").is_err());
    }
}
