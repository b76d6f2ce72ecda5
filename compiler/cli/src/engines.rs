//! What `run` and `verify` share: a spec's variants and its CPU form on one case, judged by the suite's rule against the
//! suite's truth.

use crate::input::Choice;
use crate::report::Failure;
use drawloom_compiler::compile::{CompileError, kernel_name};
use drawloom_compiler::lower::operator::recognise;
use drawloom_compiler::portfolio::{Member, portfolios};
use drawloom_compiler::target::Target;
use drawloom_device::host::Host;
use drawloom_engines::{Interpreted, device};
use drawloom_lang::spec::{Binding, Dtype, Spec};
use drawloom_tests::criterion::judge;
use drawloom_tests::graph::GraphOracle;
use drawloom_tests::naive::{Exact, SameDtype};
use drawloom_tests::{Case, Engine, InputKind, criterion};
use serde::Serialize;
use std::collections::BTreeMap;

/// The kernels of one binding.
pub struct Variants {
    members: Vec<(&'static Target, Member)>,
    /// Targets without kernels of their own, and why.
    pub without: Vec<(String, String)>,
}

/// Searches the portfolios of a binding. The first target must have one.
pub fn variants(spec: &Spec, binding: &Binding, choice: &Choice) -> Result<Variants, Failure> {
    let graph = drawloom_graph::from_spec(spec, binding);
    let operator = recognise(spec, binding, &graph).map_err(CompileError::from)?;
    let mut variants = Variants {
        members: Vec::new(),
        without: Vec::new(),
    };
    let found = portfolios(&operator, &kernel_name(spec, binding), &choice.target);
    for (n, (target, found)) in found.into_iter().enumerate() {
        match found {
            Ok(found) => variants.members.extend(found.members.into_iter().map(|m| (target, m))),
            Err(why) if n == 0 => return Err(CompileError::from(why).into()),
            Err(why) => variants.without.push((target.name.to_owned(), why.to_string())),
        }
    }
    Ok(variants)
}

/// What is drawn: all that a case of a spec is made from, besides the spec.
#[derive(Clone, Debug, Serialize)]
pub struct Draw {
    /// The member of every type set.
    #[serde(rename = "type")]
    pub dtype: Dtype,
    /// Sizes of all axes.
    pub sizes: BTreeMap<String, usize>,
    /// What queries and keys look like.
    pub input: String,
    /// Of the input, and of the interleaving of warps.
    pub seed: u64,
}

/// The kinds of input by the names that options give them.
pub const KINDS: [(&str, InputKind); 7] = [
    ("gaussian", InputKind::Gaussian),
    ("rising", InputKind::Rising),
    ("falling", InputKind::Falling),
    ("falling_huge", InputKind::FallingHuge),
    ("outliers", InputKind::Outliers),
    ("one_hot", InputKind::OneHot),
    ("equal", InputKind::Equal),
];

impl Draw {
    /// The case of a spec.
    pub fn case(&self, spec: &Spec) -> Result<Case, Failure> {
        let kind = KINDS
            .iter()
            .find(|(name, _)| *name == self.input)
            .map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| {
            let names = KINDS.map(|(name, _)| name);
            Failure::given(format!("no input is called `{}`: {}", self.input, names.join(", ")))
        })?;
        Case::new(&spec.name, spec, self.dtype, &self.sizes, kind, self.seed).map_err(Failure::given)
    }

    /// The options of `drawloom run` that draw the same.
    pub fn options(&self) -> String {
        let sizes: Vec<String> = self.sizes.iter().map(|(axis, n)| format!("{axis}={n}")).collect();
        format!(
            "--type {} --size {} --input {} --seed {}",
            self.dtype,
            sizes.join(","),
            self.input,
            self.seed
        )
    }
}

/// How one engine did on a case.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What computed: `kernel interpreter`, `the CPU form`, `graph interpreter`.
    pub engine: String,
    /// Instruction set and schedule of interpreted kernels.
    pub variant: Option<String>,
    /// The largest error of a row.
    pub error: f64,
    /// The error of a naive implementation in the same types, in the row that used most of its allowance.
    pub naive: f64,
    /// That part of the allowance: above 1 it is wrong.
    pub used: f64,
    /// A race, wrong bytes, a result out of its allowance.
    pub fault: Option<String>,
}

/// Runs a case on every engine, the graph's interpreter first: it is what the compiler believes.
pub fn judge_all(case: &Case, variants: &Variants, seed: u64) -> Result<Vec<Judged>, Failure> {
    let truth = Exact.run(case).map_err(Failure::bug)?;
    let naive = SameDtype.run(case).map_err(Failure::bug)?;
    let told = |engine: &str, variant: Option<String>, verdict: Result<criterion::Verdict, String>| match verdict {
        Ok(verdict) => Judged {
            engine: engine.to_owned(),
            variant,
            error: verdict.error,
            naive: verdict.naive,
            used: verdict.used,
            fault: None,
        },
        Err(fault) => Judged {
            engine: engine.to_owned(),
            variant,
            error: 0.0,
            naive: 0.0,
            used: 0.0,
            fault: Some(fault),
        },
    };
    let run = |engine: &dyn Engine, variant: Option<String>| {
        let verdict = engine.run(case).and_then(|found| judge(&found, &truth, &naive));
        told(engine.name(), variant, verdict)
    };
    let oracle = GraphOracle.run(case).and_then(|found| criterion::agree(&found, &truth));
    let exact = oracle.map(|()| criterion::Verdict {
        error: 0.0,
        naive: 0.0,
        used: 0.0,
        worst: String::new(),
    });
    let mut all = vec![told(GraphOracle.name(), None, exact), run(&Host, None)];
    for (target, member) in &variants.members {
        let schedule = member.program.schedule;
        let engine = Interpreted {
            program: member.program.clone(),
            splits: None,
            seed,
            device: device(&schedule),
        };
        all.push(run(&engine, Some(format!("{} {schedule}", target.name))));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{Draw, judge_all, variants};
    use crate::input::Choice;
    use drawloom_compiler::target::SM_80;
    use drawloom_lang::spec::{Dtype, Spec};

    fn spec(name: &str) -> Spec {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../specs/{name}.attn"));
        let text = std::fs::read_to_string(path).expect("the spec is there");
        drawloom_lang::parse_str(name, &text)
            .expect("the spec is right")
            .remove(0)
    }

    #[test]
    fn kernels_of_another_operator_are_found_out() {
        let choice = Choice {
            few: false,
            types: Some("bf16".to_owned()),
            size: vec![("d".to_owned(), 64)],
            target: vec![&SM_80],
        };
        let (dense, causal) = (spec("dense"), spec("causal"));
        let binding = choice.bindings(&dense).expect("bindings").remove(0);
        let sizes = [("b", 1), ("h", 1), ("i", 20), ("j", 40), ("d", 64)];
        let draw = Draw {
            dtype: Dtype::Bf16,
            sizes: sizes.into_iter().map(|(axis, n)| (axis.to_owned(), n)).collect(),
            input: "gaussian".to_owned(),
            seed: 3,
        };
        assert_eq!(
            draw.options(),
            "--type bf16 --size b=1,d=64,h=1,i=20,j=40 --input gaussian --seed 3"
        );
        let case = draw.case(&dense).expect("a case");
        let own = variants(&dense, &binding, &choice).expect("kernels");
        let right = judge_all(&case, &own, 3).expect("results");
        assert!(right.iter().all(|judged| judged.fault.is_none()), "{right:?}");
        let other = variants(&causal, &binding, &choice).expect("kernels");
        let wrong = judge_all(&case, &other, 3).expect("results");
        let (host, kernels): (Vec<_>, Vec<_>) = wrong.iter().partition(|judged| judged.variant.is_none());
        assert!(
            host.len() == 2 && host.iter().all(|judged| judged.fault.is_none()),
            "{wrong:?}"
        );
        let found = |fault: &Option<String>| fault.as_ref().is_some_and(|fault| fault.contains("the allowed error"));
        assert!(
            !kernels.is_empty() && kernels.iter().all(|judged| found(&judged.fault)),
            "{wrong:?}"
        );
        let unknown = Draw {
            input: "odd".to_owned(),
            ..draw
        };
        assert!(unknown.case(&dense).is_err());
    }
}
