//! What a command says: lines for people as it goes, or one JSON object at its end.
//!
//! A command prints through [`Out`] and returns [`Done`], what it found as data, or [`Failure`]. Both forms are made
//! here and nowhere else. The JSON is described in `JSON.md` beside the manifest of this crate.

use crate::exit::Exit;
use drawloom_compiler::compile::CompileError;
use drawloom_lang::Errors;
use drawloom_lang::diag::{Diagnostic, Span, line_column};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;

/// The version of the JSON form: raised when a field changes its meaning or goes. New fields do not raise it.
pub const FORMAT: u32 = 1;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object, as `JSON.md` of drawloom-cli describes it.
    Json,
}

/// Where a command's lines go.
pub struct Out {
    format: Format,
}

impl Out {
    /// Lines in this form.
    pub fn new(format: Format) -> Out {
        Out { format }
    }

    /// Whether lines are for people.
    pub fn is_human(&self) -> bool {
        self.format == Format::Human
    }

    /// A text for people; nothing in JSON, where the command's data says the same.
    pub fn print(&self, text: impl AsRef<str>) {
        if self.is_human() {
            write(text.as_ref().as_bytes());
        }
    }

    /// A line for people.
    pub fn line(&self, text: impl AsRef<str>) {
        self.print(format!("{}\n", text.as_ref()));
    }

    /// Bytes that are the result itself, such as a picture: in either form.
    pub fn raw(&self, bytes: &[u8]) {
        write(bytes);
    }

    /// Ends the command: prints what is left to print, and gives the code.
    pub fn finish(&self, command: &str, outcome: Result<Done, Failure>) -> Exit {
        let (exit, result, problems) = match outcome {
            Ok(Done { result, failed: None }) => (Exit::Done, result, Vec::new()),
            Ok(Done {
                result,
                failed: Some((exit, problems)),
            }) => (exit, result, problems),
            Err(Failure { exit, problems }) => (exit, Value::Null, problems),
        };
        match self.format {
            Format::Human => {
                let texts: Vec<String> = problems.iter().map(Problem::text).collect();
                if !texts.is_empty() {
                    eprintln!("{}", texts.join("\n").trim_end());
                }
            }
            Format::Json => {
                let errors: Vec<Value> = problems.iter().flat_map(Problem::json).collect();
                let object = Object {
                    format: FORMAT,
                    command,
                    exit: exit as u8,
                    result,
                    errors,
                };
                // Strings and numbers always have a text.
                let text = serde_json::to_string_pretty(&object).unwrap_or_default();
                write(format!("{text}\n").as_bytes());
            }
        }
        exit
    }
}

/// What is printed in JSON.
#[derive(Serialize)]
struct Object<'a> {
    format: u32,
    command: &'a str,
    exit: u8,
    result: Value,
    errors: Vec<Value>,
}

/// Standard output may be a pipe that nobody reads any more (`drawloom mask … | head`): that is no error of ours.
fn write(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(Exit::Done as u8));
    }
}

/// What a command found.
pub struct Done {
    result: Value,
    failed: Option<(Exit, Vec<Problem>)>,
}

impl Done {
    /// It did what was asked.
    pub fn with(result: impl Serialize) -> Result<Done, Failure> {
        Ok(Done {
            result: serde_json::to_value(result).map_err(|e| Failure::bug(e.to_string()))?,
            failed: None,
        })
    }

    /// It ends with this code where there is something to say.
    #[must_use]
    pub fn unless(mut self, exit: Exit, said: Vec<String>) -> Done {
        if !said.is_empty() {
            self.failed = Some((exit, said.into_iter().map(Problem::Text).collect()));
        }
        self
    }
}

/// Why a command found nothing.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug)]
enum Problem {
    /// All errors of a spec file.
    Spec(Box<Errors>),
    /// A sentence for people.
    Text(String),
}

impl Failure {
    /// It ends with this code for this reason.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            problems: vec![Problem::Text(message.into())],
        }
    }

    /// What was given is wrong: the message has been written for a person.
    pub fn given(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Given, message)
    }

    /// Drawloom is wrong.
    pub fn bug(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Bug, message)
    }

    /// Files with errors; `None` where there are none.
    pub fn of_files(errors: Vec<Errors>) -> Option<Failure> {
        (!errors.is_empty()).then(|| Failure {
            exit: Exit::Given,
            problems: errors.into_iter().map(|e| Problem::Spec(Box::new(e))).collect(),
        })
    }

    /// A file or process that failed, with its name.
    pub fn io(path: impl std::fmt::Display, error: std::io::Error) -> Failure {
        Failure::given(format!("{path}: {error}"))
    }
}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Failure {
        Failure {
            exit: Exit::Given,
            problems: vec![Problem::Spec(Box::new(errors))],
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::given(error.to_string())
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Failure {
        match error {
            CompileError::Unsupported(_) | CompileError::Search(_) => Failure::given(error.to_string()),
            _ => Failure::bug(error.to_string()),
        }
    }
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Problem::Spec(errors) => {
                let code = errors.diagnostics.first().map_or("", |d| d.code);
                format!("{errors}\nfor more about an error: drawloom explain-error {code}\n")
            }
            Problem::Text(text) => text.clone(),
        }
    }

    fn json(&self) -> Vec<Value> {
        match self {
            Problem::Spec(errors) => errors.diagnostics.iter().map(|d| diagnostic(errors, d)).collect(),
            Problem::Text(text) => vec![json!({ "message": text.trim_end() })],
        }
    }
}

/// A diagnostic as data: lines and columns count from 1, columns in characters; the end is one past the last character.
fn diagnostic(errors: &Errors, d: &Diagnostic) -> Value {
    let place = |span: Span| {
        let (line, column) = line_column(&errors.text, span.lo);
        let (end_line, end_column) = line_column(&errors.text, span.hi.max(span.lo));
        json!({ "line": line, "column": column, "end_line": end_line, "end_column": end_column })
    };
    json!({
        "message": d.message,
        "code": d.code,
        "file": errors.file,
        "at": place(d.span),
        "help": d.help,
        "related": d.related.as_ref().map(|(span, label)| json!({ "label": label, "at": place(*span) })),
    })
}
