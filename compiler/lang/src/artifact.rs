//! The artifact codec: a manifest and compiled modules become two files, and two files become a manifest that holds.
//!
//! One module for the compiler that writes, the macro that embeds and the runtime that loads, so that they cannot
//! disagree. [`open`] believes nothing: the ABI, the hashes of manifest and payload, the key of the spec and every byte
//! range are checked before anything else is done with them; [`module_code`] checks the hash of what it unpacks.

mod verify;

use crate::manifest::{ABI, Formula, Instance, Manifest, Module, Provenance};
use crate::spec::Spec;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io;
use std::ops::Range;
use verify::{inconsistent, verify_instance, verify_modules};

/// Largest module that [`module_code`] unpacks, in bytes: far above any kernel, far below a decompression bomb.
pub const MAX_CODE_BYTES: u64 = 256 << 20;

/// Most kernel parameters of one variant, all its launches together, so that a launcher can hold them on its stack.
pub const MAX_PARAMS: usize = 256;

/// Most launches of one variant.
pub const MAX_LAUNCHES: usize = 16;

/// Most workspace buffers of one variant.
pub const MAX_WORKSPACE: usize = 16;

/// Most tensor maps of one variant, all its launches together, so that a launcher can hold them on its stack.
pub const MAX_TENSOR_MAPS: usize = 16;

/// Most axes of a tensor that has a map: the copy engine's limit.
pub const MAX_MAP_RANK: usize = 5;

/// Most rows of a tensor map's box: the copy engine's limit.
pub const MAX_MAP_ROWS: u32 = 256;

/// A compiled module as it goes into an artifact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code {
    /// Instruction set: `sm_80`, `sm_90a`.
    pub target: String,
    /// `ptx` or `cubin`.
    pub form: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Of a cubin: [`Module::of`].
    pub of: Option<usize>,
}

/// Why an artifact is refused.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The manifest is no JSON of the right form.
    #[error("the manifest cannot be read: {0}")]
    Manifest(String),
    /// Another ABI.
    #[error("the artifact has ABI {given}, but ABI {expected} is expected; prepare it again")]
    Abi {
        /// [`ABI`].
        expected: u32,
        /// What the manifest says.
        given: u32,
    },
    /// The manifest is not as it was written.
    #[error("the manifest's SHA-256 is {given}, but it says {expected}")]
    Altered {
        /// By itself.
        expected: String,
        /// Of its text.
        given: String,
    },
    /// The payload is not the one the manifest was written for.
    #[error("the payload's SHA-256 is {given}, but the manifest says {expected}")]
    Payload {
        /// By the manifest.
        expected: String,
        /// Of the bytes.
        given: String,
    },
    /// The key does not belong to the spec.
    #[error("the spec's key is {expected}, but the manifest says {given}")]
    Key {
        /// Of the spec's text.
        expected: String,
        /// By the manifest.
        given: String,
    },
    /// The spec is not in canonical form, or says something else than the manifest.
    #[error("the manifest's spec is not valid: {0}")]
    Spec(String),
    /// The manifest contradicts itself.
    #[error("the manifest contradicts itself: {what} is {given}, but {expected} is expected")]
    Inconsistent {
        /// What.
        what: String,
        /// Given.
        given: String,
        /// Expected.
        expected: String,
    },
    /// A module cannot be unpacked, or is not what the manifest says.
    #[error("module {index} is damaged: {reason}")]
    Module {
        /// Its number.
        index: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The common part of the two file names of an artifact: `<name>-<first 16 digits of key>`.
pub fn file_stem(name: &str, key: &str) -> String {
    format!("{name}-{}", key.get(..16).unwrap_or(key))
}

/// SHA-256 of `bytes`, 64 hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(hmac_sha256::Hash::hash(bytes))
}

fn hex(hash: [u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in hash {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

/// A manifest's text with the hash of the text in its place; `None` where it has no such place.
pub fn seal(text: &str) -> Option<String> {
    let (place, digits) = seal_of(text)?;
    Some([&text[..place.start], &digits, &text[place.end..]].concat())
}

/// Where the hash of a manifest's text stands, and what it should be.
fn seal_of(text: &str) -> Option<(Range<usize>, String)> {
    const FIELD: &str = "\"manifest_sha256\": \"";
    const DIGITS: usize = 64;
    // In a string of JSON the quotes would be escaped.
    let start = text.find(FIELD)? + FIELD.len();
    let place = start..start + DIGITS;
    let after = text.get(place.end..).filter(|after| after.starts_with('"'))?;
    let mut hash = hmac_sha256::Hash::new();
    for part in [&text[..start], after].into_iter().flat_map(|text| text.split('\r')) {
        hash.update(part);
    }
    Some((place, hex(hash.finalize())))
}

/// Assembles an artifact: the manifest's text and the payload's bytes. The same input gives the same bytes.
///
/// `spec` is the canonical text and `key` its key.
///
/// # Errors
/// What [`open`] would refuse, which is then a fault of the caller.
pub fn pack(
    name: &str,
    spec: &str,
    key: &str,
    provenance: Provenance,
    code: &[Code],
    instances: Vec<Instance>,
) -> Result<(String, Vec<u8>), ArtifactError> {
    let mut payload = Vec::new();
    let mut modules = Vec::with_capacity(code.len());
    for code in code {
        let packed = miniz_oxide::deflate::compress_to_vec(&code.bytes, 9);
        modules.push(Module {
            target: code.target.clone(),
            form: code.form.clone(),
            offset: payload.len() as u64,
            length: packed.len() as u64,
            code_length: code.bytes.len() as u64,
            sha256: sha256_hex(&code.bytes),
            of: code.of,
        });
        payload.extend(packed);
    }
    let manifest = Manifest {
        abi: ABI,
        name: name.to_owned(),
        spec: spec.to_owned(),
        key: key.to_owned(),
        provenance,
        manifest_sha256: "0".repeat(64),
        payload_sha256: sha256_hex(&payload),
        modules,
        instances,
    };
    let mut text = print(&manifest).map_err(|error| ArtifactError::Manifest(error.to_string()))?;
    text.push('\n');
    let text = seal(&text).unwrap_or(text);
    open(&text, &payload)?;
    Ok((text, payload))
}

/// Reads a manifest and checks it against its payload: ABI, hashes of both, key of the spec, byte ranges, indices.
///
/// # Errors
/// [`ArtifactError`], naming what does not hold.
pub fn open(text: &str, payload: &[u8]) -> Result<Manifest, ArtifactError> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| refused(text, &error))?;
    if manifest.abi != ABI {
        return Err(ArtifactError::Abi {
            expected: ABI,
            given: manifest.abi,
        });
    }
    let given = seal_of(text).map(|(_, digits)| digits).unwrap_or_default();
    if given != manifest.manifest_sha256 {
        return Err(ArtifactError::Altered {
            expected: manifest.manifest_sha256,
            given,
        });
    }
    let given = sha256_hex(payload);
    if given != manifest.payload_sha256 {
        return Err(ArtifactError::Payload {
            expected: manifest.payload_sha256,
            given,
        });
    }
    let expected = crate::key_of(&manifest.spec);
    if expected != manifest.key {
        return Err(ArtifactError::Key {
            expected,
            given: manifest.key,
        });
    }
    let spec = spec_of(&manifest)?;
    verify_modules(&manifest, payload.len() as u64)?;
    for instance in &manifest.instances {
        verify_instance(&manifest, &spec, instance)?;
    }
    Ok(manifest)
}

/// Why a text is no manifest: another ABI, which may well have other fields, or no sense at all.
fn refused(manifest: &str, error: &serde_json::Error) -> ArtifactError {
    #[derive(serde::Deserialize)]
    struct AbiOnly {
        abi: u32,
    }
    match serde_json::from_str(manifest) {
        Ok(AbiOnly { abi }) if abi != ABI => ArtifactError::Abi {
            expected: ABI,
            given: abi,
        },
        Ok(AbiOnly { .. }) | Err(_) => ArtifactError::Manifest(error.to_string()),
    }
}

/// Levels of a manifest that are printed a line for each member: down to the fields of a variant. A formula is one line.
const OPEN_LEVELS: usize = 5;

/// The manifest as JSON for people and diffs.
fn print(manifest: &Manifest) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let formatter = Lines {
        pretty: PrettyFormatter::new(),
        level: 0,
    };
    manifest.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Pretty for the first [`OPEN_LEVELS`], compact below.
struct Lines {
    pretty: PrettyFormatter<'static>,
    level: usize,
}

/// Forwards to the pretty formatter on open levels and to the compact one below.
macro_rules! by_level {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $ty)*) -> io::Result<()> {
            if self.level <= OPEN_LEVELS {
                self.pretty.$name(writer $(, $arg)*)
            } else {
                CompactFormatter.$name(writer $(, $arg)*)
            }
        }
    )*};
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.level += 1;
        if self.level <= OPEN_LEVELS {
            self.pretty.begin_array(writer)
        } else {
            CompactFormatter.begin_array(writer)
        }
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.level += 1;
        if self.level <= OPEN_LEVELS {
            self.pretty.begin_object(writer)
        } else {
            CompactFormatter.begin_object(writer)
        }
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.level -= 1;
        if self.level < OPEN_LEVELS {
            self.pretty.end_array(writer)
        } else {
            CompactFormatter.end_array(writer)
        }
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.level -= 1;
        if self.level < OPEN_LEVELS {
            self.pretty.end_object(writer)
        } else {
            CompactFormatter.end_object(writer)
        }
    }

    by_level! {
        begin_array_value(first: bool);
        end_array_value();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
    }
}

/// The spec of a manifest.
///
/// # Errors
/// [`ArtifactError::Spec`] if its text is not exactly one spec in canonical form, of the manifest's name.
pub fn spec_of(manifest: &Manifest) -> Result<Spec, ArtifactError> {
    let mut specs = crate::parse_str("spec", &manifest.spec).map_err(|errors| {
        let messages: Vec<String> = errors.diagnostics.iter().map(|error| error.message.clone()).collect();
        ArtifactError::Spec(messages.join("; "))
    })?;
    match (specs.pop(), specs.len()) {
        (Some(spec), 0) if spec.name != manifest.name => Err(inconsistent(
            "the name",
            &manifest.name,
            format!("`{}`, as in its spec", spec.name),
        )),
        (Some(spec), 0) if crate::canonical(&spec) == manifest.spec => Ok(spec),
        (Some(_), 0) => Err(ArtifactError::Spec("it is not in canonical form".to_owned())),
        (_, others) => Err(ArtifactError::Spec(format!("it has {} specs, not one", others + 1))),
    }
}

/// The code of module `index`, unpacked and checked against its hash.
///
/// # Errors
/// [`ArtifactError::Module`].
pub fn module_code(manifest: &Manifest, payload: &[u8], index: usize) -> Result<Vec<u8>, ArtifactError> {
    let damaged = |reason: String| ArtifactError::Module { index, reason };
    let module = manifest
        .modules
        .get(index)
        .ok_or_else(|| damaged("there is no such module".to_owned()))?;
    let end = module.offset.checked_add(module.length);
    let packed = (usize::try_from(module.offset).ok())
        .zip(end.and_then(|end| usize::try_from(end).ok()))
        .and_then(|(start, end)| payload.get(start..end))
        .ok_or_else(|| damaged("it does not lie in the payload".to_owned()))?;
    let limit = usize::try_from(module.code_length.min(MAX_CODE_BYTES)).unwrap_or(usize::MAX);
    let code = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, limit)
        .map_err(|error| damaged(format!("it cannot be unpacked ({error})")))?;
    if code.len() as u64 != module.code_length || sha256_hex(&code) != module.sha256 {
        return Err(damaged("its code is not the one that the manifest says".to_owned()));
    }
    Ok(code)
}

/// Every axis name in a formula.
pub fn formula_sizes<'a>(formula: &'a Formula, visit: &mut dyn FnMut(&'a str)) {
    match formula {
        Formula::Const(_) | Formula::Splits | Formula::Device(_) => {}
        Formula::Size(name) => visit(name),
        Formula::Add(a, b)
        | Formula::Sub(a, b)
        | Formula::Mul(a, b)
        | Formula::CeilDiv(a, b)
        | Formula::Min(a, b)
        | Formula::Max(a, b)
        | Formula::Le(a, b) => {
            formula_sizes(a, visit);
            formula_sizes(b, visit);
        }
    }
}
