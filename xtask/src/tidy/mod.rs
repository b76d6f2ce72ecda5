//! The house rules that a machine can check, each in the file of what it looks at.
//!
//! A rule is a function from the tree to complaints, `path:line: what is wrong`; all of them are printed at once.

mod layout;
mod levels;
mod sources;

use crate::process::{files, root};
use crate::{gallery, record};
use anyhow::{Result, bail};

/// A tracked file: its path from the root and its text.
struct Source {
    path: String,
    text: String,
}

/// Checks every rule.
pub fn tidy() -> Result<()> {
    let paths = files()?;
    let read = |path: &String| {
        Some(Source {
            path: path.clone(),
            text: std::fs::read_to_string(root().join(path)).ok()?,
        })
    };
    let sources: Vec<Source> = paths.iter().filter_map(read).collect();
    let mut complaints = Vec::new();
    for source in &sources {
        complaints.extend(sources::check(source));
    }
    complaints.extend(levels::check(&sources));
    complaints.extend(layout::check(&paths));
    complaints.extend(layout::check_weight()?);
    complaints.extend(record::check_readme()?);
    complaints.extend(gallery::check()?);
    report(complaints)?;
    println!("{} files are tidy", paths.len());
    Ok(())
}

/// Prints complaints; an error if there are some.
pub fn report(complaints: Vec<String>) -> Result<()> {
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints", complaints.len());
    }
    Ok(())
}
