//! Finding a spec's artifact: `.drawloom/<name>-<key16>.json` and `.bin` in the crate's folder, and nowhere else.
//!
//! The only module that reads files or the environment: `CARGO_MANIFEST_DIR`, and `DRAWLOOM_RECORD` with which `drawloom
//! prepare` asks for the specs.

use drawloom_lang::artifact::{self, file_stem};
use drawloom_lang::manifest::Manifest;
use drawloom_lang::{Spec, canonical, key_of};
use proc_macro2::TokenStream;
use quote::quote;
use std::path::{Path, PathBuf};

/// The folder of artifacts in a crate's folder.
const FOLDER: &str = ".drawloom";

/// What was found for a spec.
pub enum Found {
    /// An artifact that holds: its manifest and the path of its two files, less the ending, from the crate's folder.
    Artifact(Box<Manifest>, String),
    /// The spec was written down for `drawloom prepare`; nothing is missing now.
    Recorded,
    /// Nothing, or nothing that holds; why.
    Missing(String),
}

/// The crate's folder.
fn folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from)
}

/// The text of a file in the crate's folder.
pub fn read_to_string(path: &str) -> Result<String, String> {
    std::fs::read_to_string(folder().join(path)).map_err(|error| error.to_string())
}

/// `include_str!` or `include_bytes!` of a file in the crate's folder, which also makes cargo track it.
pub fn embed(path: &str, with: &TokenStream) -> TokenStream {
    let path = format!("/{path}");
    quote!(::core::#with!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), #path)))
}

/// Looks for the artifact of a spec.
pub fn artifact(spec: &Spec) -> Found {
    let text = canonical(spec);
    let key = key_of(&text);
    let stem = file_stem(&spec.name, &key);
    if let Some(record) = std::env::var_os("DRAWLOOM_RECORD") {
        let path = Path::new(&record).join(format!("{stem}.attn"));
        return match std::fs::write(&path, text) {
            Ok(()) => Found::Recorded,
            Err(error) => Found::Missing(format!("`{}` cannot be written: {error}", path.display())),
        };
    }
    find(&folder().join(FOLDER), spec, &key, &stem)
}

fn find(folder: &Path, spec: &Spec, key: &str, stem: &str) -> Found {
    let manifest = folder.join(format!("{stem}.json"));
    let payload = folder.join(format!("{stem}.bin"));
    let (Ok(manifest), Ok(payload)) = (std::fs::read_to_string(&manifest), std::fs::read(&payload)) else {
        return Found::Missing(match other(folder, &spec.name) {
            Some(other) => format!("`{FOLDER}/{other}` was made for another form of it"),
            None => format!("there is no `{FOLDER}/{stem}.json` with its `.bin`"),
        });
    };
    match artifact::open(&manifest, &payload) {
        Ok(manifest) if manifest.key == key => Found::Artifact(Box::new(manifest), format!("{FOLDER}/{stem}")),
        Ok(_) => Found::Missing(format!("`{FOLDER}/{stem}.json` belongs to another spec")),
        Err(error) => Found::Missing(format!("`{FOLDER}/{stem}` is refused: {error}")),
    }
}

/// The manifest of an artifact of this name for another key, the first by name.
fn other(folder: &Path, name: &str) -> Option<String> {
    let entries = folder.read_dir().ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|file| {
            let key = file
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".json"));
            key.is_some_and(|key| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
        .min()
}
