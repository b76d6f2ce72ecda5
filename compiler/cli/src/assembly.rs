//! What is asked of NVIDIA's assembler.

use crate::input::Choice;
use crate::report::Failure;
use drawloom_compiler::compile::Options;
use drawloom_lang::spec::Spec;
use std::path::PathBuf;

/// What kernels are assembled for, and with what.
#[derive(clap::Args)]
pub struct Assembly {
    /// Assembler to check every kernel with, and to read its registers from.
    #[arg(long)]
    ptxas: Option<PathBuf>,
    /// Instruction sets that kernels must assemble for, without spills: each for those that run its target.
    #[arg(long, value_delimiter = ',', default_value = "sm_80,sm_90a")]
    assemble_for: Vec<String>,
    /// More of them, for the kernels of the first type and size of each spec alone.
    #[arg(long, value_delimiter = ',')]
    assemble_once_for: Vec<String>,
    /// Carry what ptxas makes for `--assemble-for` beside the PTX: launchers on just these architectures take it.
    #[arg(long, requires = "ptxas")]
    cubin: bool,
    /// Disassembler to read the code of kernels for Hopper with: that softmax still overlaps products, for one.
    #[arg(long)]
    nvdisasm: Option<PathBuf>,
}

impl Assembly {
    /// How to compile a spec.
    pub fn options(&self, choice: &Choice, spec: &Spec) -> Result<Options, Failure> {
        Ok(Options {
            targets: choice.target.clone(),
            bindings: Some(choice.bindings(spec)?),
            ptxas: self.ptxas.clone(),
            assemble_for: self.assemble_for.clone(),
            assemble_once_for: self.assemble_once_for.clone(),
            cubins: self.cubin,
            nvdisasm: self.nvdisasm.clone(),
        })
    }
}
