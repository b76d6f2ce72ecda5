//! The pipeline, from a checked spec to an artifact. [`compile`] reads like a table of contents.

use crate::lower::Unsupported;
use crate::lower::operator::recognise;
use crate::portfolio::{Member, NoPortfolio, portfolios};
use crate::program::{Program, program};
use crate::schedule::Schedule;
use crate::target::{SM_90A, Target, USUAL, assembles_for};
use drawloom_kernel::ir::Kernel;
use drawloom_lang::artifact::{ArtifactError, Code, pack};
use drawloom_lang::manifest::{Formula, Instance, Launch, Provenance, Report, Requires, Variant};
use drawloom_lang::spec::{AxisSize, Binding, Spec};
use drawloom_nvptx::EmitError;
use drawloom_nvptx::ptxas::{self, PtxasError, assemble, disassemble};
use drawloom_nvptx::sass;
use rayon::prelude::*;
use std::path::PathBuf;

/// What to compile, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instruction sets. The first must have kernels for every binding; where another has none, the reason is kept in
    /// [`Compiled::skipped`]. Of variants with equal predicted times the selector takes the one for the earlier target.
    pub targets: Vec<&'static Target>,
    /// Only these bindings; `None`: all of the spec's.
    pub bindings: Option<Vec<Binding>>,
    /// Assembler to check every kernel with, and to read its registers from.
    pub ptxas: Option<PathBuf>,
    /// Instruction sets that kernels must assemble for, without spills: each kernel for those that its target runs on
    /// ([`assembles_for`]). The first one's registers are reported.
    pub assemble_for: Vec<String>,
    /// More of them, for the kernels of the first binding alone: what differs between instruction sets that run the same
    /// PTX hardly depends on the binding.
    pub assemble_once_for: Vec<String>,
    /// Whether the artifact carries what the assembler made for `assemble_for`, beside the PTX.
    pub cubins: bool,
    /// Disassembler to read the code of assembled kernels with: [`sass::complaints`] are errors.
    pub nvdisasm: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            targets: USUAL.to_vec(),
            bindings: None,
            ptxas: None,
            assemble_for: Vec::new(),
            assemble_once_for: Vec::new(),
            cubins: false,
            nvdisasm: None,
        }
    }
}

/// A compiled spec.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The manifest's text.
    pub manifest: String,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// PTX of each module, in payload order, with a name for people.
    pub modules: Vec<(String, String)>,
    /// Bindings that have no kernels of their own for a target.
    pub skipped: Vec<Skipped>,
}

/// Why a binding has no kernels of its own for a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// The instruction set.
    pub target: &'static str,
    /// The binding, as kernels are named after it.
    pub binding: String,
    /// The reason.
    pub reason: String,
}

/// Why a spec was not compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The operator has no kernel form yet.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// No schedule fits, or a pinned one does not.
    #[error(transparent)]
    Search(#[from] NoPortfolio),
    /// A kernel that this compiler built breaks a rule of its level: a bug. The text shows where.
    #[error("bug: the kernel {kernel} does not verify\n{listing}")]
    Invalid {
        /// Kernel.
        kernel: String,
        /// The errors, and the kernel's text.
        listing: String,
    },
    /// LLVM could not emit a kernel.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// The assembler refused a kernel, or changed it.
    #[error("{kernel} for {target}: {source}")]
    Assemble {
        /// Kernel.
        kernel: String,
        /// Instruction set.
        target: String,
        /// What ptxas said.
        source: PtxasError,
    },
    /// There is no assembler.
    #[error(transparent)]
    Tool(#[from] PtxasError),
    /// A kernel keeps registers in memory.
    #[error("{kernel} for {target}: {given} bytes of registers are spilled, and none may be")]
    Spills {
        /// Kernel.
        kernel: String,
        /// Instruction set.
        target: String,
        /// Bytes stored to local memory.
        given: u32,
    },
    /// The assembler undid what the schedule asked for.
    #[error("{kernel} for {target}: {what}")]
    Undone {
        /// Kernel.
        kernel: String,
        /// Instruction set.
        target: String,
        /// What its code looks like.
        what: String,
    },
    /// The parts do not make an artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// Compiles a spec for every binding, bindings in parallel.
///
/// # Errors
/// See [`CompileError`]; the first one in the order of the bindings.
pub fn compile(spec: &Spec, options: &Options) -> Result<Compiled, CompileError> {
    let bindings = options
        .bindings
        .clone()
        .unwrap_or_else(|| drawloom_lang::bindings(spec));
    let compiled: Vec<(Binding, Vec<Emitted>, Vec<Skipped>)> = bindings
        .into_par_iter()
        .enumerate()
        .map(|(n, binding)| {
            let assembly = Assembly::new(options, n == 0);
            instance(spec, &binding, options, &assembly).map(|(variants, skipped)| (binding, variants, skipped))
        })
        .collect::<Result<_, _>>()?;
    let mut code = Vec::new();
    let mut skipped = Vec::new();
    let mut modules = Vec::new();
    let mut instances = Vec::new();
    for (binding, emitted, without) in compiled {
        skipped.extend(without);
        let mut variants = Vec::new();
        for variant in emitted {
            let first = code.len();
            for (name, assembled) in &variant.modules {
                code.push(Code {
                    target: variant.target.name.to_owned(),
                    form: "ptx".to_owned(),
                    bytes: assembled.ptx.clone().into_bytes(),
                    of: None,
                });
                modules.push((name.clone(), assembled.ptx.clone()));
            }
            for (n, (_, assembled)) in variant.modules.into_iter().enumerate() {
                code.extend(assembled.cubins.into_iter().map(|(target, bytes)| Code {
                    target,
                    form: "cubin".to_owned(),
                    bytes,
                    of: Some(first + n),
                }));
            }
            variants.push(manifest_variant(
                &variant.member,
                variant.target,
                first,
                variant.registers,
            ));
        }
        instances.push(Instance { binding, variants });
    }
    let provenance = Provenance {
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: drawloom_nvptx::llvm_version(),
        ptxas: options.ptxas.as_deref().map(ptxas::version).transpose()?,
    };
    let (canonical, key) = (drawloom_lang::canonical(spec), drawloom_lang::key(spec));
    let (manifest, payload) = pack(&spec.name, &canonical, &key, provenance, &code, instances)?;
    Ok(Compiled {
        manifest,
        payload,
        modules,
        skipped,
    })
}

/// A variant's code, by kernel.
struct Emitted {
    target: &'static Target,
    member: Member,
    modules: Vec<(String, Assembled)>,
    registers: Option<u32>,
}

/// A kernel's code.
struct Assembled {
    ptx: String,
    /// Registers on the first instruction set that it was assembled for.
    registers: Option<u32>,
    /// Machine code by instruction set, if it is to be kept.
    cubins: Vec<(String, Vec<u8>)>,
}

/// What kernels of a binding are assembled for, and with what.
struct Assembly<'o> {
    options: &'o Options,
    targets: Vec<&'o str>,
}

impl<'o> Assembly<'o> {
    fn new(options: &'o Options, first: bool) -> Assembly<'o> {
        let once = options.assemble_once_for.iter().filter(|_| first);
        let targets = options.assemble_for.iter().chain(once).map(String::as_str).collect();
        Assembly { options, targets }
    }
}

/// One binding: graph, operator, portfolios, and each kernel verified, emitted and, if asked, assembled.
fn instance(
    spec: &Spec,
    binding: &Binding,
    options: &Options,
    assembly: &Assembly<'_>,
) -> Result<(Vec<Emitted>, Vec<Skipped>), CompileError> {
    let graph = drawloom_graph::from_spec(spec, binding);
    let operator = recognise(spec, binding, &graph)?;
    let name = kernel_name(spec, binding);
    let mut emitted = Vec::new();
    let mut skipped = Vec::new();
    for (n, (target, found)) in portfolios(&operator, &name, &options.targets).into_iter().enumerate() {
        let members = match found {
            Ok(found) => found.members,
            Err(why) if n == 0 => return Err(why.into()),
            Err(why) => {
                skipped.push(Skipped {
                    target: target.name,
                    binding: name.clone(),
                    reason: why.to_string(),
                });
                continue;
            }
        };
        for member in members {
            let mut modules = Vec::new();
            let mut registers = None;
            for step in &member.program.kernels {
                let assembled = emit(&step.kernel, target, assembly)?;
                registers = registers.max(assembled.registers);
                modules.push((step.kernel.name.clone(), assembled));
            }
            emitted.push(Emitted {
                target,
                member,
                modules,
                registers,
            });
        }
    }
    Ok((emitted, skipped))
}

/// Verifies and emits one kernel, and assembles it for each instruction set asked for that runs it.
fn emit(kernel: &Kernel, target: &Target, assembly: &Assembly<'_>) -> Result<Assembled, CompileError> {
    let errors = drawloom_kernel::verify::verify(kernel);
    if !errors.is_empty() {
        let listing = drawloom_kernel::verify::render(kernel, &errors);
        return Err(CompileError::Invalid {
            kernel: kernel.name.clone(),
            listing,
        });
    }
    let ptx = drawloom_nvptx::emit(kernel, &drawloom_nvptx::Options::default())?.ptx;
    let (mut registers, mut cubins) = (None, Vec::new());
    let options = assembly.options;
    if let Some(ptxas) = &options.ptxas {
        for name in assembly.targets.iter().filter(|name| assembles_for(target, name)) {
            let (kernel, target) = (kernel.name.clone(), (*name).to_owned());
            match assemble(&ptx, &target, ptxas) {
                Ok(report) if report.spill_store_bytes > 0 => {
                    return Err(CompileError::Spills {
                        kernel,
                        target,
                        given: report.spill_store_bytes,
                    });
                }
                Ok(report) => {
                    registers = registers.or(Some(report.registers));
                    read(&report.cubin, kernel, target, options)?;
                    if options.cubins && options.assemble_for.iter().any(|kept| kept == name) {
                        cubins.push(((*name).to_owned(), report.cubin));
                    }
                }
                Err(source) => return Err(CompileError::Assemble { kernel, target, source }),
            }
        }
    }
    Ok(Assembled { ptx, registers, cubins })
}

/// Reads a kernel's machine code, if there is a disassembler and something to look for.
fn read(cubin: &[u8], kernel: String, target: String, options: &Options) -> Result<(), CompileError> {
    let Some(nvdisasm) = options.nvdisasm.as_ref().filter(|_| target == SM_90A.name) else {
        return Ok(());
    };
    let code = match disassemble(cubin, nvdisasm) {
        Ok(code) => code,
        Err(source) => return Err(CompileError::Assemble { kernel, target, source }),
    };
    match sass::complaints(&code).as_slice() {
        [] => Ok(()),
        complaints => Err(CompileError::Undone {
            kernel,
            target,
            what: complaints.join("; "),
        }),
    }
}

/// A symbol that names the spec and its binding.
pub fn kernel_name(spec: &Spec, binding: &Binding) -> String {
    let types = binding.types.iter().map(|t| format!("_{t:?}").to_lowercase());
    let sizes = spec
        .axes
        .iter()
        .zip(&binding.sizes)
        .filter_map(|(axis, size)| size.map(|n| format!("_{}{n}", axis.name)));
    types.chain(sizes).fold(spec.name.clone(), |name, part| name + &part)
}

fn manifest_variant(member: &Member, target: &Target, first_module: usize, registers: Option<u32>) -> Variant {
    let program = &member.program;
    let launches: Vec<Launch> = program
        .kernels
        .iter()
        .enumerate()
        .map(|(n, step)| Launch {
            module: first_module + n,
            kernel: step.kernel.name.clone(),
            grid: step.grid.clone(),
            threads: step.kernel.warps() * 32,
            shared: step.kernel.shared_bytes(),
            args: step.args.clone(),
        })
        .collect();
    let shared = launches.iter().map(|l| l.shared).max().unwrap_or(0);
    Variant {
        name: program.schedule.to_string(),
        target: target.name.to_owned(),
        requires: Requires {
            align: program.schedule.access,
            shared,
            when: Formula::Const(1),
        },
        splits: program.splits.clone(),
        workspace: program.workspace.clone(),
        launches,
        time: member.time.clone(),
        report: Report {
            shared,
            registers,
            ..member.report.clone()
        },
    }
}

/// The largest head sizes of a class, up to which kernels are much alike.
const CLASSES: [u32; 3] = [64, 128, 256];

/// Bindings that stand for all of a spec's: of each type set the last member, and of each axis the largest size up to 64,
/// to 128 and to 256.
pub fn few(spec: &Spec) -> Vec<Binding> {
    let mut bindings = drawloom_lang::bindings(spec);
    for (n, axis) in spec.axes.iter().enumerate() {
        let AxisSize::OneOf(sizes) = &axis.size else { continue };
        let largest = |class: &u32| sizes.iter().filter(|size| *size <= class).max();
        let kept: Vec<u32> = CLASSES.iter().filter_map(largest).copied().collect();
        bindings.retain(|b| b.sizes[n].is_none_or(|size| kept.is_empty() || kept.contains(&size)));
    }
    for (n, set) in spec.types.iter().enumerate() {
        bindings.retain(|b| set.members.last() == Some(&b.types[n]));
    }
    bindings
}

/// The program of one binding under a given schedule, for tools and tests.
///
/// # Errors
/// [`CompileError::Unsupported`].
pub fn program_for(spec: &Spec, binding: &Binding, schedule: &Schedule) -> Result<Program, CompileError> {
    let graph = drawloom_graph::from_spec(spec, binding);
    let operator = recognise(spec, binding, &graph)?;
    Ok(program(
        &operator,
        schedule,
        &kernel_name(spec, binding),
        schedule.target().name,
    )?)
}
