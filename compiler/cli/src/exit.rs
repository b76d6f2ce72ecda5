//! How the command ends: the one place that says so, for `--help`, for `JSON.md` and for the process.

use std::process::ExitCode;

/// Ways to end, in the order of their codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// Something that was given is wrong.
    Given,
    /// Drawloom is wrong.
    Bug,
    /// A check found a difference.
    Differs,
    /// A prediction exceeds its budget.
    OverBudget,
    /// The machine lacks what the command needs.
    Absent,
}

impl Exit {
    /// All of them, by code.
    pub const ALL: [Exit; 6] = [
        Exit::Done,
        Exit::Given,
        Exit::Bug,
        Exit::Differs,
        Exit::OverBudget,
        Exit::Absent,
    ];

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Given => "an error in what was given: a spec, an option, a file",
            Exit::Bug => "a bug in Drawloom",
            Exit::Differs => "a check found a difference (run, verify, mask --diff, fmt --check, prepare --check)",
            Exit::OverBudget => "a prediction exceeds its budget (explain --budget)",
            Exit::Absent => "this machine lacks what the command needs, such as a GPU (bench)",
        }
    }

    /// The table of `--help`.
    pub fn table() -> String {
        let rows = Exit::ALL.map(|exit| format!("  {}  {}", exit as u8, exit.meaning()));
        format!("Exit codes:\n{}", rows.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
