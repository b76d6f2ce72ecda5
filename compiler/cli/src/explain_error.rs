//! `drawloom explain-error`.

use crate::report::{Done, Failure, Out};
use drawloom_lang::diag::pages::{Page, page, pages};
use serde::Serialize;

/// Arguments of `drawloom explain-error`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  drawloom explain-error A0105
  drawloom explain-error")]
pub struct Args {
    /// The code, as an error shows it; without one, all of them are listed.
    code: Option<String>,
}

#[derive(Serialize)]
struct Explained {
    code: &'static str,
    /// What the error means.
    text: String,
    /// A spec with that error.
    example: String,
    /// What is said about it.
    says: String,
}

impl Explained {
    fn of(page: &Page) -> Explained {
        let example = page.example();
        let says = drawloom_lang::parse_str("example.attn", &example).err();
        Explained {
            code: page.code,
            text: page.text.clone(),
            // A spec that is wrong by its length is shown by its beginning.
            example: example.lines().take(40).map(|line| format!("{line}\n")).collect(),
            says: says.map(|errors| errors.to_string()).unwrap_or_default(),
        }
    }
}

/// Runs the command.
pub fn explain_error(args: &Args, out: &Out) -> Result<Done, Failure> {
    let Some(code) = &args.code else {
        for page in pages() {
            out.line(format!("{}  {}", page.code, page.title()));
        }
        return Done::with(pages().iter().map(Explained::of).collect::<Vec<_>>());
    };
    let page = page(code).ok_or_else(|| {
        let codes: Vec<&str> = pages().iter().map(|page| page.code).collect();
        let near = drawloom_lang::diag::closest(code, codes.iter().copied());
        let help = near.map_or_else(
            || format!("there are {} to {}", codes[0], codes[codes.len() - 1]),
            |near| format!("did you mean {near}?"),
        );
        Failure::given(format!("no error has the code `{code}`; {help}"))
    })?;
    let explained = Explained::of(page);
    out.line(format!("{}\n\n{}", explained.code, explained.text));
    out.line(format!("\nFor example:\n\n{}", indented(&explained.example)));
    out.line(indented(&explained.says).trim_end());
    Done::with(vec![explained])
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}").trim_end().to_owned() + "\n")
        .collect()
}
