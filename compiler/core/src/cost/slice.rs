//! Cuts a kernel down to what decides its counts.
//!
//! A count depends on trip counts, branch conditions, row limits and access guards, and on nothing else; these depend
//! on a small part of the values. The slice keeps that part, as [`Node`]s, and folds everything else, a product or a
//! softmax, into one constant [`Work`] per block. Values that depend on nothing but the launch and the CTA are lifted
//! out of the code: the rest of the walk is a function of the few of them that it reads, which is what lets CTAs of
//! equal cost be walked once.

use super::CostError;
use super::work::{self, Work};
use drawloom_kernel::ir::{
    Block, CopyKind, Effect, Frag, GlobalTile, If, Kernel, Loop, Op, ParamId, Phi, Role, SharedView, Stmt, Val,
};
use std::collections::{BTreeMap, BTreeSet};

/// The slice of one role.
pub(super) struct RoleSlice<'k> {
    /// Warps of the role.
    pub warps: u32,
    /// Values that are the same for all CTAs of a launch, in order of definition.
    pub launch: Vec<(Val, &'k Op)>,
    /// Values that are the same for all warps of a CTA, in order of definition.
    pub cta: Vec<(Val, &'k Op)>,
    /// Those of `cta` that the code reads: CTAs that agree on them cost the same.
    pub keys: Vec<Val>,
    /// What a warp does.
    pub code: Code<'k>,
}

/// A block: constant work, and what must be walked.
pub(super) struct Code<'k> {
    /// Work of every execution.
    pub fixed: Work,
    /// The rest, in program order.
    pub nodes: Vec<Node<'k>>,
}

/// The shape and size of an element-wise access.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    /// Tensor.
    pub tensor: ParamId,
    /// Where the access happens; `None`: everywhere.
    pub guard: Option<Val>,
    /// Type of the fragment.
    pub ty: Frag,
    /// Bytes of an element in memory.
    pub bytes: u32,
}

/// Who counts a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CountedBy {
    /// Every warp that executes it (an engine's copy).
    EachWarp,
    /// The role's first warp, for all warps that share the copy.
    FirstWarp,
}

/// Direction of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From global memory.
    Read,
    /// To global memory.
    Write,
}

/// A step of the walk.
pub(super) enum Node<'k> {
    /// Evaluate.
    Let(Val, &'k Op),
    /// Count the elements of an access whose guard holds.
    Elements(Elements, Direction),
    /// Count the rows of a tile that exist.
    Tile {
        /// The tile.
        tile: &'k GlobalTile,
        /// Bytes of a row.
        row_bytes: u64,
        /// Bytes of the window in shared memory.
        shared: u64,
        /// Direction.
        direction: Direction,
        /// Who counts it.
        by: CountedBy,
    },
    /// Repeat.
    Loop {
        /// The loop.
        of: &'k Loop,
        /// Number of the loop in its kernel.
        id: u32,
        /// Its body, with the work of a loop step.
        body: Code<'k>,
        /// Positions of the carried values that are followed.
        carried: Vec<usize>,
        /// Values from outside that the body reads and that are not the same for the whole launch.
        free: Vec<Val>,
    },
    /// Choose.
    If {
        /// The condition.
        cond: Val,
        /// Where it holds.
        then: Code<'k>,
        /// Where it does not.
        otherwise: Code<'k>,
        /// The results that are followed.
        results: Vec<&'k Phi>,
    },
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

/// Slices every role of a kernel.
///
/// # Errors
/// [`CostError::NotPipelined`] where a stream is left: counts are those of the final kernel.
pub(super) fn slice(kernel: &Kernel) -> Result<Vec<RoleSlice<'_>>, CostError> {
    let mut loops = 0;
    kernel
        .roles
        .iter()
        .map(|role| slice_role(kernel, role, &mut loops))
        .collect()
}

fn slice_role<'k>(kernel: &'k Kernel, role: &'k Role, loops: &mut u32) -> Result<RoleSlice<'k>, CostError> {
    let mut defs = BTreeMap::new();
    let mut roots = Vec::new();
    survey(&role.body, &mut defs, &mut roots)?;
    let needed = close(&defs, roots);

    // Two prefixes of the definitions, in order: what is constant in a launch, and in a CTA.
    let (mut launch, mut cta) = (Vec::new(), Vec::new());
    let mut scope = BTreeMap::new();
    for &v in &needed {
        if let Some(s) = scope_of(v, &defs, &mut scope) {
            let Some(Def::Op(op)) = defs.get(&v) else { continue };
            match s {
                Scope::Launch => launch.push((v, *op)),
                Scope::Cta => cta.push((v, *op)),
            }
        }
    }
    let order = definition_order(&role.body);
    let at = |v: &Val| order.get(v).copied().unwrap_or(u32::MAX);
    launch.sort_by_key(|(v, _)| at(v));
    cta.sort_by_key(|(v, _)| at(v));

    let mut cut = Cutter {
        kernel,
        warps: role.warps,
        needed: &needed,
        scope: &scope,
        loops,
    };
    let code = cut.block(&role.body)?;
    let keys = free(&code)
        .into_iter()
        .filter(|v| scope.get(v) == Some(&Some(Scope::Cta)))
        .collect();
    Ok(RoleSlice {
        warps: role.warps,
        launch,
        cta,
        keys,
        code,
    })
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
fn operands(op: &Op) -> Vec<Val> {
    match op {
        Op::Map(_, args) => args.clone(),
        Op::LoadGlobal { at, guard, .. } => at.iter().copied().chain(*guard).collect(),
        Op::ConstF(_)
        | Op::ConstI(_)
        | Op::Param(_)
        | Op::Cta
        | Op::WarpInRole
        | Op::RowIota
        | Op::ColIota
        | Op::Reduce(..)
        | Op::Mma { .. }
        | Op::MmaAsync { .. }
        | Op::MmaWait { .. }
        | Op::LoadShared(_) => Vec::new(),
    }
}

/// For how long a value stays the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// For all CTAs.
    Launch,
    /// For all warps of a CTA.
    Cta,
}

/// The scope of a value that is lifted; `None` for one that a warp computes.
fn scope_of(v: Val, defs: &BTreeMap<Val, Def<'_>>, known: &mut BTreeMap<Val, Option<Scope>>) -> Option<Scope> {
    if let Some(s) = known.get(&v) {
        return *s;
    }
    let scope = match defs.get(&v) {
        Some(Def::Op(op)) => match op {
            Op::ConstI(_) | Op::Param(_) | Op::RowIota | Op::ColIota => Some(Scope::Launch),
            Op::Cta => Some(Scope::Cta),
            Op::Map(_, args) => args
                .iter()
                .map(|&a| scope_of(a, defs, known))
                .try_fold(Scope::Launch, |widest, s| s.map(|s| widest.max(s))),
            Op::ConstF(_)
            | Op::WarpInRole
            | Op::Reduce(..)
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

/// The position of each value's definition in the text of a block.
fn definition_order(block: &Block) -> BTreeMap<Val, u32> {
    fn visit(block: &Block, order: &mut BTreeMap<Val, u32>) {
        for stmt in &block.0 {
            match stmt {
                Stmt::Let { dst, .. } => {
                    let n = order.len() as u32;
                    order.insert(*dst, n);
                }
                Stmt::Loop(l) => visit(&l.body, order),
                Stmt::If(i) => {
                    visit(&i.then, order);
                    visit(&i.otherwise, order);
                }
                Stmt::Do(_) | Stmt::Stream(_) => {}
            }
        }
    }
    let mut order = BTreeMap::new();
    visit(block, &mut order);
    order
}

/// Cuts the blocks of one role.
struct Cutter<'k, 'a> {
    kernel: &'k Kernel,
    warps: u32,
    needed: &'a BTreeSet<Val>,
    scope: &'a BTreeMap<Val, Option<Scope>>,
    loops: &'a mut u32,
}

/// Work of a loop step: count, compare, branch.
const LOOP_ISSUE_MILLI: u64 = 3000;

impl<'k> Cutter<'k, '_> {
    fn lifted(&self, v: Val) -> bool {
        matches!(self.scope.get(&v), Some(Some(_)))
    }

    fn block(&mut self, block: &'k Block) -> Result<Code<'k>, CostError> {
        let kernel = self.kernel;
        let mut code = Code {
            fixed: Work::none(kernel.params.len()),
            nodes: Vec::new(),
        };
        for stmt in &block.0 {
            match stmt {
                Stmt::Let { dst, op } => {
                    code.fixed.add(&work::of_op(kernel, *dst, op), 1);
                    if let Op::LoadGlobal { tensor, guard, .. } = op {
                        let ty = kernel.ty(*dst);
                        let access = Elements {
                            tensor: *tensor,
                            guard: *guard,
                            ty,
                            bytes: ty.dtype.bytes(),
                        };
                        code.elements(access, Direction::Read);
                    }
                    if self.needed.contains(dst) && !self.lifted(*dst) {
                        code.nodes.push(Node::Let(*dst, op));
                    }
                }
                Stmt::Do(effect) => {
                    code.fixed.add(&work::of_effect(kernel, effect, self.warps), 1);
                    code.effect(kernel, effect);
                }
                Stmt::Loop(l) => {
                    *self.loops += 1;
                    let id = *self.loops;
                    let mut body = self.block(&l.body)?;
                    body.fixed.issue_milli += LOOP_ISSUE_MILLI;
                    let carried: Vec<usize> = (0..l.carried.len())
                        .filter(|&i| self.needed.contains(&l.carried[i].arg))
                        .collect();
                    let constant = |v: &Val| self.scope.get(v) == Some(&Some(Scope::Launch));
                    let free = free_of_loop(l, &body, &carried)
                        .into_iter()
                        .filter(|v| !constant(v))
                        .collect();
                    code.nodes.push(Node::Loop {
                        of: l,
                        id,
                        body,
                        carried,
                        free,
                    });
                }
                Stmt::If(i) => {
                    code.fixed.issue_milli += 1000;
                    let then = self.block(&i.then)?;
                    let otherwise = self.block(&i.otherwise)?;
                    let results = i.results.iter().filter(|p| self.needed.contains(&p.result)).collect();
                    code.branch(i, then, otherwise, results);
                }
                Stmt::Stream(_) => return Err(CostError::NotPipelined),
            }
        }
        Ok(code)
    }
}

impl<'k> Code<'k> {
    /// An element-wise access: constant work if nothing guards it.
    fn elements(&mut self, access: Elements, direction: Direction) {
        if access.guard.is_some() {
            self.nodes.push(Node::Elements(access, direction));
            return;
        }
        let bytes = u64::from(access.ty.rows) * u64::from(access.ty.cols) * u64::from(access.bytes);
        match direction {
            Direction::Read => self.fixed.read[access.tensor.index()] += bytes,
            Direction::Write => self.fixed.written[access.tensor.index()] += bytes,
        }
    }

    fn effect(&mut self, kernel: &Kernel, effect: &'k Effect) {
        let mut tile = |tile: &'k GlobalTile, view: &SharedView, direction, by| {
            let size = u64::from(kernel.buffers[view.buf.index()].dtype.bytes());
            let row_bytes = u64::from(tile.cols) * size;
            let shared = u64::from(view.rows) * u64::from(view.cols) * size;
            self.nodes.push(Node::Tile {
                tile,
                row_bytes,
                shared,
                direction,
                by,
            });
        };
        match effect {
            Effect::Copy { kind, src, dst } => {
                let by = match kind {
                    CopyKind::Sync { .. } | CopyKind::CpAsync { .. } => CountedBy::FirstWarp,
                    CopyKind::Tma { .. } => CountedBy::EachWarp,
                };
                tile(src, dst, Direction::Read, by);
            }
            Effect::StoreTile { src, dst, .. } => tile(dst, src, Direction::Write, CountedBy::FirstWarp),
            Effect::TmaStore { src, dst } => tile(dst, src, Direction::Write, CountedBy::EachWarp),
            Effect::StoreGlobal {
                tensor, guard, value, ..
            } => {
                let ty = kernel.ty(*value);
                let access = Elements {
                    tensor: *tensor,
                    guard: *guard,
                    ty,
                    bytes: ty.dtype.bytes(),
                };
                self.elements(access, Direction::Write);
            }
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
        }
    }

    /// A branch: constant work if both sides cost the same and nothing is followed through it.
    fn branch(&mut self, of: &'k If, then: Code<'k>, otherwise: Code<'k>, results: Vec<&'k Phi>) {
        let same = then.nodes.is_empty() && otherwise.nodes.is_empty() && then.fixed == otherwise.fixed;
        if same && results.is_empty() {
            self.fixed.add(&then.fixed, 1);
        } else {
            self.nodes.push(Node::If {
                cond: of.cond,
                then,
                otherwise,
                results,
            });
        }
    }
}

/// Values that a walk of the code reads from outside.
fn free(code: &Code<'_>) -> BTreeSet<Val> {
    let mut uses = BTreeSet::new();
    let mut defs = BTreeSet::new();
    for node in &code.nodes {
        match node {
            Node::Let(dst, op) => {
                uses.extend(operands(op).into_iter().filter(|v| !defs.contains(v)));
                defs.insert(*dst);
            }
            Node::Elements(access, _) => uses.extend(access.guard.filter(|v| !defs.contains(v))),
            Node::Tile { tile, .. } => {
                uses.extend(
                    [tile.first_row, tile.row_limit]
                        .into_iter()
                        .filter(|v| !defs.contains(v)),
                );
            }
            Node::Loop { of, body, carried, .. } => {
                let mut inner = free_of_loop(of, body, carried);
                inner.extend([of.lo, of.hi]);
                inner.extend(carried.iter().map(|&i| of.carried[i].init));
                uses.extend(inner.into_iter().filter(|v| !defs.contains(v)));
                defs.extend(carried.iter().map(|&i| of.carried[i].result));
            }
            Node::If {
                cond,
                then,
                otherwise,
                results,
            } => {
                let mut inner = free(then);
                inner.extend(free(otherwise));
                let (yes, no) = (defined(then), defined(otherwise));
                inner.extend(results.iter().map(|p| p.then).filter(|v| !yes.contains(v)));
                inner.extend(results.iter().map(|p| p.otherwise).filter(|v| !no.contains(v)));
                inner.insert(*cond);
                uses.extend(inner.into_iter().filter(|v| !defs.contains(v)));
                defs.extend(results.iter().map(|p| p.result));
            }
        }
    }
    uses
}

/// Values that one iteration reads from outside the loop.
fn free_of_loop(of: &Loop, body: &Code<'_>, carried: &[usize]) -> BTreeSet<Val> {
    let mut outer = free(body);
    let inner = defined(body);
    outer.extend(
        carried
            .iter()
            .map(|&i| of.carried[i].next)
            .filter(|v| !inner.contains(v)),
    );
    outer.remove(&of.var);
    for c in &of.carried {
        outer.remove(&c.arg);
    }
    outer
}

/// Values that the top level of the code defines.
fn defined(code: &Code<'_>) -> BTreeSet<Val> {
    let mut defs = BTreeSet::new();
    for node in &code.nodes {
        match node {
            Node::Let(dst, _) => {
                defs.insert(*dst);
            }
            Node::Elements(..) | Node::Tile { .. } => {}
            Node::Loop { of, carried, .. } => defs.extend(carried.iter().map(|&i| of.carried[i].result)),
            Node::If { results, .. } => defs.extend(results.iter().map(|p| p.result)),
        }
    }
    defs
}
