//! The manual pages of all error codes, harvested from the sources of this folder, so that a page stands in one place:
//! above the function that makes its error.
//!
//! In: the text of the files. Out: one [`Page`] per function. A page's example is a fenced block `attn` in its
//! documentation: a spec whose errors all have that code. An info string `attn 70000 times` stands for a block repeated.

use std::sync::OnceLock;

const SOURCES: [&str; 5] = [
    include_str!("syntax.rs"),
    include_str!("names.rs"),
    include_str!("types.rs"),
    include_str!("shapes.rs"),
    include_str!("limits.rs"),
];

/// The page of an error code.
#[derive(Clone, Debug)]
pub struct Page {
    /// `A0101`.
    pub code: &'static str,
    /// What the error means, lines joined by `\n`, without the example.
    pub text: String,
    /// A block of the example, and how many times it stands there.
    example: (String, usize),
}

impl Page {
    /// The first sentence.
    pub fn title(&self) -> String {
        let text = self.text.replace('\n', " ");
        let end = text.find(". ").map_or(text.len(), |at| at + 1);
        text[..end].to_owned()
    }

    /// A spec that has this error and no other; empty where the page has none, which a test forbids.
    pub fn example(&self) -> String {
        self.example.0.repeat(self.example.1)
    }
}

/// All pages, by code.
pub fn pages() -> &'static [Page] {
    static PAGES: OnceLock<Vec<Page>> = OnceLock::new();
    PAGES.get_or_init(|| {
        let mut pages: Vec<Page> = SOURCES.into_iter().flat_map(harvest).collect();
        pages.sort_by_key(|page| page.code);
        pages
    })
}

/// The page of a code.
pub fn page(code: &str) -> Option<&'static Page> {
    pages().iter().find(|page| page.code.eq_ignore_ascii_case(code))
}

/// The pages of a file: each public function's documentation with the first code in its body.
fn harvest(source: &'static str) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    let mut of_function = false;
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("///") {
            if of_function {
                (of_function, doc) = (false, Vec::new());
            }
            doc.push(text.strip_prefix(' ').unwrap_or(text));
        } else if line.starts_with("pub fn ") {
            of_function = true;
        } else if of_function && let Some(code) = code(line) {
            pages.push(written(code, &doc));
            (of_function, doc) = (false, Vec::new());
        }
    }
    pages
}

/// The code that a line of source quotes.
fn code(line: &'static str) -> Option<&'static str> {
    let quoted = line.split('"').nth(1)?;
    let digits = quoted.strip_prefix('A')?;
    (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(quoted)
}

fn written(code: &'static str, doc: &[&str]) -> Page {
    let (mut text, mut block, mut times) = (Vec::new(), String::new(), 1);
    let mut inside = false;
    for line in doc {
        match line.strip_prefix("```") {
            Some(info) if !inside => {
                inside = true;
                times = info.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
            }
            Some(_) => inside = false,
            None if inside => {
                block.push_str(line);
                block.push('\n');
            }
            None => text.push(*line),
        }
    }
    Page {
        code,
        text: text.join("\n").trim_end().to_owned(),
        example: (block, times),
    }
}
