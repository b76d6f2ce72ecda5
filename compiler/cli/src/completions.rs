//! `drawloom completions`.

use crate::Cli;
use crate::report::{Done, Failure, Out};
use clap::CommandFactory;

/// Arguments of `drawloom completions`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  drawloom completions bash > ~/.local/share/bash-completion/completions/drawloom
  drawloom completions zsh > ~/.zfunc/_drawloom
  drawloom completions fish > ~/.config/fish/completions/drawloom.fish")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn completions(args: &Args, out: &Out) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "drawloom", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    out.print(&script);
    Done::with(script)
}
