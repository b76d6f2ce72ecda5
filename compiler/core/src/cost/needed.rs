//! Which values decide the counts of a role, and for how long each stays the same.
//!
//! The roots are trip counts, conditions, row limits and guards; what they depend on is needed, and nothing else. Needed
//! values that follow from the launch's arguments and the CTA's number alone are lifted out of the code.

use super::CostError;
use drawloom_kernel::ir::{Block, Effect, Loop, Op, Phi, Role, Stmt, Val};
use std::collections::{BTreeMap, BTreeSet};

/// The values of a role that decide its counts.
pub(super) struct Needed<'k> {
    /// All of them.
    pub values: BTreeSet<Val>,
    /// Those that are lifted.
    pub lifted: BTreeMap<Val, Scope>,
    /// Lifted values that are the same for all CTAs of a launch, in order of definition.
    pub launch: Vec<(Val, &'k Op)>,
    /// Lifted values that are the same for all warps of a CTA, in order of definition.
    pub cta: Vec<(Val, &'k Op)>,
}

/// For how long a value stays the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// For all CTAs.
    Launch,
    /// For all warps of a CTA.
    Cta,
}

/// Finds them.
///
/// # Errors
/// [`CostError::NotPipelined`] where a stream is left.
pub(super) fn needed(role: &Role) -> Result<Needed<'_>, CostError> {
    let mut defs = BTreeMap::new();
    let mut roots = Vec::new();
    survey(&role.body, &mut defs, &mut roots)?;
    let values = close(&defs, roots);

    let mut scopes = BTreeMap::new();
    for &v in &values {
        scope_of(v, &defs, &mut scopes);
    }
    let lifted: BTreeMap<Val, Scope> = scopes.into_iter().filter_map(|(v, s)| Some((v, s?))).collect();
    let mut found = Needed {
        values,
        lifted,
        launch: Vec::new(),
        cta: Vec::new(),
    };
    collect(&role.body, &mut found);
    Ok(found)
}

/// Gathers the lifted definitions in the order of the text.
fn collect<'k>(block: &'k Block, found: &mut Needed<'k>) {
    for stmt in &block.0 {
        match stmt {
            Stmt::Let { dst, op } => match found.lifted.get(dst) {
                Some(Scope::Launch) => found.launch.push((*dst, op)),
                Some(Scope::Cta) => found.cta.push((*dst, op)),
                None => {}
            },
            Stmt::Loop(l) => collect(&l.body, found),
            Stmt::If(i) => {
                collect(&i.then, found);
                collect(&i.otherwise, found);
            }
            Stmt::Do(_) | Stmt::Stream(_) => {}
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Def<'k> {
    Op(&'k Op),
    Counter,
    Arg(&'k Loop, usize),
    Result(&'k Loop, usize),
    Phi(&'k Phi),
}

/// Records definitions, and the values that decide counts.
fn survey<'k>(block: &'k Block, defs: &mut BTreeMap<Val, Def<'k>>, roots: &mut Vec<Val>) -> Result<(), CostError> {
    for stmt in &block.0 {
        match stmt {
            Stmt::Let { dst, op } => {
                defs.insert(*dst, Def::Op(op));
                if let Op::LoadGlobal { guard, .. } = op {
                    roots.extend(guard);
                }
            }
            Stmt::Do(effect) => match effect {
                Effect::Copy { src: tile, .. }
                | Effect::StoreTile { dst: tile, .. }
                | Effect::TmaStore { dst: tile, .. } => {
                    roots.extend([tile.first_row, tile.row_limit]);
                }
                Effect::StoreGlobal { guard, .. } => roots.extend(guard),
                Effect::CommitGroup
                | Effect::WaitGroup { .. }
                | Effect::Barrier { .. }
                | Effect::BarrierArrive { .. }
                | Effect::MbarArrive { .. }
                | Effect::MbarExpect { .. }
                | Effect::MbarWait { .. }
                | Effect::FenceProxyAsync
                | Effect::MmaFence
                | Effect::MmaCommit
                | Effect::StoreShared { .. }
                | Effect::TmaStoreWait { .. }
                | Effect::SetRegisters { .. }
                | Effect::Assert { .. } => {}
            },
            Stmt::Loop(l) => {
                defs.insert(l.var, Def::Counter);
                for (i, c) in l.carried.iter().enumerate() {
                    defs.insert(c.arg, Def::Arg(l, i));
                    defs.insert(c.result, Def::Result(l, i));
                }
                roots.extend([l.lo, l.hi]);
                survey(&l.body, defs, roots)?;
            }
            Stmt::If(i) => {
                roots.push(i.cond);
                for p in &i.results {
                    defs.insert(p.result, Def::Phi(p));
                }
                survey(&i.then, defs, roots)?;
                survey(&i.otherwise, defs, roots)?;
            }
            Stmt::Stream(_) => return Err(CostError::NotPipelined),
        }
    }
    Ok(())
}

/// Everything that the roots depend on.
fn close(defs: &BTreeMap<Val, Def<'_>>, mut work: Vec<Val>) -> BTreeSet<Val> {
    let mut needed = BTreeSet::new();
    while let Some(v) = work.pop() {
        if !needed.insert(v) {
            continue;
        }
        match defs.get(&v) {
            Some(Def::Op(op)) => work.extend(operands(op)),
            Some(Def::Arg(l, i) | Def::Result(l, i)) => {
                let c = &l.carried[*i];
                work.extend([c.arg, c.init, c.next]);
            }
            Some(Def::Phi(p)) => work.extend([p.then, p.otherwise]),
            Some(Def::Counter) | None => {}
        }
    }
    needed
}

/// The values that an evaluable operation reads. The others yield values that are not followed.
pub(super) fn operands(op: &Op) -> Vec<Val> {
    match op {
        Op::Map(_, args) => args.clone(),
        Op::Reduce(_, of) => vec![*of],
        Op::LoadGlobal { at, guard, .. } => at.iter().copied().chain(*guard).collect(),
        Op::ConstF(_)
        | Op::ConstI(_)
        | Op::Param(_)
        | Op::Cta
        | Op::WarpInRole
        | Op::RowIota
        | Op::ColIota
        | Op::Any(_)
        | Op::Mma { .. }
        | Op::MmaAsync { .. }
        | Op::MmaWait { .. }
        | Op::LoadShared(_) => Vec::new(),
    }
}

/// The scope of a value that is lifted; `None` for one that a warp computes.
fn scope_of(v: Val, defs: &BTreeMap<Val, Def<'_>>, known: &mut BTreeMap<Val, Option<Scope>>) -> Option<Scope> {
    if let Some(s) = known.get(&v) {
        return *s;
    }
    let scope = match defs.get(&v) {
        Some(Def::Op(op)) => match op {
            Op::ConstF(_) | Op::ConstI(_) | Op::Param(_) | Op::RowIota | Op::ColIota => Some(Scope::Launch),
            Op::Cta => Some(Scope::Cta),
            Op::Map(_, args) => args
                .iter()
                .map(|&a| scope_of(a, defs, known))
                .try_fold(Scope::Launch, |widest, s| s.map(|s| widest.max(s))),
            Op::WarpInRole
            | Op::Reduce(..)
            | Op::Any(_)
            | Op::Mma { .. }
            | Op::MmaAsync { .. }
            | Op::MmaWait { .. }
            | Op::LoadGlobal { .. }
            | Op::LoadShared(_) => None,
        },
        Some(Def::Counter | Def::Arg(..) | Def::Result(..) | Def::Phi(_)) | None => None,
    };
    known.insert(v, scope);
    scope
}
