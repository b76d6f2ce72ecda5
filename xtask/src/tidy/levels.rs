//! The import order of the levels: between crates by their manifests, inside the compiler by its `use` lines.

use super::Source;

/// For each crate, which crates of ours its manifest may name.
const CRATES: [(&str, &[&str]); 9] = [
    ("compiler/lang", &[]),
    ("compiler/graph", &["drawloom-lang"]),
    ("compiler/kernel", &["drawloom-lang"]),
    ("compiler/nvptx", &["drawloom-lang", "drawloom-kernel"]),
    (
        "compiler/core",
        &["drawloom-lang", "drawloom-graph", "drawloom-kernel", "drawloom-nvptx"],
    ),
    (
        "compiler/cli",
        &[
            "drawloom-lang",
            "drawloom-graph",
            "drawloom-kernel",
            "drawloom-nvptx",
            "drawloom-compiler",
            "drawloom",
            "drawloom-tests",
            "drawloom-engines",
            "drawloom-device",
        ],
    ),
    ("macros", &["drawloom-lang"]),
    ("runtime", &["drawloom-lang", "drawloom-graph", "drawloom-macros"]),
    ("runtime/candle", &["drawloom"]),
];

/// The crate whose modules stand in pipeline order.
const CORE: &str = "compiler/core/src/";

/// What is out of order.
pub fn check(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, allowed) in CRATES {
        let manifest = format!("{folder}/Cargo.toml");
        if let Some(source) = sources.iter().find(|source| source.path == manifest) {
            complaints.extend(check_manifest(source, allowed));
        }
    }
    if let Some(root) = sources.iter().find(|source| source.path == format!("{CORE}lib.rs")) {
        let order = modules(&root.text);
        for source in sources {
            complaints.extend(check_module(source, &order));
        }
    }
    complaints
}

fn check_manifest(source: &Source, allowed: &[&str]) -> Vec<String> {
    let Source { path, text } = source;
    let manifest: toml::Table = match toml::from_str(text) {
        Ok(manifest) => manifest,
        Err(error) => return vec![format!("{path}: {error}")],
    };
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flat_map(toml::Table::keys);
    names
        .filter(|name| (name.starts_with("drawloom-") || *name == "drawloom") && !allowed.contains(&name.as_str()))
        .map(|name| {
            format!(
                "{path}:1: {name} stands below this crate: it may import {}",
                listed(allowed)
            )
        })
        .collect()
}

/// Module names in the order in which `lib.rs` declares them.
fn modules(lib: &str) -> Vec<&str> {
    let declared = lib.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.collect()
}

fn check_module(source: &Source, order: &[&str]) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix(CORE) else {
        return Vec::new();
    };
    let name = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(own) = order.iter().position(|module| *module == name) else {
        return Vec::new();
    };
    let mut code = String::new();
    for line in source.text.lines() {
        code += if line.trim_start().starts_with("//") { "" } else { line };
        code += "\n";
    }
    let mut complaints = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let number = code[..at].matches('\n').count() + 1;
        for imported in heads(&code[at + start.len()..]) {
            if order
                .iter()
                .position(|module| *module == imported)
                .is_some_and(|at| at > own)
            {
                let path = &source.path;
                complaints.push(format!(
                    "{path}:{number}: `{imported}` stands below `{name}` in the pipeline"
                ));
            }
        }
    }
    complaints
}

/// The first names of what follows `crate::`: `cost::io` gives `cost`, `{cost, search::{x, y}}` gives both.
fn heads(path: &str) -> Vec<&str> {
    let word = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut fresh = true;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ if fresh && !c.is_whitespace() => {
                names.push(&path[at..at + word(&path[at..])]);
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 && !fresh {
            break;
        }
    }
    names
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "none of ours".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::check;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn modules_import_only_what_stands_above() {
        let lib = source(
            "compiler/core/src/lib.rs",
            "pub mod schedule;\nmod cost;\npub mod search;\n",
        );
        let cost = source(
            "compiler/core/src/cost/io.rs",
            "use crate::schedule::A;\nuse crate::{\n    schedule::{C, cost},\n    search::B,\n};\n",
        );
        let found = check(&[lib, cost]);
        assert_eq!(
            found,
            ["compiler/core/src/cost/io.rs:2: `search` stands below `cost` in the pipeline"]
        );
    }

    #[test]
    fn crates_import_only_what_stands_above() {
        let graph = source(
            "compiler/graph/Cargo.toml",
            "[dependencies]\ndrawloom-lang.workspace = true\nserde = \"1\"\n",
        );
        let lang = source(
            "compiler/lang/Cargo.toml",
            "[dependencies]\ndrawloom-graph = { workspace = true }\n",
        );
        let found = check(&[graph, lang]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("compiler/lang/Cargo.toml:1: drawloom-graph stands below"),
            "{found:?}"
        );
    }
}
