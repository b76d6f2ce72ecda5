//! Spec files on the command line, and the choice of a binding and sizes.

use crate::report::Failure;
use drawloom_compiler::compile::few;
use drawloom_compiler::target::{TARGETS, Target};
use drawloom_lang::spec::{AxisRole, AxisSize, Binding, Dtype, Spec};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A spec file.
pub struct Source {
    /// What errors call it.
    pub name: String,
    /// Its specs.
    pub specs: Vec<Spec>,
}

/// The files that are meant, in order: a folder stands for its `.attn` files, `-` for standard input.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = path.read_dir().map_err(|e| Failure::io(path.display(), e))?;
            let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
            found.retain(|p| p.extension().is_some_and(|e| e == "attn"));
            found.sort();
            files.append(&mut found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// The name and text of a file, or of standard input for `-`.
pub fn read(file: &Path) -> Result<(String, String), Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|e| Failure::io("standard input", e))?;
        return Ok(("<stdin>".to_owned(), text));
    }
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(Failure::io(name, error)),
    }
}

/// The spec files that are meant, parsed and checked; the errors of all of them at once.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for file in files(paths)? {
        let (name, text) = read(&file)?;
        match drawloom_lang::parse_str(&name, &text) {
            Ok(specs) => sources.push(Source { name, specs }),
            Err(found) => errors.push(found),
        }
    }
    match Failure::of_files(errors) {
        None => Ok(sources),
        Some(failure) => Err(failure),
    }
}

/// The specs of these files.
pub fn specs(paths: &[PathBuf]) -> Result<Vec<Spec>, Failure> {
    Ok(sources(paths)?.into_iter().flat_map(|source| source.specs).collect())
}

/// `key=value` of an option.
pub fn pair(text: &str) -> Result<(&str, &str), String> {
    let (key, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((key.trim(), value.trim()))
}

/// Which types and sizes, and how large the run-time axes are.
#[derive(clap::Args, Clone)]
pub struct Choice {
    /// Only this type for every `type` set: f16, bf16, f32.
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Option<String>,
    /// Sizes of axes, as `d=64,i=4096`: a compiled axis takes only the sizes given for it, a run-time axis is this long.
    #[arg(long, value_delimiter = ',', value_parser = size, value_name = "AXIS=SIZE")]
    pub size: Vec<(String, u32)>,
    /// Only types and sizes that stand for the others: the last of each type set, the largest up to 64, to 128 and to 256.
    #[arg(long)]
    pub few: bool,
    /// Instruction sets to make kernels for; the first must have some.
    #[arg(long, value_delimiter = ',', value_parser = target, default_value = "sm_80,sm_90a")]
    pub target: Vec<&'static Target>,
}

fn target(text: &str) -> Result<&'static Target, String> {
    drawloom_compiler::target::target(text).ok_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        format!("no target is called `{text}`: {}", known.join(", "))
    })
}

fn size(text: &str) -> Result<(String, u32), String> {
    let (axis, n) = pair(text)?;
    Ok((axis.to_owned(), n.parse().map_err(|_| format!("`{n}` is no size"))?))
}

impl Choice {
    /// The spec's bindings that the choice leaves.
    pub fn bindings(&self, spec: &Spec) -> Result<Vec<Binding>, Failure> {
        let dtype = match self.types.as_deref() {
            None => None,
            Some("f16") => Some(Dtype::F16),
            Some("bf16") => Some(Dtype::Bf16),
            Some("f32") => Some(Dtype::F32),
            Some(other) => return Err(Failure::given(format!("no type is called `{other}`: f16, bf16 or f32"))),
        };
        let known = |name: &String| spec.axes.iter().any(|axis| axis.name == *name);
        if let Some((unknown, _)) = self.size.iter().find(|(name, _)| !known(name)) {
            let axes: Vec<&str> = spec.axes.iter().map(|axis| axis.name.as_str()).collect();
            return Err(Failure::given(format!(
                "`{}` has no axis `{unknown}`: {}",
                spec.name,
                axes.join(", ")
            )));
        }
        let mut bindings = match self.few {
            true => few(spec),
            false => drawloom_lang::bindings(spec),
        };
        bindings.retain(|b| {
            let types = dtype.is_none_or(|d| b.types.iter().all(|t| *t == d));
            let sizes = spec.axes.iter().zip(&b.sizes).all(|(axis, size)| {
                let mut wanted = self.size.iter().filter(|(name, _)| *name == axis.name).peekable();
                size.is_none() || wanted.peek().is_none() || wanted.any(|(_, n)| *size == Some(*n))
            });
            types && sizes
        });
        if bindings.is_empty() {
            return Err(Failure::given(format!(
                "`{}` is not compiled for that type and size",
                spec.name
            )));
        }
        Ok(bindings)
    }

    /// The size given for an axis.
    pub fn get(&self, axis: &str) -> Option<u32> {
        self.size.iter().find(|(name, _)| name == axis).map(|&(_, n)| n)
    }

    /// The sizes of all axes of a spec under a binding: those given, else those compiled, else usual ones.
    pub fn sizes(&self, spec: &Spec, binding: &Binding) -> BTreeMap<String, u32> {
        let mut sizes = BTreeMap::new();
        for (axis, compiled) in spec.axes.iter().zip(&binding.sizes) {
            let usual = match (&axis.size, axis.role) {
                (_, AxisRole::Query(_) | AxisRole::Key) => 4096,
                (AxisSize::Grouped { of, ratios }, _) => {
                    let whole = sizes.get(&spec.axes[of.index()].name).copied().unwrap_or(16);
                    whole / ratios.first().copied().unwrap_or(1).max(1)
                }
                (AxisSize::Runtime, _) if sizes.is_empty() => 1,
                (AxisSize::Runtime | AxisSize::OneOf(_), _) => 16,
            };
            let n = compiled.unwrap_or_else(|| self.get(&axis.name).unwrap_or(usual));
            sizes.insert(axis.name.clone(), n);
        }
        sizes
    }
}
