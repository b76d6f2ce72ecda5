//! The gallery: `specs/README.md` with a picture of every mask, made from the specs, the compiler's figures and the
//! records.
//!
//! `--check` needs no compiler: what only the compiler knows, the costs, is taken from the page as it is, if it was made
//! for the same spec; everything else is made again. The full comparison is a step of `cargo xtask test`.

use crate::compiler;
use crate::process::root;
use crate::record::sentence;
use anyhow::{Context, Result, bail};
use drawloom_lang::picture::Mask;
use drawloom_lang::spec::{AxisRole, AxisSize, Dtype, Spec};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const FOLDER: &str = "specs";
const COMMAND: &str = "cargo xtask gallery";

/// What the costs are stated for, where a spec allows it.
const LENGTH: u32 = 8192;
const HEADS: u32 = 16;
const HEAD_DIM: u32 = 128;

/// The least numbers of queries and keys of a picture, the tiles in one of its rows, and its pixels.
const POINTS: usize = 256;
const TILES: usize = 16;
const PIXELS: usize = 256;

/// Writes the page and its pictures.
pub fn gallery() -> Result<()> {
    compiler::build(compiler::DRAWLOOM)?;
    for (path, text) in files(&|entry| costs(entry))? {
        fs::create_dir_all(path.parent().unwrap_or(root()))?;
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
            println!("wrote {}", shown(&path));
        }
    }
    stale()?
        .iter()
        .try_for_each(|path| Ok(fs::remove_file(root().join(path))?))
}

/// Fails where the page is not what [`gallery`] would write.
pub fn check_costs() -> Result<()> {
    compiler::build(compiler::DRAWLOOM)?;
    let complaints = compare(files(&|entry| costs(entry))?)?;
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("\n"))
}

/// Complaints where the page is not what [`gallery`] would write, costs of unchanged specs excepted.
pub fn check() -> Result<Vec<String>> {
    let page = fs::read_to_string(root().join(FOLDER).join("README.md")).unwrap_or_default();
    compare(files(&|entry| Ok(read_marks(&page, entry).unwrap_or_default()))?)
}

/// The costs of a spec on a page, if they are of this spec.
fn read_marks(page: &str, entry: &Entry) -> Option<String> {
    let (begin, end) = marks(entry);
    let (_, rest) = page.split_once(&(begin + "\n"))?;
    let (costs, _) = rest.split_once(end)?;
    Some(costs.to_owned())
}

fn compare(files: Vec<(PathBuf, String)>) -> Result<Vec<String>> {
    let old = |(path, text): &(PathBuf, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    let changed = files.iter().filter(|file| old(file)).map(|(path, _)| shown(path));
    let mut complaints: Vec<String> = changed
        .map(|path| format!("{path}: it is old: run `{COMMAND}`"))
        .collect();
    complaints.extend(
        stale()?
            .iter()
            .map(|path| format!("{path}: it belongs to no spec: run `{COMMAND}`")),
    );
    Ok(complaints)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// A spec of the folder.
struct Entry {
    /// Its file, from the root.
    file: String,
    /// The file's text without documentation.
    text: String,
    spec: Spec,
}

fn entries() -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in root().join(FOLDER).read_dir()? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "attn") {
            continue;
        }
        let file = shown(&path);
        let text = fs::read_to_string(&path)?;
        let specs = drawloom_lang::parse_str(&file, &text).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let code = text
            .lines()
            .filter(|line| !line.starts_with("///"))
            .map(|line| format!("{line}\n"));
        let code: String = code.collect();
        let [spec] = <[Spec; 1]>::try_from(specs).map_err(|all| anyhow::anyhow!("{file} has {} specs", all.len()))?;
        entries.push(Entry { file, text: code, spec });
    }
    entries.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(entries)
}

/// Pictures of specs that are gone.
fn stale() -> Result<Vec<String>> {
    let names: Vec<String> = entries()?
        .into_iter()
        .map(|entry| format!("{}.svg", entry.spec.name))
        .collect();
    let folder = root().join(FOLDER).join("pictures");
    let found = folder.read_dir().into_iter().flatten();
    let found = found.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(found
        .filter(|path| !names.iter().any(|name| path.ends_with(name)))
        .map(|path| shown(&path))
        .collect())
}

/// Every file of the gallery with its text, given each spec's costs.
fn files(costs: &dyn Fn(&Entry) -> Result<String>) -> Result<Vec<(PathBuf, String)>> {
    let folder = root().join(FOLDER);
    let mut files = Vec::new();
    let mut list = String::new();
    let mut sections = String::new();
    for entry in entries()? {
        let name = &entry.spec.name;
        let doc = entry.spec.doc.replace('\n', " ");
        let first = doc
            .split_once(". ")
            .map_or(doc.as_str(), |(first, _)| first)
            .trim_end_matches('.');
        list += &format!("- [{name}](#{name}): {first}.\n");
        sections += &format!(
            "\n## {name}\n\n{}\n\n",
            entry.spec.doc.replace("\nSource: ", "\n\nSource: ")
        );
        if let Some((svg, caption)) = picture(&entry.spec) {
            files.push((folder.join("pictures").join(format!("{name}.svg")), svg));
            sections += &format!("![the mask of {name}](pictures/{name}.svg)\n\n{caption}\n\n");
        }
        sections += &format!("```rust\n{}```\n\n", entry.text);
        let (begin, end) = marks(&entry);
        sections += &format!("{begin}\n{}{end}\n", costs(&entry)?);
        if let Some(measured) = sentence(name)? {
            sections += &format!("\n{measured}\n");
        }
    }
    let page = format!(
        "# The gallery\n\n\
         Every spec here is compiled, run on every engine of the test suite, and drawn: queries downwards, keys to the \
         right, {TILES} tiles in a row. Green tiles run without mask code, orange ones evaluate the mask, of which the \
         pale part is hidden, and grey ones are skipped.\n\
         Costs are the compiler's, for an H200: issued bytes are exact, times are predicted.\n\
         This page is written by `{COMMAND}`.\n\n{list}{sections}"
    );
    files.push((folder.join("README.md"), page));
    Ok(files)
}

/// The picture of a spec's mask, and what is in it.
fn picture(spec: &Spec) -> Option<(String, String)> {
    let points = drawloom_lang::picture_size(spec).max(POINTS);
    let mask = Mask::new(spec, points, points)?;
    let tile = points / TILES;
    let title = format!("{}: {points} queries, {points} keys", spec.name);
    let svg = mask.paint(Some(&mask.tiles(tile, tile))).svg(&title, PIXELS);
    Some((svg, format!("{points} queries and keys in tiles of {tile} by {tile}.")))
}

/// What stands around a spec's costs: the first names the spec's key, so that they are known to be its own.
fn marks(entry: &Entry) -> (String, &'static str) {
    let key = drawloom_lang::key(&entry.spec);
    (
        format!("<!-- costs of {} {} -->", entry.spec.name, &key[..16]),
        "<!-- end of costs -->",
    )
}

/// The sizes that a spec's costs are stated for, as an option.
fn sizes(spec: &Spec) -> String {
    let mut sizes: Vec<(String, u32)> = Vec::new();
    for axis in &spec.axes {
        let plain = sizes.len();
        let size = match (&axis.size, axis.role) {
            (AxisSize::OneOf(all), _) if all.contains(&HEAD_DIM) => HEAD_DIM,
            (AxisSize::OneOf(all), _) => all.last().copied().unwrap_or(HEAD_DIM),
            (_, AxisRole::Query(_) | AxisRole::Key) => LENGTH,
            (AxisSize::Grouped { of, ratios }, _) => {
                let whole = sizes.get(of.index()).map_or(HEADS, |(_, n)| *n);
                let ratio = ratios.iter().filter(|ratio| **ratio > 0 && whole % **ratio == 0).max();
                whole / ratio.copied().unwrap_or(1)
            }
            (AxisSize::Runtime, _) if plain == 0 => 1,
            (AxisSize::Runtime, _) => HEADS,
        };
        sizes.push((axis.name.clone(), size));
    }
    let sizes = sizes.iter().map(|(axis, n)| format!("{axis}={n}"));
    sizes.collect::<Vec<_>>().join(",")
}

/// The costs of a spec by the compiler: a table of what the selector takes and of the best of each other target.
fn costs(entry: &Entry) -> Result<String> {
    let sizes = sizes(&entry.spec);
    let mut explain = vec!["explain", &entry.file, "--size", &sizes, "--format", "json"];
    let bf16 = entry.spec.types.iter().all(|set| set.members.contains(&Dtype::Bf16));
    if bf16 && !entry.spec.types.is_empty() {
        explain.extend(["--type", "bf16"]);
    }
    let output = compiler::drawloom(explain).output()?;
    let printed: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}", entry.file, String::from_utf8_lossy(&output.stderr)))?;
    match printed["exit"].as_u64() {
        Some(0) => table(&printed["result"][0], &sizes),
        Some(1) => Ok(format!(
            "No kernels: {}\n",
            printed["errors"][0]["message"].as_str().unwrap_or_default()
        )),
        _ => bail!("{}: {}", entry.file, printed["errors"]),
    }
}

fn table(explained: &Value, sizes: &str) -> Result<String> {
    let variants = explained["variants"]
        .as_array()
        .context("an explanation without variants")?;
    let total = |variant: &Value, field: &str| -> f64 {
        let kernels = variant["kernels"].as_array().into_iter().flatten();
        kernels.filter_map(|kernel| kernel[field].as_f64()).sum()
    };
    let runs = |variant: &&Value| {
        let mut kernels = variant["kernels"].as_array().into_iter().flatten();
        kernels.all(|kernel| kernel["resident"].as_u64() > Some(0))
    };
    let bound = explained["bound_bytes"]
        .as_u64()
        .context("an explanation without a bound")?;
    let binding = explained["binding"].as_str().unwrap_or_default();
    let types = binding.split(", ").filter(|part| !part.contains('='));
    let at: Vec<String> = types
        .map(str::to_owned)
        .chain(sizes.split(',').map(|size| size.replace('=', " = ")))
        .collect();
    let mut text = format!(
        "At {}; lower bound {bound} bytes.\n\n\
         | target | schedule | issued bytes | of the bound | key tiles visited | predicted | limited by |\n\
         |---|---|---|---|---|---|---|\n",
        at.join(", "),
    );
    for target in explained["targets"].as_array().into_iter().flatten() {
        let of_target = variants
            .iter()
            .filter(runs)
            .filter(|variant| variant["target"] == *target);
        let Some(best) = of_target.min_by(|a, b| total(a, "ns").total_cmp(&total(b, "ns"))) else {
            continue;
        };
        let kernels = best["kernels"].as_array().into_iter().flatten();
        let maps = kernels.flat_map(|kernel| [&kernel["read"], &kernel["written"]]);
        let bytes: u64 = maps
            .filter_map(Value::as_object)
            .flat_map(|map| map.values())
            .filter_map(Value::as_u64)
            .sum();
        let first = &best["kernels"][0];
        let tiles = match (first["tiles"][0].as_u64(), first["tiles"][1].as_u64()) {
            (Some(visited), Some(all)) => format!("{visited} of {all}"),
            _ => String::new(),
        };
        text += &format!(
            "| {} | `{}` | {bytes} | {:.2} | {tiles} | {:.1} us | {} |\n",
            target.as_str().unwrap_or_default(),
            best["schedule"].as_str().unwrap_or_default(),
            bytes as f64 / bound.max(1) as f64,
            total(best, "ns") / 1000.0,
            first["limit"].as_str().unwrap_or_default()
        );
    }
    for without in explained["without"].as_array().into_iter().flatten() {
        let word = |n: usize| without[n].as_str().unwrap_or_default().to_owned();
        text += &format!("\nNone for {}: {}.\n", word(0), word(1));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{entries, marks, read_marks, sizes};

    #[test]
    fn costs_are_stated_for_every_axis() {
        for entry in entries().expect("the specs are right") {
            let sizes = sizes(&entry.spec);
            assert_eq!(sizes.split(',').count(), entry.spec.axes.len(), "{sizes}");
            assert!(sizes.contains("j=8192"), "{sizes}");
        }
    }

    #[test]
    fn costs_of_another_spec_are_not_kept() {
        let all = entries().expect("the specs are right");
        let page = format!("{}\nfigures\n{}\n", marks(&all[0]).0, marks(&all[0]).1);
        assert_eq!(read_marks(&page, &all[0]).as_deref(), Some("figures\n"));
        assert_eq!(read_marks(&page, &all[1]), None);
    }
}
