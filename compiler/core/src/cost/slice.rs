//! Cuts a kernel down to what decides its counts.
//!
//! A count depends on trip counts, branch conditions, row limits and access guards, and on nothing else; these depend
//! on a small part of the values. The slice keeps that part, as [`Node`]s, and folds everything else, a product or a
//! softmax, into one constant [`Work`] per block. Values that depend on nothing but the launch and the CTA are lifted
//! out of the code: the rest of the walk is a function of the few of them that it reads, which is what lets CTAs of
//! equal cost be walked once.

use super::CostError;
use super::needed::{Needed, Scope, needed, operands};
use super::work::{self, Work};
use drawloom_kernel::ir::{
    Block, CopyKind, Effect, Frag, GlobalTile, If, Kernel, Loop, Op, ParamId, Phi, Role, SharedView, Stmt, Val,
};
use std::collections::BTreeSet;

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

/// What decides a step of a loop, and what it decides.
pub(super) struct Remembered {
    /// Values that the body reads and that are not the same for the whole launch.
    pub reads: Vec<Val>,
    /// Carried values that it computes.
    pub writes: Vec<Val>,
}

/// A loop.
pub(super) struct Repeat<'k> {
    /// The loop.
    pub of: &'k Loop,
    /// Its number in the kernel.
    pub id: u32,
    /// What a step evaluates before the rest of it.
    pub head: Vec<(Val, &'k Op)>,
    /// Its body without them, with the work of a loop step.
    pub body: Code<'k>,
    /// Where the body takes long, what decides it: steps that agree do the same.
    pub remembered: Option<Remembered>,
    /// Positions of the carried values that are followed.
    pub carried: Vec<usize>,
    /// Values from outside that the body reads and that are not the same for the whole launch.
    pub free: Vec<Val>,
    /// Whether the body asks which warp runs it.
    pub by_warp: bool,
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
    Loop(Repeat<'k>),
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
    let needed = needed(role)?;
    let mut cut = Cutter {
        kernel,
        warps: role.warps,
        needed: &needed,
        loops,
    };
    let code = cut.block(&role.body)?;
    let keys = free(&code)
        .into_iter()
        .filter(|v| needed.lifted.get(v) == Some(&Scope::Cta))
        .collect();
    Ok(RoleSlice {
        warps: role.warps,
        launch: needed.launch,
        cta: needed.cta,
        keys,
        code,
    })
}

/// Cuts the blocks of one role.
struct Cutter<'k, 'a> {
    kernel: &'k Kernel,
    warps: u32,
    needed: &'a Needed<'k>,
    loops: &'a mut u32,
}

/// Work of a loop step: count, compare, branch.
const LOOP_ISSUE_MILLI: u64 = 3000;

impl<'k> Cutter<'k, '_> {
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
                    if self.needed.values.contains(dst) && !self.needed.lifted.contains_key(dst) {
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
                        .filter(|&i| self.needed.values.contains(&l.carried[i].arg))
                        .collect();
                    let constant = |v: &Val| self.needed.lifted.get(v) == Some(&Scope::Launch);
                    let outer = free_of_loop(l, &body, &carried)
                        .into_iter()
                        .filter(|v| !constant(v))
                        .collect();
                    let by_warp = asks_for_warp(&body);
                    let head = self.take_head(&mut body);
                    let remembered = is_long(&body).then(|| {
                        let reads = free(&body).into_iter().filter(|v| !constant(v)).collect();
                        let inner = defined(&body);
                        let next = carried.iter().map(|&i| l.carried[i].next);
                        let writes = next.filter(|v| inner.contains(v)).collect();
                        Remembered { reads, writes }
                    });
                    code.nodes.push(Node::Loop(Repeat {
                        of: l,
                        id,
                        head,
                        body,
                        remembered,
                        carried,
                        free: outer,
                        by_warp,
                    }));
                }
                Stmt::If(i) => {
                    code.fixed.issue_milli += 1000;
                    let then = self.block(&i.then)?;
                    let otherwise = self.block(&i.otherwise)?;
                    let results = i
                        .results
                        .iter()
                        .filter(|p| self.needed.values.contains(&p.result))
                        .collect();
                    code.branch(i, then, otherwise, results);
                }
                Stmt::Stream(_) => return Err(CostError::NotPipelined),
            }
        }
        Ok(code)
    }

    /// Takes the scalars out of a loop's body that follow from its counter, what it carries and what stands around it: the
    /// rest often reads few of them, a query tile's place in the sequence for one, and not its head.
    fn take_head(&self, body: &mut Code<'k>) -> Vec<(Val, &'k Op)> {
        let mut late = BTreeSet::new();
        let (head, rest) = std::mem::take(&mut body.nodes)
            .into_iter()
            .partition(|node| match node {
                Node::Let(dst, op @ Op::Map(..)) => {
                    let scalar = self.kernel.ty(*dst).rows * self.kernel.ty(*dst).cols == 1;
                    let early = scalar && operands(op).iter().all(|v| !late.contains(v));
                    if !early {
                        late.insert(*dst);
                    }
                    early
                }
                other => {
                    late.extend(results(other));
                    false
                }
            });
        body.nodes = rest;
        let head: Vec<Node<'k>> = head;
        (head.into_iter())
            .filter_map(|node| match node {
                Node::Let(dst, op) => Some((dst, op)),
                _ => None,
            })
            .collect()
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

/// Whether a walk of the code takes long enough to be remembered.
fn is_long(code: &Code<'_>) -> bool {
    code.nodes.iter().any(|node| match node {
        Node::Let(_, op) => matches!(op, Op::LoadGlobal { .. } | Op::Reduce(..)),
        Node::Elements(..) | Node::Tile { .. } => false,
        Node::Loop(_) => true,
        Node::If { then, otherwise, .. } => is_long(then) || is_long(otherwise),
    })
}

/// Whether the walk of the code depends on the number of the warp beyond whether it is the first.
fn asks_for_warp(code: &Code<'_>) -> bool {
    code.nodes.iter().any(|node| match node {
        Node::Let(_, op) => matches!(op, Op::WarpInRole),
        Node::Elements(..) | Node::Tile { .. } => false,
        Node::Loop(repeat) => repeat.by_warp,
        Node::If { then, otherwise, .. } => asks_for_warp(then) || asks_for_warp(otherwise),
    })
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
            Node::Loop(Repeat { of, free, carried, .. }) => {
                let mut inner: BTreeSet<Val> = free.iter().copied().collect();
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
    code.nodes.iter().flat_map(results).collect()
}

/// Values that a node defines for those behind it.
fn results(node: &Node<'_>) -> Vec<Val> {
    match node {
        Node::Let(dst, _) => vec![*dst],
        Node::Elements(..) | Node::Tile { .. } => Vec::new(),
        Node::Loop(Repeat { of, carried, .. }) => carried.iter().map(|&i| of.carried[i].result).collect(),
        Node::If { results, .. } => results.iter().map(|p| p.result).collect(),
    }
}
