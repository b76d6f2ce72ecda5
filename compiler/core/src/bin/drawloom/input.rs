//! Spec files on the command line, and the choice of a binding and sizes.

use crate::Failure;
use drawloom_compiler::target::{TARGETS, Target};
use drawloom_lang::spec::{Binding, Dtype, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The specs of files, or of all `.attn` files of folders, in order.
pub fn specs(paths: &[PathBuf]) -> Result<Vec<Spec>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found: Vec<PathBuf> = path.read_dir()?.filter_map(|e| Some(e.ok()?.path())).collect();
            found.retain(|p| p.extension().is_some_and(|e| e == "attn"));
            found.sort();
            files.append(&mut found);
        } else {
            files.push(path.clone());
        }
    }
    let mut specs = Vec::new();
    let mut errors = String::new();
    for file in files {
        match file_specs(&file) {
            Ok(mut found) => specs.append(&mut found),
            Err(Failure::Given(text)) => errors.push_str(&text),
            Err(other) => return Err(other),
        }
    }
    if errors.is_empty() {
        Ok(specs)
    } else {
        Err(Failure::Given(errors))
    }
}

fn file_specs(file: &Path) -> Result<Vec<Spec>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::Given(format!("{}: {e}\n", file.display())))?;
    drawloom_lang::parse_str(&file.display().to_string(), &text).map_err(|errors| Failure::Given(errors.to_string()))
}

/// Which types and sizes, and how large the run-time axes are.
#[derive(clap::Args, Clone)]
pub struct Choice {
    /// Only this type for every `type` set: f16, bf16, f32.
    #[arg(long = "type")]
    pub types: Option<String>,
    /// Sizes of axes, as `d=64,i=4096`: a compiled axis takes only the sizes given for it, a run-time axis is this long.
    #[arg(long, value_delimiter = ',', value_parser = size)]
    pub size: Vec<(String, u32)>,
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
    let (axis, n) = text.split_once('=').ok_or("expected AXIS=SIZE")?;
    Ok((
        axis.trim().to_owned(),
        n.trim().parse().map_err(|_| format!("`{n}` is no size"))?,
    ))
}

impl Choice {
    /// The spec's bindings that the choice leaves.
    pub fn bindings(&self, spec: &Spec) -> Result<Vec<Binding>, Failure> {
        let dtype = match self.types.as_deref() {
            None => None,
            Some("f16") => Some(Dtype::F16),
            Some("bf16") => Some(Dtype::Bf16),
            Some("f32") => Some(Dtype::F32),
            Some(other) => return Err(Failure::Given(format!("no type is called `{other}`: f16, bf16 or f32"))),
        };
        let mut bindings = drawloom_lang::bindings(spec);
        bindings.retain(|b| {
            let types = dtype.is_none_or(|d| b.types.iter().all(|t| *t == d));
            let sizes = spec.axes.iter().zip(&b.sizes).all(|(axis, size)| {
                let mut wanted = self.size.iter().filter(|(name, _)| *name == axis.name).peekable();
                size.is_none() || wanted.peek().is_none() || wanted.any(|(_, n)| *size == Some(*n))
            });
            types && sizes
        });
        if bindings.is_empty() {
            return Err(Failure::Given(format!(
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
        use drawloom_lang::spec::{AxisRole, AxisSize};
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
