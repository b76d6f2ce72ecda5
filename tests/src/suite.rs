//! The named cases: `suite/*.toml` on the specs of this repository.
//!
//! ```toml
//! [[case]]
//! name = "causal, lengths that divide nothing"
//! spec = "causal"
//! dtype = "bf16"
//! sizes = { b = 2, h = 3, i = 77, j = 101, d = 64 }
//! input = "gaussian"
//! seed = 1
//! orders = { q = ["b", "i", "h", "d"] }
//! scalars = { cap = 30.0 }
//! ```

use crate::case::{Case, InputKind, Scalar};
use drawloom_lang::spec::{AxisId, Dtype};
use std::collections::BTreeMap;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Entry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    spec: String,
    dtype: Dtype,
    sizes: BTreeMap<String, usize>,
    input: InputKind,
    seed: u64,
    /// Memory order of inputs and outputs, slowest axis first.
    #[serde(default)]
    orders: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    scalars: BTreeMap<String, f64>,
}

/// The specs of this repository, and those made for the suite, by name.
pub const SPECS: [(&str, &str); 10] = [
    ("alibi", include_str!("../../specs/alibi.attn")),
    ("causal", include_str!("../../specs/causal.attn")),
    ("dense", include_str!("../../specs/dense.attn")),
    ("document", include_str!("../../specs/document.attn")),
    ("gqa_causal", include_str!("../../specs/gqa_causal.attn")),
    ("softcap", include_str!("../../specs/softcap.attn")),
    ("streaming", include_str!("../../specs/streaming.attn")),
    ("windowed", include_str!("../suite/bugs.attn")),
    ("cached", include_str!("../suite/bugs.attn")),
    ("islands", include_str!("../suite/bugs.attn")),
];

const FILES: [(&str, &str); 4] = [
    ("bugs", include_str!("../suite/bugs.toml")),
    ("inputs", include_str!("../suite/inputs.toml")),
    ("layouts", include_str!("../suite/layouts.toml")),
    ("shapes", include_str!("../suite/shapes.toml")),
];

/// All named cases.
///
/// # Errors
/// The first case that is wrong.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (name, text) in FILES {
        let file: File = toml::from_str(text).map_err(|e| format!("{name}.toml: {e}"))?;
        for entry in file.case {
            let case = case(&entry).map_err(|e| format!("{name}.toml, `{}`: {e}", entry.name))?;
            cases.push(case);
        }
    }
    Ok(cases)
}

fn case(entry: &Entry) -> Result<Case, String> {
    let text = SPECS
        .iter()
        .find(|(name, _)| *name == entry.spec)
        .map(|(_, text)| *text);
    let text = text.ok_or_else(|| format!("no spec `{}`", entry.spec))?;
    let specs = drawloom_lang::parse_str(&entry.spec, text).map_err(|e| e.to_string())?;
    let spec = specs.iter().find(|spec| spec.name == entry.spec);
    let spec = spec.ok_or_else(|| format!("no spec `{}` in its file", entry.spec))?;
    let mut case = Case::new(&entry.name, spec, entry.dtype, &entry.sizes, entry.input, entry.seed)?;
    for (name, order) in &entry.orders {
        let input = spec.inputs.iter().position(|i| i.name == *name);
        let output = spec.outputs.iter().position(|o| o.name == *name);
        let (axes, slot) = match (input, output) {
            (Some(n), _) => (&spec.inputs[n].axes, &mut case.inputs[n].order),
            (None, Some(n)) => (&spec.outputs[n].axes, &mut case.output_orders[n]),
            (None, None) => return Err(format!("no tensor `{name}`")),
        };
        let place = |axis: &String| axes.iter().position(|a: &AxisId| spec.axes[a.index()].name == *axis);
        let order = order
            .iter()
            .map(place)
            .collect::<Option<Vec<usize>>>()
            .unwrap_or_default();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..axes.len()).collect::<Vec<_>>() || order.last() != axes.len().checked_sub(1).as_ref() {
            return Err(format!(
                "the order of `{name}` is no permutation that keeps the last axis last"
            ));
        }
        *slot = order;
    }
    for (name, value) in &entry.scalars {
        let n = spec
            .scalars
            .iter()
            .position(|s| s.name == *name)
            .ok_or_else(|| format!("no scalar `{name}`"))?;
        case.scalars[n] = match spec.scalars[n].ty {
            Dtype::I32 => Scalar::Int(*value as i32),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::Real(*value as f32),
        };
    }
    Ok(case)
}
