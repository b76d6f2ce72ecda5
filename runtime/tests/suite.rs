//! The CPU form on the suite: every named case and random specs, judged by the criterion.

use drawloom_device::host::Host;
use drawloom_tests::criterion::judge;
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::random_spec::random_spec;
use drawloom_tests::{Case, Engine, suite};
use proptest::prelude::*;

fn check(case: &Case) -> Result<(), String> {
    let judged = judge(&Host.run(case)?, &Exact.run(case)?, &SameDtype.run(case)?);
    judged.map(|_| ()).map_err(|e| format!("{}: {e}", case.name))
}

#[test]
fn named_cases_are_within_the_criterion() {
    let cases = suite::cases().expect("the suite's files are right");
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_specs_are_within_the_criterion(random in random_spec(70)) {
        let case = random.case().map_err(TestCaseError::fail)?;
        let told = |e| format!("{e}\n{}\nsizes {:?}", drawloom_lang::canonical(&case.spec), case.sizes);
        check(&case).map_err(|e| TestCaseError::fail(told(e)))?;
    }
}
