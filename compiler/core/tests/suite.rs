//! The suite on the kernel interpreter: every named case and random specs, through every schedule of a fixed list (the
//! forms that lowering can take) and through the portfolio. Each run is checked for faults, judged by the criterion, and
//! its counted bytes are compared with the predicted ones.

use drawloom_compiler::compile::{kernel_name, program_for};
use drawloom_compiler::device::H200;
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::portfolio;
use drawloom_compiler::program::Program;
use drawloom_compiler::schedule::{Fetch, Keys, Pack, QueryHome, Reference, Schedule, Staging};
use drawloom_compiler::simulate::simulate;
use drawloom_compiler::target::{SM_80, SM_90A};
use drawloom_engines::{Interpreted, call, device};
use drawloom_tests::criterion::judge;
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::random_spec::random_spec;
use drawloom_tests::{Case, Engine, suite};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The forms that lowering can take with a producer: one to three warpgroups, two and three slots, each reference.
fn producer_schedules() -> Vec<(Schedule, Option<u32>)> {
    let form = |groups: u32, block_n, stages, reference, staging| {
        let schedule = Schedule {
            queries: if staging == Staging::Own { 2 } else { 1 },
            ..Schedule::with_producer(64 * groups, block_n, stages, reference, staging)
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
