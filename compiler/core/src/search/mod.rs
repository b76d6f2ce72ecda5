//! Chooses schedules: enumerates them, rejects with a reason, ranks by predicted time, and keeps a small portfolio.
//!
//! In: what the graph says of the operator, a target, pinned fields, and a way to make the kernel of a schedule. Out:
//! one schedule for each [`Purpose`] with its final kernel and its predictions, and a log of everything that was considered.
//! It stands behind `cost`, which it asks, and knows nothing of lowering: the kernel comes from a closure.
//!
//! Schedules are ranked on a few representative devices and sizes ([`cases`]); at run time the selector chooses among
//! the portfolio for the sizes and the device at hand.

mod cases;
mod estimate;
mod space;

use crate::cost::{self, CostError, Counts, Footprint, Pipe, time};
use crate::schedule::Schedule;
use crate::target::{SMALL_SHARED, Target, shared_tiers};
pub use cases::{Case, cases};
use drawloom_kernel::ir::Kernel;
use drawloom_kernel::verify::Limit;
use drawloom_lang::spec::Pin;
use space::Point;
use std::fmt;
use std::rc::Rc;

/// What the search needs to know of an operator.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// What code is made for.
    pub target: &'static Target,
    /// Size of an element of queries, keys and values in bytes.
    pub element_bytes: u32,
    /// Features of queries and keys.
    pub head_dim: u32,
    /// Features of values.
    pub value_dim: u32,
    /// Whether several query heads share a key head.
    pub grouped: bool,
    /// Element-wise operations of the score beside the product and the softmax.
    pub score_operations: u32,
    /// Whether a mask hides keys.
    pub cuts: bool,
    /// Intervals of keys that a query tile visits.
    pub pieces: u32,
    /// Whether the only piece has an edge on its left too.
    pub left_edge: bool,
    /// Tables that scores or masks read key by key.
    pub tables: u32,
    /// Whether the scores are bounded, so that sums stay in range whatever is subtracted.
    pub bounded: bool,
    /// Pinned fields of the spec.
    pub pins: &'a [Pin],
}

impl Problem<'_> {
    /// The value of a pinned field for this target: a pin that names the target goes before one that does not.
    fn pinned(&self, field: &str) -> Option<u32> {
        let of = |target: Option<&str>| {
            self.pins
                .iter()
                .find(|p| p.field == field && p.target.as_deref() == target)
                .map(|p| p.value)
        };
        of(Some(self.target.name)).or_else(|| of(None))
    }
}

/// What the kernel of a schedule does in a case.
pub type Count<'a> = dyn Fn(&Schedule, &Kernel, &Case) -> Result<Rc<Counts>, CostError> + 'a;

/// How kernels are made and counted.
pub struct Lowering<'a> {
    /// The final kernel of a schedule, or the reason why there is none.
    pub kernel: &'a dyn Fn(&Schedule) -> Result<Kernel, String>,
    /// What it does in a case.
    pub count: &'a Count<'a>,
}

/// What a schedule is in the portfolio for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Many queries, on devices with the target's full shared memory.
    Main,
    /// The same for sequences of medium length, where the time between query tiles begins to count. Only for targets whose
    /// schedules differ enough.
    Medium,
    /// The same for short sequences.
    Short,
    /// Many queries, at most [`SMALL_SHARED`] bytes of shared memory.
    SmallShared,
    /// Tensors that are not aligned to 16 bytes.
    Unaligned,
    /// Few queries: the keys are split among CTAs.
    Split,
}

impl Purpose {
    /// All purposes, in the order of a portfolio.
    pub const ALL: [Purpose; 6] = [
        Purpose::Main,
        Purpose::Medium,
        Purpose::Short,
        Purpose::SmallShared,
        Purpose::Unaligned,
        Purpose::Split,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Main => "main",
            Purpose::Medium => "medium sequences",
            Purpose::Short => "short sequences",
            Purpose::SmallShared => "small shared memory",
            Purpose::Unaligned => "unaligned",
            Purpose::Split => "split",
        }
    }
}

/// A member of the portfolio.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What it is there for.
    pub purpose: Purpose,
    /// Its schedule.
    pub schedule: Schedule,
    /// Its final kernel.
    pub kernel: Kernel,
    /// What a CTA occupies; registers are estimated.
    pub footprint: Footprint,
    /// What it is predicted to do in each case of its purpose.
    pub predictions: Vec<Prediction>,
}

/// A prediction for one case.
#[derive(Clone, PartialEq, Debug)]
pub struct Prediction {
    /// The case.
    pub case: Case,
    /// Time in nanoseconds.
    pub ns: f64,
    /// The busiest pipe.
    pub limit: Pipe,
    /// Issued bytes, read and written.
    pub issued_bytes: u64,
    /// Bytes at DRAM, modelled.
    pub dram_bytes: u64,
}

/// A schedule that was considered for a purpose and not taken.
#[derive(Clone, PartialEq, Debug)]
pub struct Loser {
    /// The purpose.
    pub purpose: Purpose,
    /// The schedule.
    pub schedule: Schedule,
    /// Why it was not taken.
    pub reason: Reason,
}

/// Why a schedule was not taken.
#[derive(Clone, PartialEq, Debug)]
pub enum Reason {
    /// It needs more than there is.
    Limit(Limit),
    /// A size does not fit the matrix unit.
    Multiple {
        /// Which.
        what: &'static str,
        /// Its value.
        given: u32,
        /// What it must be a multiple of.
        of: u32,
    },
    /// It has no kernel, or none whose counts are known.
    NoKernel(String),
    /// The bound on the graph is slower, by this factor in the geometric mean over the cases, than the best bound.
    BoundSlower(f64),
    /// Its kernel is predicted to be slower by this factor.
    Slower(f64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Limit(l) => write!(f, "{l}"),
            Reason::Multiple { what, given, of } => write!(f, "{what} is {given}, not a positive multiple of {of}"),
            Reason::NoKernel(why) => f.write_str(why),
            Reason::BoundSlower(by) => write!(f, "{by:.2} times the best by the bound on the graph"),
            Reason::Slower(by) => write!(f, "{by:.2} times the best predicted time"),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Search {
    /// One member for each purpose that has one, in the order of [`Purpose::ALL`]. A schedule that serves two purposes stands once.
    pub portfolio: Vec<Chosen>,
    /// Everything else that was considered, in the order of the enumeration.
    pub losers: Vec<Loser>,
}

/// No schedule can run.
#[derive(Clone, PartialEq, Debug)]
pub struct SearchError {
    /// Target.
    pub target: &'static str,
    /// The pinned fields, as written; empty where nothing is pinned.
    pub pins: String,
    /// The schedule that misses by least, and what it misses.
    pub nearest: Box<Loser>,
}

impl std::error::Error for SearchError {}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.pins.is_empty() { "" } else { " with " };
        let Loser { schedule, reason, .. } = &*self.nearest;
        write!(
            f,
            "no schedule{with}{} runs on {}; the nearest ({schedule}) fails: {reason}",
            self.pins, self.target
        )
    }
}

/// Schedules of a purpose that are lowered and counted, after the bound has ranked all.
const FINALISTS: usize = 4;

/// Chooses the portfolio of an operator.
///
/// # Errors
/// [`SearchError`] where no schedule for many queries can run, with the numbers of the one that misses by least.
pub fn search(problem: &Problem<'_>, lowering: &Lowering<'_>) -> Result<Search, SearchError> {
    let mut found = Search {
        portfolio: Vec::new(),
        losers: Vec::new(),
    };
    let purposes: &[Purpose] = match (problem.target.tma, shared_tiers(problem.target).len()) {
        (true, _) => &[Purpose::Main, Purpose::Medium, Purpose::Short],
        (false, 0 | 1) => &[Purpose::Main, Purpose::Split],
        (false, _) => &[Purpose::Main, Purpose::SmallShared, Purpose::Split],
    };
    for &purpose in purposes {
        let first_loser = found.losers.len();
        if let Some(chosen) = choose(problem, lowering, purpose, &mut found) {
            if found.portfolio.iter().all(|c| c.schedule != chosen.schedule) {
                found.portfolio.push(chosen);
            }
        } else if purpose == Purpose::Main {
            return Err(nothing(problem, &found.losers[first_loser..]));
        }
    }
    // The unaligned form of what runs everywhere, which code for one architecture does not.
    let aligned = found
        .portfolio
        .iter()
        .find(|c| c.purpose == Purpose::SmallShared || c.footprint.shared <= SMALL_SHARED);
    if let Some(aligned) = aligned.or(found.portfolio.first())
        && !cases(problem, Purpose::Unaligned).is_empty()
    {
        let schedule = Schedule {
            access: problem.element_bytes,
            ..aligned.schedule
        };
        let (point, fits) = space::check(problem, schedule, Purpose::Unaligned);
        match fits.and_then(|()| finish(problem, lowering, Purpose::Unaligned, &point)) {
            Ok(chosen) => found.portfolio.push(chosen),
            Err(reason) => found.losers.push(Loser {
                purpose: Purpose::Unaligned,
                schedule,
                reason,
            }),
        }
    }
    found.portfolio.sort_by_key(|c| c.purpose);
    Ok(found)
}

/// A schedule that is nearly as good as the best for a purpose, and in the portfolio already, is taken: below this, the
/// model cannot tell, and every member makes artifacts larger.
const GAIN: f64 = 0.01;

/// The best schedule of a purpose; the others go to the losers.
fn choose(problem: &Problem<'_>, lowering: &Lowering<'_>, purpose: Purpose, found: &mut Search) -> Option<Chosen> {
    let Search { portfolio, losers } = found;
    let cases = cases(problem, purpose);
    let mut ranked: Vec<(f64, Point)> = Vec::new();
    for (point, fits) in space::enumerate(problem, purpose) {
        let schedule = point.schedule;
        match fits {
            Err(reason) => losers.push(Loser {
                purpose,
                schedule,
                reason,
            }),
            Ok(()) => match bound(problem, &point, &cases) {
                Ok(score) => ranked.push((score, point)),
                Err(reason) => losers.push(Loser {
                    purpose,
                    schedule,
                    reason,
                }),
            },
        }
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = ranked.first()?.0;
    // Members of other purposes are candidates whatever the bound says.
    let member = |point: &Point| portfolio.iter().any(|c| c.schedule == point.schedule);
    // The best by the bound whose kernels fit; what the kernel needs may be more than the bound said.
    let mut finalists: Vec<(f64, Chosen)> = Vec::new();
    for (score, point) in ranked {
        let reason = if finalists.len() >= FINALISTS && !member(&point) {
            Reason::BoundSlower((score - best).exp())
        } else {
            match finish(problem, lowering, purpose, &point) {
                Ok(chosen) => {
                    finalists.push((mean_log(chosen.predictions.iter().map(|p| p.ns)), chosen));
                    continue;
                }
                Err(reason) => reason,
            }
        };
        losers.push(Loser {
            purpose,
            schedule: point.schedule,
            reason,
        });
    }
    finalists.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = finalists.first()?.0;
    let taken = (finalists.iter())
        .position(|(score, c)| *score < best + GAIN && portfolio.iter().any(|p| p.schedule == c.schedule))
        .unwrap_or(0);
    let (_, chosen) = finalists.remove(taken);
    losers.extend(finalists.into_iter().map(|(score, c)| Loser {
        purpose,
        schedule: c.schedule,
        reason: Reason::Slower((score - best).exp()),
    }));
    Some(chosen)
}

/// The mean logarithm of the times that the bound on the graph predicts.
fn bound(problem: &Problem<'_>, point: &Point, cases: &[Case]) -> Result<f64, Reason> {
    let mut times = Vec::new();
    for case in cases {
        let (footprint, counts) = estimate::counts(problem, point, case);
        let unique = estimate::unique_bytes(problem, case);
        times.push(
            time(&footprint, &counts, unique, case.device)
                .ok_or_else(|| does_not_fit(&footprint, case))?
                .ns,
        );
    }
    Ok(mean_log(times.into_iter()))
}

/// Lowers a schedule, checks what the kernel occupies, and predicts its cases.
fn finish(problem: &Problem<'_>, lowering: &Lowering<'_>, purpose: Purpose, point: &Point) -> Result<Chosen, Reason> {
    let schedule = point.schedule;
    let kernel = (lowering.kernel)(&schedule).map_err(Reason::NoKernel)?;
    let footprint = Footprint::of(&kernel, cost::estimate_registers(&kernel));
    space::kernel_within(problem, point, &kernel, footprint.registers, purpose)?;
    let mut predictions = Vec::new();
    for case in cases(problem, purpose) {
        let counts = (lowering.count)(&schedule, &kernel, &case).map_err(|e| Reason::NoKernel(e.to_string()))?;
        let unique = estimate::unique_bytes(problem, &case);
        let t = time(&footprint, &counts, unique, case.device).ok_or_else(|| does_not_fit(&footprint, &case))?;
        predictions.push(Prediction {
            case,
            ns: t.ns,
            limit: t.limit,
            issued_bytes: counts.total.global_bytes(),
            dram_bytes: t.dram_bytes,
        });
    }
    Ok(Chosen {
        purpose,
        schedule,
        kernel,
        footprint,
        predictions,
    })
}

fn does_not_fit(footprint: &Footprint, case: &Case) -> Reason {
    Reason::Limit(Limit {
        what: "shared memory",
        given: footprint.shared.into(),
        limit: case.device.shared_per_cta.into(),
        unit: "bytes",
        target: case.device.name,
    })
}

fn mean_log(times: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = times.len().max(1) as f64;
    times.map(f64::ln).sum::<f64>() / n
}

/// Why nothing runs: the schedule that exceeds its limit by the smallest factor.
fn nothing(problem: &Problem<'_>, losers: &[Loser]) -> SearchError {
    let excess = |reason: &Reason| match reason {
        Reason::Limit(l) => l.given as f64 / l.limit.max(1) as f64,
        Reason::Multiple { .. } => 1e6,
        Reason::NoKernel(_) => 1.0,
        Reason::BoundSlower(_) | Reason::Slower(_) => 0.0,
    };
    let nearest = losers
        .iter()
        .min_by(|a, b| excess(&a.reason).total_cmp(&excess(&b.reason)));
    let nearest = nearest.expect("invariant: the enumeration is not empty, and everything in it lost");
    let pins: Vec<String> = ["block_m", "block_n", "warps", "stages"]
        .into_iter()
        .filter_map(|field| problem.pinned(field).map(|value| format!("{field} = {value}")))
        .collect();
    SearchError {
        target: problem.target.name,
        pins: pins.join(", "),
        nearest: Box::new(nearest.clone()),
    }
}

#[cfg(test)]
mod tests;
