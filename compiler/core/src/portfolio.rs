//! The portfolio of an operator: what the search chose, as programs, with their time as formulas for the selector.
//!
//! This is the only place where the search, which knows schedules, meets lowering, which knows kernels.

use crate::cost::{
    self, Closed, CostError, Counts, Inputs, Resident, Sample, Table, bound_formula, lower_bound, resident_formula,
    time_formula,
};
use crate::device::{Device, H200};
use crate::lower::Meaning;
use crate::lower::operator::Operator;
use crate::program::{Program, Step, program, row_tiles};
use crate::schedule::{Fetch, Keys, Schedule};
use crate::search::{Case, Chosen, Loser, Lowering, Problem, Purpose, SearchError, cases, search};
use crate::simulate::evaluate;
use crate::target::{SM_80, Target, is_exact};
use drawloom_graph::ir::{Op as GOp, Val as GVal};
use drawloom_graph::ranges::Sym;
use drawloom_kernel::ir::Kernel;
use drawloom_lang::manifest::{Formula, Report};
use drawloom_lang::spec::{AxisId, AxisRole, AxisSize};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Add;
use std::rc::Rc;

/// A member of the portfolio, ready to be emitted.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is there for.
    pub purpose: Purpose,
    /// Its program.
    pub program: Program,
    /// Predicted time in nanoseconds.
    pub time: Formula,
    /// Static facts; registers are not known yet.
    pub report: Report,
}

/// The portfolio and what lost.
#[derive(Clone, Debug)]
pub struct Portfolio {
    /// Members; the first is for many queries.
    pub members: Vec<Member>,
    /// What was considered and not taken.
    pub losers: Vec<Loser>,
}

/// Searches schedules for an operator. Kernels are called `name` and a number.
///
/// # Errors
/// [`SearchError`] where nothing fits, with numbers.
pub fn portfolio(op: &Operator, name: &str, target: &'static Target) -> Result<Portfolio, SearchError> {
    let problem = Problem {
        target,
        element_bytes: op.dtype(op.spec.inputs[op.q.index()].ty).bytes(),
        head_dim: op.head_dim().unwrap_or(0),
        value_dim: op.value_dim().unwrap_or(0),
        grouped: op.group().is_some(),
        score_operations: operations(op),
        cuts: !op.sees_everything(),
        pieces: op.ranges.pieces.len() as u32,
        left_edge: matches!(op.ranges.pieces.as_slice(), [p] if !matches!(p.possible.lo, Sym::Const(_))),
        tables: tables(op),
        bounded: false,
        pins: &op.spec.tile,
    };
    let workshop = Workshop {
        op,
        name,
        target,
        programs: RefCell::default(),
        counts: RefCell::default(),
    };
    let found = search(
        &problem,
        &Lowering {
            kernel: &|schedule| Ok(workshop.program(schedule)?.kernels[0].kernel.clone()),
            count: &|schedule, _, case| {
                let program = workshop.programs.borrow()[schedule].clone();
                workshop.count(&program, 0, &sizes(op, case), case.device)
            },
        },
    )?;
    let members = found
        .portfolio
        .iter()
        .map(|chosen| member(&workshop, &problem, chosen))
        .collect();
    Ok(Portfolio {
        members,
        losers: found.losers,
    })
}

/// Programs of schedules, each lowered once, and what their kernels do, each counted once: members of a portfolio serve
/// several purposes, and devices launch them alike.
struct Workshop<'a> {
    op: &'a Operator<'a>,
    name: &'a str,
    target: &'static Target,
    programs: RefCell<HashMap<Schedule, Rc<Program>>>,
    counts: RefCell<HashMap<Launched, Rc<Counts>>>,
}

/// A launch of a schedule's kernel, by number: what its counts depend on.
#[derive(PartialEq, Eq, Hash)]
struct Launched {
    schedule: Schedule,
    kernel: usize,
    grid: u32,
    scalars: BTreeMap<String, i64>,
    sizes: BTreeMap<String, u32>,
}

impl Workshop<'_> {
    fn program(&self, schedule: &Schedule) -> Result<Rc<Program>, String> {
        if let Some(program) = self.programs.borrow().get(schedule) {
            return Ok(program.clone());
        }
        let name = format!("{}_v{}", self.name, self.programs.borrow().len());
        let program = Rc::new(program(self.op, schedule, &name, self.target.name).map_err(|e| e.to_string())?);
        self.programs.borrow_mut().insert(*schedule, program.clone());
        Ok(program)
    }

    fn count(
        &self,
        program: &Program,
        kernel: usize,
        sizes: &BTreeMap<String, u32>,
        device: &Device,
    ) -> Result<Rc<Counts>, CostError> {
        let step = &program.kernels[kernel];
        let (grid, inputs) = inputs(self.op, program, step, sizes, device);
        let launched = Launched {
            schedule: program.schedule,
            kernel,
            grid,
            scalars: inputs.scalars.clone(),
            sizes: sizes.clone(),
        };
        if let Some(counts) = self.counts.borrow().get(&launched) {
            return Ok(counts.clone());
        }
        let counts = Rc::new(cost::count(&step.kernel, grid, &inputs)?);
        self.counts.borrow_mut().insert(launched, counts.clone());
        Ok(counts)
    }
}

/// Why a target has no portfolio.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum NoPortfolio {
    /// No schedule fits.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Whatever was chosen would run as portable code too, which is compiled anyway.
    #[error("no schedule for {0} needs what it alone has; the portable kernels run there")]
    Portable(&'static str),
}

/// The portfolios of an operator for several targets, in their order. What is made for one architecture must need it: a
/// member that portable code could hold is left out, for it would only make artifacts larger.
pub fn portfolios(
    op: &Operator,
    name: &str,
    targets: &[&'static Target],
) -> Vec<(&'static Target, Result<Portfolio, NoPortfolio>)> {
    let of = |target: &'static Target| {
        if !is_exact(target) {
            return Ok(portfolio(op, name, target)?);
        }
        let mut found = portfolio(op, &format!("{name}_{}", target.name), target)?;
        found.members.retain(|member| !is_portable(&member.program));
        match found.members.is_empty() {
            true => Err(NoPortfolio::Portable(target.name)),
            false => Ok(found),
        }
    };
    targets.iter().map(|&target| (target, of(target))).collect()
}

/// Whether every kernel of a program keeps the rules of portable code.
fn is_portable(program: &Program) -> bool {
    program.kernels.iter().all(|step| {
        let kernel = Kernel {
            target: SM_80.name.to_owned(),
            ..step.kernel.clone()
        };
        drawloom_kernel::verify::verify(&kernel).is_empty()
    })
}

/// Inputs beside keys and values that have a value for each key.
fn tables(op: &Operator) -> u32 {
    let keyed = op.spec.inputs.iter().enumerate().filter(|(n, input)| {
        let streamed = [op.attend.k, op.attend.v].iter().any(|id| id.index() == *n);
        !streamed && input.axes.contains(&op.attend.key)
    });
    keyed.count() as u32
}

/// Elementwise operations of the score and the mask.
fn operations(op: &Operator) -> u32 {
    fn count(op: &Operator, v: GVal, seen: &mut Vec<GVal>) -> u32 {
        if seen.contains(&v) || op.dots.contains(&v) {
            return 0;
        }
        seen.push(v);
        let node = &op.graph.nodes[v.index()];
        let own = match node.op {
            GOp::Unary(..) | GOp::Binary(..) | GOp::Select(..) if node.axes.len() > 1 => 1,
            _ => 0,
        };
        own + node.op.operands().into_iter().map(|o| count(op, o, seen)).sum::<u32>()
    }
    count(op, op.factored_score().1, &mut Vec::new())
}

/// The sizes of all axes in a case.
pub fn sizes(op: &Operator, case: &Case) -> BTreeMap<String, u32> {
    let mut sizes = BTreeMap::new();
    let heads = match op.group() {
        Some((_, h)) => Some(h),
        None => op.outer().last().copied().filter(|_| op.outer().len() > 1),
    };
    for (n, axis) in op.spec.axes.iter().enumerate() {
        let id = AxisId(n as u32);
        let size = op.size(id).unwrap_or(match (axis.role, &axis.size) {
            (AxisRole::Query(_), _) => case.queries,
            (AxisRole::Key, _) => case.keys,
            (AxisRole::Plain, AxisSize::Grouped { ratios, .. }) => {
                let ratio = ratios
                    .iter()
                    .copied()
                    .filter(|r| case.heads.is_multiple_of(*r))
                    .max()
                    .unwrap_or(1);
                case.heads / ratio
            }
            (AxisRole::Plain, _) if Some(id) == heads => case.heads,
            (AxisRole::Plain, _) => case.batch,
        });
        sizes.insert(axis.name.clone(), size);
    }
    sizes
}

/// The grid and what decides a kernel's counts: sizes, splits, and index tables. Sorted tables are cut into eight equal
/// documents; scalars that a mask reads are taken as 1024.
pub fn inputs(
    op: &Operator,
    program: &Program,
    step: &Step,
    sizes: &BTreeMap<String, u32>,
    device: &Device,
) -> (u32, Inputs) {
    let splits = evaluate(&program.splits, sizes, 1, device).unwrap_or(1).clamp(1, 4096) as u32;
    let grid = evaluate(&step.grid, sizes, splits, device).unwrap_or(0) as u32;
    let mut inputs = Inputs::default();
    for (meaning, param) in step.synchronous.meaning.iter().zip(&step.kernel.params) {
        match meaning {
            Meaning::Size(axis) => {
                inputs
                    .scalars
                    .insert(param.name.clone(), sizes.get(axis).map_or(0, |&n| n.into()));
            }
            Meaning::Number(formula) => {
                let number = evaluate(formula, sizes, splits, device).unwrap_or(0);
                inputs.scalars.insert(param.name.clone(), number);
            }
            Meaning::Splits => {
                inputs.scalars.insert(param.name.clone(), splits.into());
            }
            Meaning::Scalar(_) => {
                inputs.scalars.insert(param.name.clone(), 1024);
            }
            Meaning::Tensor(name) => {
                if let Some(input) = op.spec.inputs.iter().find(|i| i.name == *name && i.sorted) {
                    let extents: Vec<u32> = input
                        .axes
                        .iter()
                        .map(|a| sizes[&op.spec.axes[a.index()].name])
                        .collect();
                    let last = extents.last().copied().unwrap_or(1).max(1);
                    let all: u32 = extents.iter().product();
                    let data = (0..all).map(|n| ((n % last) / last.div_ceil(8)) as i32).collect();
                    inputs.tables.insert(param.name.clone(), Table { extents, data });
                }
            }
            Meaning::Partial { .. } => {}
        }
    }
    (grid, inputs)
}

fn member(workshop: &Workshop<'_>, problem: &Problem<'_>, chosen: &Chosen) -> Member {
    let op = workshop.op;
    let program = workshop.programs.borrow()[&chosen.schedule].clone();
    let prediction = &chosen.predictions[chosen.predictions.len() - 1];
    let at = sizes(op, &prediction.case);
    let device = prediction.case.device;
    let mut time: Option<Formula> = None;
    let mut issued = 0;
    for (n, step) in program.kernels.iter().enumerate() {
        let Ok(counts) = workshop.count(&program, n, &at, device) else {
            continue;
        };
        issued += counts.total.global_bytes();
        let footprint = cost::Footprint::of(&step.kernel, cost::estimate_registers(&step.kernel));
        let own = match program.schedule.fetch {
            Fetch::Together => {
                let closed = closed(op, &program, step, n == 0, &at, device);
                let whole = (n == 0)
                    .then(|| whole_sequence(workshop, &program, &prediction.case))
                    .flatten();
                let (closed, counts) = match whole {
                    Some((other, seen)) if other.share_of(&seen) > closed.share_of(&counts) => (other, seen),
                    _ => (closed, counts),
                };
                time_formula(&footprint, &counts, &closed, &H200)
            }
            Fetch::Producer => match resident(workshop, problem, &program, n) {
                Ok(formula) => formula,
                Err(_) => continue,
            },
        };
        time = Some(match time {
            None => own,
            Some(sum) => sum + own,
        });
    }
    let wide: BTreeMap<String, u64> = at.iter().map(|(k, &v)| (k.clone(), v.into())).collect();
    Member {
        purpose: chosen.purpose,
        program: Program::clone(&program),
        time: time.unwrap_or(Formula::Const(i64::MAX / 4)),
        report: Report {
            schedule: program.kernels.iter().map(|_| program.schedule.to_string()).collect(),
            registers: None,
            shared: chosen.footprint.shared,
            issued_bytes: issued,
            bound_bytes: lower_bound(op.spec, op.binding, &wide).unwrap_or(0),
            at: at.into_iter().collect(),
            limit: prediction.limit.name().to_owned(),
        },
    }
}

/// What a kernel that splits keys costs where every position of a sequence is a query, not the last alone. Under a mask
/// that is aligned at the start, the one query of a decoding step sees next to nothing, and would make it look free.
fn whole_sequence(workshop: &Workshop<'_>, program: &Program, decoding: &Case) -> Option<(Closed, Rc<Counts>)> {
    if program.schedule.keys != Keys::Split {
        return None;
    }
    let case = Case {
        batch: 1,
        queries: decoding.keys,
        ..*decoding
    };
    let at = sizes(workshop.op, &case);
    let counts = workshop.count(program, 0, &at, case.device).ok()?;
    let closed = closed(workshop.op, program, &program.kernels[0], true, &at, case.device);
    Some((closed, counts))
}

/// The closed form of a kernel whose CTAs stay, from a short, a medium and a long sequence.
fn resident(
    workshop: &Workshop<'_>,
    problem: &Problem<'_>,
    program: &Program,
    kernel: usize,
) -> Result<Formula, CostError> {
    let (op, step) = (workshop.op, &program.kernels[kernel]);
    let schedule = &program.schedule;
    let tiles = op.extent(op.attend.key).ceil_div(schedule.block_n);
    let footprint = cost::Footprint::of(&step.kernel, cost::estimate_registers(&step.kernel));
    let sample = |purpose: Purpose| {
        let cases = cases(problem, purpose);
        let case = cases.last().expect("invariant: purposes of sequences have cases");
        let at = sizes(op, case);
        let counts = workshop.count(program, kernel, &at, case.device)?;
        let tiles = evaluate(&tiles, &at, 1, case.device).unwrap_or(1).max(1) as u64;
        Ok(Sample::new(&footprint, &counts, tiles, case.device))
    };
    let samples = [
        sample(Purpose::Short)?,
        sample(Purpose::Medium)?,
        sample(Purpose::Main)?,
    ];
    let resident = Resident {
        grid: step.grid.clone(),
        query_tiles: row_tiles(op, schedule),
        tiles,
        bytes: bound_formula(op.spec, op.binding),
        even: op.sees_everything(),
    };
    Ok(resident_formula(&resident, samples))
}

/// The closed form's ingredients for one kernel of a program.
fn closed(
    op: &Operator,
    program: &Program,
    step: &Step,
    main: bool,
    at: &BTreeMap<String, u32>,
    device: &Device,
) -> Closed {
    let schedule = &program.schedule;
    let workspace = program.workspace.iter().cloned().reduce(Formula::add);
    let (tiles, bytes) = if main {
        let tiles = op.extent(op.attend.key).ceil_div(schedule.block_n);
        let tiles = match schedule.keys {
            Keys::All => tiles,
            Keys::Split => tiles.ceil_div(Formula::Splits),
        };
        (tiles, bound_formula(op.spec, op.binding))
    } else {
        (Formula::Const(1), workspace.unwrap_or(Formula::Const(0)))
    };
    let splits = evaluate(&program.splits, at, 1, device).unwrap_or(1).clamp(1, 4096) as u32;
    let tiles_counted = evaluate(&tiles, at, splits, device).unwrap_or(1).max(1) as u64;
    let (d, e) = (op.head_dim().unwrap_or(0), op.value_dim().unwrap_or(0));
    let flops = 2 * u64::from(schedule.block_m) * u64::from(schedule.block_n) * u64::from(d + e);
    Closed {
        grid: step.grid.clone(),
        tiles,
        bytes,
        tiles_counted,
        flops_per_tile: if main { flops } else { 0 },
    }
}
