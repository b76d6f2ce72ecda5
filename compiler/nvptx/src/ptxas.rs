//! NVIDIA's assembler and disassembler, run as processes: PTX to a cubin, with what `ptxas` says of it, and a count of
//! its machine instructions.
//!
//! Both tools are optional: PTX alone is a complete artifact. Where they are at hand, every kernel is assembled, and one
//! that spills or whose asynchronous products ptxas serialises (its `C75xx` warnings) is found before it runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

/// What ptxas made of a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PtxasReport {
    /// Registers per thread.
    pub registers: u32,
    /// Bytes that a thread stores to spill registers.
    pub spill_store_bytes: u32,
    /// Bytes that a thread loads back.
    pub spill_load_bytes: u32,
    /// Bytes of static shared memory (dynamic shared memory is not known to ptxas).
    pub smem: u32,
    /// Its warnings, one line each.
    pub warnings: Vec<String>,
    /// The machine code, an ELF file.
    pub cubin: Vec<u8>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PtxasError {
    /// The tool could not be run, or a file of it not be read.
    #[error("{tool} could not be run: {source}")]
    Io {
        /// Path of the tool.
        tool: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tool refuses its input.
    #[error("{tool} refuses the kernel for {arch}: {log}")]
    Refused {
        /// Path of the tool.
        tool: PathBuf,
        /// The target asked for.
        arch: String,
        /// Its words.
        log: String,
    },
    /// ptxas gave up the schedule that the kernel asks for: asynchronous products serialised, or register budgets
    /// ignored.
    #[error("ptxas changes the kernel for {arch}: {warning}")]
    Degraded {
        /// The target asked for.
        arch: String,
        /// Its words.
        warning: String,
    },
}

/// The path of ptxas, if there is one: `DRAWLOOM_PTXAS`, then `target/tools/ptxas` in `from` or a folder above it, then
/// `PATH`.
pub fn find_ptxas(from: &Path) -> Option<PathBuf> {
    find_tool("DRAWLOOM_PTXAS", "ptxas", from)
}

/// The path of nvdisasm, if there is one: `DRAWLOOM_NVDISASM`, then `target/tools/nvdisasm` in `from` or a folder above
/// it, then `PATH`.
pub fn find_nvdisasm(from: &Path) -> Option<PathBuf> {
    find_tool("DRAWLOOM_NVDISASM", "nvdisasm", from)
}

fn find_tool(variable: &str, name: &str, from: &Path) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let pinned = from
        .ancestors()
        .map(|dir| dir.join("target/tools").join(name))
        .find(|p| p.is_file());
    pinned.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|p| p.is_file())
    })
}

/// Files of one run, removed when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "drawloom-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir)?;
        Ok(Scratch(dir))
    }
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run(tool: &Path, args: &[&OsStr]) -> Result<Output, PtxasError> {
    Command::new(tool).args(args).output().map_err(|source| PtxasError::Io {
        tool: tool.into(),
        source,
    })
}

/// The version of ptxas, such as `13.5.37`.
///
/// # Errors
/// [`PtxasError::Io`] if it cannot be run, or does not say.
pub fn version(ptxas_path: &Path) -> Result<String, PtxasError> {
    let output = run(ptxas_path, &["--version".as_ref()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.split_whitespace();
    let version = words.rev().find_map(|word| word.strip_prefix('V'));
    version.map(str::to_owned).ok_or_else(|| PtxasError::Io {
        tool: ptxas_path.into(),
        source: io::Error::other("it does not say its version"),
    })
}

/// Assembles PTX for a target such as `sm_80` or `sm_90a`.
///
/// # Errors
/// [`PtxasError::Refused`] if ptxas does not take the text, [`PtxasError::Degraded`] if it warns that it changes the
/// kernel's schedule (`C75xx`), [`PtxasError::Io`] if it cannot be run.
pub fn assemble(ptx: &str, arch: &str, ptxas_path: &Path) -> Result<PtxasReport, PtxasError> {
    let io = |source| PtxasError::Io {
        tool: ptxas_path.into(),
        source,
    };
    let scratch = Scratch::new().map_err(io)?;
    let (input, output) = (scratch.file("kernel.ptx"), scratch.file("kernel.cubin"));
    std::fs::write(&input, ptx).map_err(io)?;
    let flag = format!("-arch={arch}");
    let args = [
        OsStr::new("-v"),
        flag.as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
        input.as_os_str(),
    ];
    let result = run(ptxas_path, &args)?;
    let log = String::from_utf8_lossy(&result.stderr).into_owned() + &String::from_utf8_lossy(&result.stdout);
    if !result.status.success() {
        return Err(PtxasError::Refused {
            tool: ptxas_path.into(),
            arch: arch.into(),
            log,
        });
    }
    let mut report = read_log(&log);
    if let Some(warning) = report.warnings.iter().find(|w| w.contains("C75")) {
        return Err(PtxasError::Degraded {
            arch: arch.into(),
            warning: warning.clone(),
        });
    }
    report.cubin = std::fs::read(&output).map_err(io)?;
    Ok(report)
}

/// Reads what `ptxas -v` prints.
fn read_log(log: &str) -> PtxasReport {
    let number = |line: &str, unit: &str| -> Option<u32> {
        let before = &line[..line.find(unit)?];
        before
            .split(|c: char| !c.is_ascii_digit())
            .rfind(|s| !s.is_empty())?
            .parse()
            .ok()
    };
    let mut report = PtxasReport {
        registers: 0,
        spill_store_bytes: 0,
        spill_load_bytes: 0,
        smem: 0,
        warnings: Vec::new(),
        cubin: Vec::new(),
    };
    for line in log.lines() {
        let max = |old: u32, unit: &str| number(line, unit).map_or(old, |n| old.max(n));
        report.registers = max(report.registers, " registers");
        report.spill_store_bytes = max(report.spill_store_bytes, " bytes spill stores");
        report.spill_load_bytes = max(report.spill_load_bytes, " bytes spill loads");
        report.smem = max(report.smem, " bytes smem");
        if line.contains("warning") || line.contains("Potential Performance Loss") {
            report.warnings.push(line.trim().to_owned());
        }
    }
    report
}

/// One machine instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SassInstruction {
    /// Address in the kernel, in bytes.
    pub address: u32,
    /// Opcode with its modifiers, such as `HMMA.16816.F32.BF16`.
    pub opcode: String,
    /// Where it jumps to, if it is a branch to a known address.
    pub target: Option<u32>,
}

/// The machine instructions of a cubin with one kernel, in order.
///
/// # Errors
/// [`PtxasError::Refused`] if nvdisasm does not take the file, [`PtxasError::Io`] if it cannot be run.
pub fn disassemble(cubin: &[u8], nvdisasm: &Path) -> Result<Vec<SassInstruction>, PtxasError> {
    let io = |source| PtxasError::Io {
        tool: nvdisasm.into(),
        source,
    };
    let scratch = Scratch::new().map_err(io)?;
    let input = scratch.file("kernel.cubin");
    std::fs::write(&input, cubin).map_err(io)?;
    let result = run(nvdisasm, &["-c".as_ref(), input.as_os_str()])?;
    if !result.status.success() {
        let log = String::from_utf8_lossy(&result.stderr).into_owned();
        return Err(PtxasError::Refused {
            tool: nvdisasm.into(),
            arch: "its own".into(),
            log,
        });
    }
    Ok(read_sass(&String::from_utf8_lossy(&result.stdout)))
}

/// Reads the text of nvdisasm: `.L_x_1:` labels and lines such as `/*0010*/ @P0 BRA `(.L_x_1) ;`.
fn read_sass(text: &str) -> Vec<SassInstruction> {
    let mut out: Vec<SassInstruction> = Vec::new();
    let mut labels = BTreeMap::new();
    let mut jumps = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':') {
            labels.insert(label.to_owned(), out.len());
            continue;
        }
        let Some((address, rest)) = line.strip_prefix("/*").and_then(|l| l.split_once("*/")) else {
            continue;
        };
        let Ok(address) = u32::from_str_radix(address, 16) else {
            continue;
        };
        let mut words = rest.split_whitespace().filter(|w| !w.starts_with('@') && *w != "{");
        let Some(opcode) = words.next() else { continue };
        if let Some(label) = rest.split("`(").nth(1).and_then(|l| l.split(')').next()) {
            jumps.push((out.len(), label.to_owned()));
        }
        let opcode = opcode.trim_end_matches(';').to_owned();
        out.push(SassInstruction {
            address,
            opcode,
            target: None,
        });
    }
    for (at, label) in jumps {
        out[at].target = labels.get(&label).and_then(|to| out.get(*to)).map(|i| i.address);
    }
    out
}

/// Counts instructions by opcode without modifiers (`HMMA`, `LDSM`, `MUFU` …).
pub fn count_opcodes(code: &[SassInstruction]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for i in code {
        let name = i.opcode.split('.').next().unwrap_or(&i.opcode);
        *counts.entry(name.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// Counts the instructions of a cubin by opcode.
///
/// # Errors
/// Those of [`disassemble`].
pub fn sass_stats(cubin: &[u8], nvdisasm: &Path) -> Result<BTreeMap<String, usize>, PtxasError> {
    Ok(count_opcodes(&disassemble(cubin, nvdisasm)?))
}

/// The instructions between the targets of backward branches and those branches, one slice per loop, in order.
pub fn loops(code: &[SassInstruction]) -> Vec<&[SassInstruction]> {
    let mut out = Vec::new();
    for (end, i) in code.iter().enumerate() {
        let Some(to) = i.target.filter(|to| *to < i.address) else {
            continue;
        };
        let start = code.partition_point(|c| c.address < to);
        out.push(&code[start..=end]);
    }
    out
}
