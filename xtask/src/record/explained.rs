//! What the compiler says of a launch that was recorded.

use crate::compiler;
use crate::process::{self, root};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// Global bytes that a kernel issues, by its report.
pub fn issued(kernel: &Value) -> u64 {
    let maps = [&kernel["read"], &kernel["written"]].into_iter();
    maps.filter_map(Value::as_object)
        .flat_map(|map| map.values())
        .filter_map(Value::as_u64)
        .sum()
}

/// The compiler's report on the variant of a spec with this schedule.
pub fn variant(spec: &str, dtype: &str, sizes: &BTreeMap<String, u64>, schedule: &str, target: &str) -> Result<Value> {
    let sizes: Vec<String> = sizes.iter().map(|(axis, size)| format!("{axis}={size}")).collect();
    let folders = ["specs", "tests/bench/specs"].into_iter();
    let mut specs = folders.map(|folder| format!("{folder}/{spec}.attn"));
    let path = specs.find(|path| root().join(path).is_file());
    let path = path.with_context(|| format!("no spec is called `{spec}`"))?;
    let explain = [
        "explain",
        &path,
        "--type",
        dtype,
        "--size",
        &sizes.join(","),
        "--format",
        "json",
    ];
    let explanation: Value = serde_json::from_str(&process::read(&mut compiler::drawloom(explain))?)?;
    let mut variants = explanation["result"][0]["variants"].as_array().into_iter().flatten();
    let variant = variants.find(|variant| variant["schedule"] == schedule && variant["target"] == target);
    let variant = variant.with_context(|| format!("the compiler has no schedule `{schedule}` any more"))?;
    Ok(variant.clone())
}
