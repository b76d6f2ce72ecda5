//! A kernel as a module: its signature, its roles, the passes that run over it, and the text that comes out.
//!
//! The ABI: for each parameter in order, a tensor is a pointer to global memory and one `i64` stride in elements per
//! axis, a scalar is itself. Elements along a tensor's last axis are taken to be adjacent: the last stride is passed,
//! but not used. Behind them, for each of `Kernel::tensor_maps` in order, 128 bytes aligned to 64: an encoded tensor map
//! whose dimensions are the tensor's axes, the last one first. Shared memory is dynamic, as many bytes as `Kernel::shared_bytes` says.

use drawloom_kernel::ir::{Access, Dtype, Kernel, ParamKind, TensorMap};
use drawloom_kernel::target;
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::context::Context;
use inkwell::module::{Linkage, Module};
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use inkwell::types::{AnyType, BasicMetadataTypeEnum};
use inkwell::values::FunctionValue;
use inkwell::{IntPredicate, OptimizationLevel};

use crate::asm;
use crate::build::{Build, GLOBAL, Int, Ptr, SHARED};
use crate::emitter::{Arg, Emitter, Team};
use crate::error::{EmitError, Result, malformed};
use crate::mbarrier;
use crate::tma;

/// LLVM's number for the calling convention of PTX kernels.
const PTX_KERNEL: u32 = 71;
/// The target triple.
const TRIPLE: &str = "nvptx64-nvidia-cuda";
/// Bytes of the CTA's dynamic shared memory are aligned to this.
const SHARED_ALIGN: u32 = 1024;
/// What runs over the module before instruction selection: cleaning, and hoisting what loops do not change. The generic
/// pipelines are not used: they sink, unroll and speculate, and undo the order that a schedule asked for.
const PASSES: &str = "function(early-cse,simplifycfg,early-cse,dce)";

/// A version of the PTX language, such as `7.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PtxVersion {
    /// Before the dot.
    pub major: u32,
    /// Behind it.
    pub minor: u32,
}

/// What to emit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Language version; `None`: the oldest that has the target's instructions, which the oldest drivers take (7.0 for
    /// `sm_80`, 8.0 for `sm_90a`).
    pub ptx_version: Option<PtxVersion>,
    /// Whether to return LLVM's text too.
    pub keep_llvm_ir: bool,
}

/// What was emitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted {
    /// PTX text.
    pub ptx: String,
    /// LLVM's text, before its passes, if it was asked for.
    pub llvm_ir: Option<String>,
}

/// Emits a kernel, without streams, as PTX.
///
/// The same kernel and options give the same bytes.
///
/// # Errors
/// [`EmitError`] if the target lacks an operation, or if the kernel is one that the kernel verifier refuses.
pub fn emit(kernel: &Kernel, options: &Options) -> Result<Emitted> {
    let Some(facts) = target::target(&kernel.target) else {
        return Err(EmitError::Target {
            target: kernel.target.clone(),
        });
    };
    let machine = target_machine(kernel, options)?;
    let ctx = Context::create();
    let module = ctx.create_module(&kernel.name);
    module.set_triple(&TargetTriple::create(TRIPLE));
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    if kernel
        .buffers
        .iter()
        .enumerate()
        .any(|(i, b)| b.alias.is_some_and(|a| a.index() >= i))
    {
        return malformed("a buffer shares the storage of a later one");
    }
    let function = declare(&ctx, &module, kernel)?;
    let build = Build::new(&ctx, module, function);
    let module = fill(build, kernel, facts)?;
    let llvm = |e: inkwell::support::LLVMString| EmitError::Llvm { message: e.to_string() };
    let llvm_ir = options.keep_llvm_ir.then(|| module.print_to_string().to_string());
    module.verify().map_err(llvm)?;
    module
        .run_passes(PASSES, &machine, PassBuilderOptions::create())
        .map_err(llvm)?;
    let text = machine
        .write_to_memory_buffer(&module, FileType::Assembly)
        .map_err(llvm)?;
    let text = text.as_slice();
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    Ok(Emitted {
        ptx: String::from_utf8_lossy(text).into_owned(),
        llvm_ir,
    })
}

fn target_machine(kernel: &Kernel, options: &Options) -> Result<TargetMachine> {
    let oldest = match kernel.target.as_str() {
        "sm_80" => PtxVersion { major: 7, minor: 0 },
        "sm_90a" => PtxVersion { major: 8, minor: 0 },
        _ => {
            return Err(EmitError::Target {
                target: kernel.target.clone(),
            });
        }
    };
    let version = options.ptx_version.unwrap_or(oldest).max(oldest);
    Target::initialize_nvptx(&InitializationConfig::default());
    let triple = TargetTriple::create(TRIPLE);
    let target = Target::from_triple(&triple).map_err(|e| EmitError::Llvm { message: e.to_string() })?;
    let features = format!("+ptx{}{}", version.major, version.minor);
    target
        .create_target_machine(
            &triple,
            &kernel.target,
            &features,
            OptimizationLevel::Aggressive,
            RelocMode::Default,
            CodeModel::Default,
        )
        .ok_or_else(|| EmitError::Llvm {
            message: format!("no target machine for {}", kernel.target),
        })
}

/// Declares the kernel function and its attributes.
fn declare<'c>(ctx: &'c Context, module: &Module<'c>, kernel: &Kernel) -> Result<FunctionValue<'c>> {
    if kernel.name.is_empty() || !kernel.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return malformed(format!("kernel name `{}`", kernel.name));
    }
    let pointer = ctx.ptr_type(inkwell::AddressSpace::from(GLOBAL));
    let mut types: Vec<BasicMetadataTypeEnum<'c>> = Vec::new();
    let mut attributes: Vec<(u32, &[&str])> = Vec::new();
    for p in &kernel.params {
        match &p.kind {
            ParamKind::Tensor { axes, access, .. } => {
                attributes.push((
                    types.len() as u32,
                    match access {
                        Access::In => &["noalias", "readonly"],
                        Access::Out => &["noalias"],
                    },
                ));
                types.push(pointer.into());
                types.extend(axes.iter().map(|_| BasicMetadataTypeEnum::from(ctx.i64_type())));
            }
            ParamKind::Scalar { dtype } => types.push(match dtype {
                Dtype::I32 => ctx.i32_type().into(),
                Dtype::I64 => ctx.i64_type().into(),
                Dtype::F32 => ctx.f32_type().into(),
                Dtype::F16 | Dtype::Bf16 | Dtype::Bool => {
                    return malformed(format!("a scalar parameter of type {}", dtype.name()));
                }
            }),
        }
    }
    let first_map = types.len() as u32;
    let maps = kernel.tensor_maps().len() as u32;
    types.extend((0..maps).map(|_| BasicMetadataTypeEnum::from(ctx.ptr_type(inkwell::AddressSpace::default()))));
    let function = module.add_function(&kernel.name, ctx.void_type().fn_type(&types, false), None);
    function.set_call_conventions(PTX_KERNEL);
    let threads = (32 * kernel.warps()).to_string();
    let min_ctas = kernel.min_ctas.max(1).to_string();
    let strings = [
        ("nvvm.reqntid", threads.as_str()),
        ("nvvm.minctasm", min_ctas.as_str()),
        ("denormal-fp-math-f32", "preserve-sign,preserve-sign"),
    ];
    for (key, value) in strings {
        function.add_attribute(AttributeLoc::Function, ctx.create_string_attribute(key, value));
    }
    let bytes = ctx.i8_type().array_type(tma::BYTES);
    for index in first_map..first_map + maps {
        let kind = Attribute::get_named_enum_kind_id;
        let by_value = ctx.create_type_attribute(kind("byval"), bytes.as_any_type_enum());
        let align = ctx.create_enum_attribute(kind("align"), tma::ALIGN);
        let constant = ctx.create_string_attribute("nvvm.grid_constant", "");
        for attribute in [by_value, align, constant] {
            function.add_attribute(AttributeLoc::Param(index), attribute);
        }
    }
    for (index, names) in attributes {
        for name in names {
            let kind = Attribute::get_named_enum_kind_id(name);
            function.add_attribute(AttributeLoc::Param(index), ctx.create_enum_attribute(kind, 0));
        }
    }
    Ok(function)
}

/// The kernel's arguments, and its tensor maps.
fn arguments<'c>(function: FunctionValue<'c>, kernel: &Kernel) -> (Vec<Arg<'c>>, Vec<(TensorMap, Ptr<'c>)>) {
    let mut next = function.get_param_iter();
    let mut take = || {
        next.next()
            .expect("invariant: the signature was made of the same parameters")
    };
    let mut args = Vec::new();
    for p in &kernel.params {
        args.push(match &p.kind {
            ParamKind::Tensor { dtype, axes, access } => Arg::Tensor {
                base: take().into_pointer_value(),
                strides: axes.iter().map(|_| take().into_int_value()).collect(),
                dtype: *dtype,
                access: *access,
            },
            ParamKind::Scalar { .. } => Arg::Scalar(take()),
        });
    }
    let maps = kernel.tensor_maps().into_iter();
    let maps = maps.map(|m| (m, take().into_pointer_value())).collect();
    (args, maps)
}

/// Emits the bodies of all roles.
fn fill<'c>(b: Build<'c>, kernel: &Kernel, facts: &'static target::Target) -> Result<Module<'c>> {
    if !kernel.mbarriers.is_empty() && !facts.tma {
        return Err(EmitError::Unsupported {
            op: "an mbarrier".into(),
            target: kernel.target.clone(),
        });
    }
    if kernel.warps() > facts.cta_warps || kernel.roles.is_empty() || kernel.roles.iter().any(|r| r.warps == 0) {
        return malformed(format!("{} warps in {} roles", kernel.warps(), kernel.roles.len()));
    }
    let entry = b.block("entry");
    b.at_end(entry);
    let memory = b
        .module
        .add_global(b.ctx.i8_type().array_type(0), Some(SHARED.into()), "shared");
    memory.set_linkage(Linkage::External);
    memory.set_alignment(SHARED_ALIGN);
    let shared = b.trunc(b.address(memory.as_pointer_value()), b.i32());
    let tid = asm::thread_number(&b);
    let lane = b.and(tid, b.c32(31));
    // Through a shuffle, so that ptxas knows it to be the same in all lanes.
    let quotient = b.lshr(tid, 5).into();
    let args = [b.c32(-1).into(), quotient, b.c32(0).into(), b.c32(31).into()];
    let warp: Int<'c> = b.call("llvm.nvvm.shfl.sync.idx.i32", &[], &args).into_int_value();

    let arguments = arguments(b.function, kernel);
    mbarrier::initialise(&b, kernel, &arguments.1, shared, tid);
    let team = Team {
        warps: kernel.warps(),
        warp,
        thread: tid,
        first_thread: 0,
    };
    let mut e = Emitter::new(b, kernel, facts, arguments.clone(), shared, lane, team);
    let mut first = 0;
    for (n, role) in kernel.roles.iter().enumerate() {
        let body = e.b.block("body");
        // The builder stands where the roles so far have been told apart.
        let next = if n + 1 == kernel.roles.len() {
            e.b.jump(body);
            body
        } else {
            let other = e.b.block("other");
            let end = e.b.c32(i64::from(first + role.warps));
            e.b.branch(e.b.icmp(IntPredicate::ULT, warp, end), body, other);
            other
        };
        e.b.at_end(body);
        let first_thread = 32 * first;
        e.lane = lane;
        e.team = Team {
            warps: role.warps,
            warp: e.b.sub(warp, e.b.c32(i64::from(first))),
            thread: e.b.sub(tid, e.b.c32(i64::from(first_thread))),
            first_thread,
        };
        if let Some(count) = role.registers {
            e.set_registers(count)?;
        }
        if kernel.roles.len() > 1 {
            e.own_scalars(&arguments.0);
        }
        e.apart = false;
        e.statements(&role.body, &[])?;
        e.b.ret();
        e.b.at_end(next);
        first += role.warps;
    }
    Ok(e.b.module)
}
