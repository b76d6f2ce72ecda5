//! The suite on the kernel interpreter: every named case and random specs, through every schedule of a fixed list (the
//! forms that lowering can take) and through the portfolio. Each run is checked for faults, judged by the criterion, and
//! its counted bytes are compared with the predicted ones.

use drawloom_compiler::compile::{kernel_name, program_for};
use drawloom_compiler::cost::{self, Inputs, Table};
use drawloom_compiler::device::{Device, H200};
use drawloom_compiler::lower::Meaning;
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::portfolio;
use drawloom_compiler::program::Program;
use drawloom_compiler::schedule::{Fetch, Keys, Pack, QueryHome, Reference, Schedule, Staging};
use drawloom_compiler::simulate::{Call, evaluate, simulate, splits};
use drawloom_compiler::target::{SM_80, SM_90A};
use drawloom_kernel::interp::{self, Elements};
use drawloom_kernel::ir::Dtype as KernelDtype;
use drawloom_lang::spec::Dtype;
use drawloom_tests::criterion::judge;
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::random_spec::random_spec;
use drawloom_tests::{Case, Engine, Outputs, Scalar, Tensor, suite};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One program of a case on the kernel interpreter.
struct Interpreted {
    program: Program,
    splits: Option<u32>,
    seed: u64,
    device: &'static Device,
}

impl Engine for Interpreted {
    fn name(&self) -> &str {
        "kernel interpreter"
    }

    fn run(&self, case: &Case) -> Result<Outputs, String> {
        let mut call = call(case, self.splits, self.seed);
        let counted = simulate(&self.program, &mut call, self.device).map_err(|e| e.to_string())?;
        let parts = splits(&self.program, &call, self.device).ok_or("no number of splits")?;
        for (step, counted) in self.program.kernels.iter().zip(counted) {
            let grid = evaluate(&step.grid, &call.sizes, parts, self.device).ok_or("no grid")? as u32;
            let inputs = cost_inputs(case, step, &call, parts, self.device);
            let predicted = cost::count(&step.kernel, grid, &inputs)
                .map_err(|e| e.to_string())?
                .total;
            // Where a guard refuses rows, their tiles are read a second time.
            let again = self.program.schedule.reference == Reference::First
                && (predicted.read.iter().zip(&counted.read)).all(|(p, c)| p <= c && *c <= 2 * p);
            if (predicted.read != counted.read && !again) || predicted.written != counted.written {
                return Err(format!(
                    "{}: predicted {:?} read and {:?} written, counted {:?} and {:?}",
                    step.kernel.name, predicted.read, predicted.written, counted.read, counted.written
                ));
            }
            if predicted.mma_flops != counted.mma_flops && !again {
                return Err(format!(
                    "predicted {} operations, counted {}",
                    predicted.mma_flops, counted.mma_flops
                ));
            }
        }
        let mut outputs = Outputs::new();
        for n in 0..case.spec.outputs.len() {
            let mut out = case.blank_output(n);
            let data = call.tensors[&out.name].data.to_f64();
            out.values = out.offsets().into_iter().map(|at| data[at]).collect();
            outputs.push(out);
        }
        Ok(outputs)
    }
}

fn call(case: &Case, splits: Option<u32>, seed: u64) -> Call {
    let outputs = (0..case.spec.outputs.len()).map(|n| case.blank_output(n));
    let tensors = case
        .inputs
        .iter()
        .cloned()
        .chain(outputs)
        .map(|t| (t.name.clone(), in_memory(&t)))
        .collect();
    let scalars = case.spec.scalars.iter().zip(&case.scalars).map(|(decl, value)| {
        let value = match *value {
            Scalar::Real(x) => x.into(),
            Scalar::Int(x) => x.into(),
        };
        (decl.name.clone(), value)
    });
    let sizes = case
        .spec
        .axes
        .iter()
        .zip(&case.sizes)
        .map(|(axis, &n)| (axis.name.clone(), n as u32));
    Call {
        tensors,
        sizes: sizes.collect(),
        scalars: scalars.collect(),
        splits,
        seed,
    }
}

/// A tensor as it lies in memory, gaps (there are none) poisoned.
fn in_memory(tensor: &Tensor) -> interp::Tensor {
    let dtype = match tensor.dtype {
        Dtype::F16 => KernelDtype::F16,
        Dtype::Bf16 => KernelDtype::Bf16,
        Dtype::F32 => KernelDtype::F32,
        Dtype::I32 => KernelDtype::I32,
    };
    let mut memory = vec![f64::NAN; tensor.values.len()];
    for (at, value) in tensor.offsets().into_iter().zip(&tensor.values) {
        memory[at] = *value;
    }
    let data = Elements::from_f64(dtype, &memory).expect("invariant: a memory type");
    let strides = tensor.strides().into_iter().map(|s| s as i64).collect();
    interp::Tensor {
        data,
        offset: 0,
        strides,
    }
}

/// What the counts of a kernel depend on, with the case's own index tables.
fn cost_inputs(
    case: &Case,
    step: &drawloom_compiler::program::Step,
    call: &Call,
    splits: u32,
    device: &Device,
) -> Inputs {
    let mut inputs = Inputs::default();
    for (meaning, param) in step.synchronous.meaning.iter().zip(&step.kernel.params) {
        let scalar = match meaning {
            Meaning::Size(axis) => i64::from(call.sizes[axis]),
            Meaning::Splits => splits.into(),
            Meaning::Number(formula) => evaluate(formula, &call.sizes, splits, device).expect("a number"),
            Meaning::Scalar(name) => call.scalars[name] as i64,
            Meaning::Tensor(name) => {
                if let Some(t) = case.inputs.iter().find(|t| t.name == *name && t.dtype == Dtype::I32) {
                    let extents = t.shape.iter().map(|&n| n as u32).collect();
                    let data = t.values.iter().map(|&x| x as i32).collect();
                    inputs.tables.insert(param.name.clone(), Table { extents, data });
                }
                continue;
            }
            Meaning::Partial { .. } => continue,
        };
        inputs.scalars.insert(param.name.clone(), scalar);
    }
    inputs
}

/// A Hopper device so small that its CTAs take several query tiles.
const TWO_SMS: Device = Device { sms: 2, ..H200 };

fn device(schedule: &Schedule) -> &'static Device {
    match schedule.fetch {
        Fetch::Together => &H200,
        Fetch::Producer => &TWO_SMS,
    }
}

/// The forms that lowering can take with a producer: one to three warpgroups, two and three slots, each reference.
fn producer_schedules() -> Vec<(Schedule, Option<u32>)> {
    let form = |groups: u32, block_n, stages, reference, staging| {
        let schedule = Schedule {
            block_m: 64 * groups,
            block_n,
            warps: 4 * groups,
            stages,
            query: QueryHome::Shared,
            access: 16,
            pack: Pack::Queries,
            keys: Keys::All,
            min_ctas: 1,
            fetch: Fetch::Producer,
            reference,
            staging,
            queries: if staging == Staging::Own { 2 } else { 1 },
        };
        (schedule, None)
    };
    vec![
        form(1, 32, 2, Reference::Running, Staging::Own),
        form(2, 48, 2, Reference::First, Staging::Query),
        form(3, 16, 3, Reference::First, Staging::Query),
    ]
}

/// The forms that lowering can take: slots, query homes, access widths, splits, packed heads.
fn schedules(case: &Case) -> Vec<(Schedule, Option<u32>)> {
    use QueryHome::{Registers, Shared};
    let plain = |block_m, block_n, warps, stages, query, access| Schedule {
        block_m,
        block_n,
        warps,
        stages,
        query,
        access,
        pack: Pack::Queries,
        keys: Keys::All,
        min_ctas: 1,
        fetch: Fetch::Together,
        reference: Reference::Running,
        staging: Staging::Query,
        queries: 1,
    };
    let grouped = case
        .spec
        .axes
        .iter()
        .any(|a| matches!(a.size, drawloom_lang::spec::AxisSize::Grouped { .. }));
    let pack = if grouped { Pack::QueriesAndHeads } else { Pack::Queries };
    vec![
        (plain(64, 64, 4, 2, Registers, 16), None),
        (plain(64, 32, 2, 1, Shared, 16), None),
        (plain(32, 48, 2, 3, Shared, 8), None),
        (plain(64, 32, 4, 2, Registers, 2), None),
        (
            Schedule {
                pack,
                keys: Keys::Split,
                ..plain(16, 32, 1, 3, Registers, 16)
            },
            Some(3),
        ),
        (
            Schedule {
                pack,
                ..plain(32, 16, 2, 2, Registers, 16)
            },
            None,
        ),
    ]
}

fn check(case: &Case, schedules: &[(Schedule, Option<u32>)], seed: u64) -> Result<(), String> {
    let truth = Exact.run(case)?;
    let naive = SameDtype.run(case)?;
    for (schedule, splits) in schedules {
        let program = program_for(&case.spec, &case.binding, schedule).map_err(|e| e.to_string())?;
        for step in &program.kernels {
            let errors = drawloom_kernel::verify::verify(&step.kernel);
            if !errors.is_empty() {
                return Err(drawloom_kernel::verify::render(&step.kernel, &errors));
            }
        }
        let engine = Interpreted {
            program,
            splits: *splits,
            seed,
            device: device(schedule),
        };
        let found = engine
            .run(case)
            .map_err(|e| format!("{} [{schedule}]: {e}", case.name))?;
        judge(&found, &truth, &naive).map_err(|e| format!("{} [{schedule}]: {e}", case.name))?;
    }
    Ok(())
}

#[test]
fn named_cases_run_without_fault_and_within_the_criterion() {
    let failures: Vec<String> = suite::cases()
        .expect("the suite's files are right")
        .iter()
        .enumerate()
        .filter_map(|(n, case)| check(case, &schedules(case), n as u64).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn named_cases_run_with_a_producer() {
    let failures: Vec<String> = suite::cases()
        .expect("the suite's files are right")
        .iter()
        .enumerate()
        .filter_map(|(n, case)| check(case, &producer_schedules(), n as u64).err())
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn the_portfolio_runs_every_spec() {
    let mut failures = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut on_hopper = 0;
    for case in suite::cases().expect("the suite's files are right") {
        if !seen.insert(case.spec.name.clone()) {
            continue;
        }
        let graph = drawloom_graph::from_spec(&case.spec, &case.binding);
        let operator = recognise(&case.spec, &case.binding, &graph).expect("every spec of the suite has a kernel form");
        let name = kernel_name(&case.spec, &case.binding);
        let found = portfolio(&operator, &name, &SM_80).expect("every spec of the suite has a schedule");
        let smallest = found.members.iter().map(|m| m.report.shared).min();
        if smallest.is_none_or(|bytes| bytes > 99 * 1024) {
            failures.push(format!("{name}: no variant fits 99 KiB of shared memory"));
        }
        // What a producer cannot do has no kernel for Hopper alone.
        let hopper = portfolio(&operator, &name, &SM_90A).map_or_else(|_| Vec::new(), |found| found.members);
        for member in &hopper {
            if member.program.schedule.fetch != Fetch::Producer {
                failures.push(format!("{name}: {} is portable", member.program.schedule));
            }
        }
        on_hopper += hopper.len();
        let truth = Exact.run(&case).expect("a named case has a result");
        let naive = SameDtype.run(&case).expect("a named case has a result");
        for member in found.members.into_iter().chain(hopper) {
            let schedule = member.program.schedule;
            let engine = Interpreted {
                program: member.program,
                splits: None,
                seed: 5,
                device: device(&schedule),
            };
            let judged = engine.run(&case).and_then(|found| judge(&found, &truth, &naive));
            if let Err(e) = judged {
                failures.push(format!("{name} [{schedule}]: {e}"));
            }
        }
    }
    assert!(on_hopper > 0, "no spec of the suite has a schedule for Hopper");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random specs and shapes: no fault, within the criterion, bytes as predicted.
    #[test]
    fn random_specs_run_without_fault(random in random_spec(70), seed in any::<u64>()) {
        let case = random.case().map_err(TestCaseError::fail)?;
        let d = case.binding.sizes.iter().flatten().all(|n| n % 16 == 0);
        prop_assume!(d);
        let told = |e| format!("{e}\n{}\nsizes {:?}", drawloom_lang::canonical(&case.spec), case.sizes);
        check(&case, &schedules(&case), seed).map_err(|e| TestCaseError::fail(told(e)))?;
        let producer = producer_schedules().swap_remove(seed as usize % 3);
        if case.binding.sizes.iter().flatten().all(|n| *n <= 128) {
            check(&case, &[producer], seed).map_err(|e| TestCaseError::fail(told(e)))?;
        }
    }
}

/// Copies run ahead, but what is computed is what the synchronous program computes.
#[test]
fn the_pipeliner_keeps_the_meaning() {
    let cases = suite::cases().expect("the suite's files are right");
    let case = cases
        .iter()
        .find(|c| c.spec.name == "streaming")
        .expect("the suite has a streaming case");
    for (schedule, splits) in schedules(case) {
        let program = program_for(&case.spec, &case.binding, &schedule).expect("a program");
        let mut synchronous = program.clone();
        for step in &mut synchronous.kernels {
            step.kernel = step.synchronous.kernel.clone();
        }
        let run = |program: &Program| -> BTreeMap<String, Vec<f64>> {
            let mut call = call(case, splits, 3);
            simulate(program, &mut call, &H200).expect("a run without fault");
            case.spec
                .outputs
                .iter()
                .map(|o| (o.name.clone(), call.tensors[&o.name].data.to_f64()))
                .collect()
        };
        assert_eq!(run(&program), run(&synchronous), "{schedule}");
    }
}
