//! Axes and type of an operation, from its operands.
//!
//! The one place that knows the rules of [`Op`]: the builder takes its answers, the verifier compares with them. It is
//! total: for an operation that breaks the rules it says what is wrong and gives the nearest sensible answer.

use crate::ir::{Axis, Binary, Graph, Mode, Node, Op, Reduce, Size, Ty, Unary, Val};
use std::collections::BTreeSet;

/// What an operation is.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// Axes, ascending.
    pub axes: Vec<Axis>,
    /// Type; `None` where the operation does not say (inputs, scalars).
    pub ty: Option<Ty>,
    /// Broken rules.
    pub problems: Vec<String>,
}

/// Whether two axes have provably one size.
pub fn same_size(g: &Graph, a: Axis, b: Axis) -> bool {
    let (a, b) = (root(g, a), root(g, b));
    if a == b {
        return true;
    }
    match (
        g.axes.get(a.index()).map(|d| &d.size),
        g.axes.get(b.index()).map(|d| &d.size),
    ) {
        (Some(Size::Const(m)), Some(Size::Const(n))) => m == n,
        (Some(Size::CeilDiv { of: m, by: p }), Some(Size::CeilDiv { of: n, by: q })) => p == q && same_size(g, *m, *n),
        _ => false,
    }
}

/// The axis that gives `a` its size, through [`Size::Same`].
pub fn root(g: &Graph, a: Axis) -> Axis {
    match g.axes.get(a.index()).map(|d| &d.size) {
        // Sizes refer to earlier axes only, so this ends; a graph that breaks the rule is cut short.
        Some(&Size::Same(b)) if b < a => root(g, b),
        _ => a,
    }
}

struct Rules<'g> {
    g: &'g Graph,
    problems: Vec<String>,
}

/// Infers the axes and type of an operation whose operands are in the graph.
pub fn infer(g: &Graph, op: &Op) -> Inferred {
    let mut rules = Rules {
        g,
        problems: Vec::new(),
    };
    let (axes, ty) = rules.op(op);
    Inferred {
        axes: axes.into_iter().collect(),
        ty,
        problems: rules.problems,
    }
}

type Found = (BTreeSet<Axis>, Option<Ty>);

impl Rules<'_> {
    fn node(&mut self, v: Val) -> Node {
        match self.g.nodes.get(v.index()) {
            Some(node) => node.clone(),
            None => {
                self.problems.push(format!("{v} is no value"));
                Node {
                    op: Op::Real(0.0),
                    axes: Vec::new(),
                    ty: Ty::Real,
                }
            }
        }
    }

    fn name(&self, a: Axis) -> String {
        self.g
            .axes
            .get(a.index())
            .map_or_else(|| a.to_string(), |d| d.name.clone())
    }

    fn known(&mut self, a: Axis) {
        if a.index() >= self.g.axes.len() {
            self.problems.push(format!("{a} is no axis"));
        }
    }

    fn require(&mut self, holds: bool, problem: impl FnOnce(&Self) -> String) {
        if !holds {
            let problem = problem(self);
            self.problems.push(problem);
        }
    }

    fn expect(&mut self, v: Val, found: Ty, allowed: &[Ty]) {
        self.require(allowed.contains(&found), |_| {
            let allowed: Vec<&str> = allowed.iter().map(|&t| ty_name(t)).collect();
            format!("{v} is {}, expected {}", ty_name(found), allowed.join(" or "))
        });
    }

    fn has(&mut self, v: Val, axes: &BTreeSet<Axis>, axis: Axis) {
        self.require(axes.contains(&axis), |r| format!("{v} has no axis `{}`", r.name(axis)));
    }

    fn distinct(&mut self, axes: &[Axis]) {
        let set: BTreeSet<Axis> = axes.iter().copied().collect();
        self.require(set.len() == axes.len(), |_| "an axis is named twice".to_owned());
    }

    fn op(&mut self, op: &Op) -> Found {
        let none = BTreeSet::new;
        match op {
            Op::Real(_) => (none(), Some(Ty::Real)),
            Op::Int(_) => (none(), Some(Ty::Int)),
            Op::Bool(_) => (none(), Some(Ty::Bool)),
            Op::Input { axes, .. } => {
                for &a in axes {
                    self.known(a);
                }
                self.distinct(axes);
                (axes.iter().copied().collect(), None)
            }
            Op::Scalar(_) => (none(), None),
            Op::Index(a) => {
                self.known(*a);
                ([*a].into(), Some(Ty::Int))
            }
            Op::Len(a) => {
                self.known(*a);
                (none(), Some(Ty::Int))
            }
            Op::Unary(op, a) => self.unary(*op, *a),
            Op::Binary(op, a, b) => self.binary(*op, *a, *b),
            Op::Select(c, a, b) => {
                let (cond, x, y) = (self.node(*c), self.node(*a), self.node(*b));
                self.expect(*c, cond.ty, &[Ty::Bool]);
                self.expect(*b, y.ty, &[x.ty]);
                (cond.axes.into_iter().chain(x.axes).chain(y.axes).collect(), Some(x.ty))
            }
            Op::Rename { of, from, to } => {
                let (mut axes, ty) = self.read(*of);
                self.known(*to);
                self.has(*of, &axes, *from);
                axes.remove(from);
                self.require(!axes.contains(to), |r| {
                    format!("{of} has axis `{}` already", r.name(*to))
                });
                let same = same_size(self.g, *from, *to);
                self.require(same, |r| {
                    format!("axes `{}` and `{}` may differ in size", r.name(*from), r.name(*to))
                });
                axes.insert(*to);
                (axes, Some(ty))
            }
            Op::Contract { a, b, over } => {
                let ((x, tx), (y, ty)) = (self.read(*a), self.read(*b));
                self.expect(*a, tx, &[Ty::Real]);
                self.expect(*b, ty, &[Ty::Real]);
                self.distinct(over);
                let mut axes: BTreeSet<Axis> = x.union(&y).copied().collect();
                for axis in over {
                    let known = axes.remove(axis);
                    self.require(known, |r| format!("neither {a} nor {b} has axis `{}`", r.name(*axis)));
                }
                (axes, Some(Ty::Real))
            }
            Op::Reduce { op, of, over } => {
                let (mut axes, ty) = self.read(*of);
                let allowed: &[Ty] = match op {
                    Reduce::Sum | Reduce::Max | Reduce::Min => &[Ty::Real, Ty::Int],
                    Reduce::Mean => &[Ty::Real],
                };
                self.expect(*of, ty, allowed);
                self.distinct(over);
                for axis in over {
                    self.has(*of, &axes, *axis);
                    axes.remove(axis);
                }
                (axes, Some(ty))
            }
            Op::Gather { of, at, .. } => {
                let (mut axes, ty) = self.read(*of);
                let moved: Vec<Axis> = at.iter().map(|&(a, _)| a).collect();
                self.distinct(&moved);
                for axis in &moved {
                    self.has(*of, &axes, *axis);
                    axes.remove(axis);
                }
                for &(_, index) in at {
                    let (found, ty) = self.read(index);
                    self.expect(index, ty, &[Ty::Int]);
                    axes.extend(found);
                }
                (axes, Some(ty))
            }
            Op::TopK { of, over, rank, .. } => {
                let (mut axes, ty) = self.read(*of);
                self.expect(*of, ty, &[Ty::Real, Ty::Int]);
                self.has(*of, &axes, *over);
                axes.remove(over);
                self.known(*rank);
                let constant = matches!(self.g.axes.get(rank.index()).map(|d| &d.size), Some(Size::Const(_)));
                self.require(constant, |r| {
                    format!("axis `{}` of a top-k has no constant size", r.name(*rank))
                });
                self.require(!axes.contains(rank), |r| {
                    format!("{of} has axis `{}` already", r.name(*rank))
                });
                axes.insert(*rank);
                (axes, Some(Ty::Int))
            }
            Op::TriSolve { a, b, row, col } => {
                let ((mut axes, tx), (rhs, ty)) = (self.read(*a), self.read(*b));
                self.expect(*a, tx, &[Ty::Real]);
                self.expect(*b, ty, &[Ty::Real]);
                self.require(row != col, |_| "row and column are one axis".to_owned());
                self.has(*a, &axes, *row);
                self.has(*a, &axes, *col);
                self.has(*b, &rhs, *row);
                self.require(!rhs.contains(col), |r| {
                    format!("{b} has the column axis `{}`", r.name(*col))
                });
                let same = same_size(self.g, *row, *col);
                self.require(same, |r| {
                    format!("axes `{}` and `{}` may differ in size", r.name(*row), r.name(*col))
                });
                axes.remove(col);
                axes.extend(rhs);
                (axes, Some(Ty::Real))
            }
            Op::Hole { fold, comp, .. } | Op::Get { fold, comp } => {
                let g = self.g;
                let Some((fold, comp)) = g
                    .folds
                    .get(fold.index())
                    .and_then(|f| f.comps.get(*comp as usize).map(|c| (f, c)))
                else {
                    self.problems.push(format!("{fold} has no component {comp}"));
                    return (none(), Some(Ty::Real));
                };
                let mut axes: BTreeSet<Axis> = comp.axes.iter().copied().collect();
                if matches!(op, Op::Get { .. }) {
                    match fold.mode {
                        Mode::Reduce => {}
                        Mode::Inclusive | Mode::Exclusive => axes.extend(fold.axes()),
                    }
                }
                let ty = self.g.nodes.get(comp.init.index()).map(|n| n.ty);
                (axes, ty)
            }
        }
    }

    fn read(&mut self, v: Val) -> (BTreeSet<Axis>, Ty) {
        let node = self.node(v);
        (node.axes.into_iter().collect(), node.ty)
    }

    fn unary(&mut self, op: Unary, a: Val) -> Found {
        let (axes, ty) = self.read(a);
        let (allowed, result): (&[Ty], Ty) = match op {
            Unary::Neg | Unary::Abs | Unary::Sign => (&[Ty::Real, Ty::Int], ty),
            Unary::Not => (&[Ty::Bool], Ty::Bool),
            Unary::Exp
            | Unary::Log
            | Unary::Tanh
            | Unary::Sqrt
            | Unary::Rsqrt
            | Unary::Recip
            | Unary::Sin
            | Unary::Cos => (&[Ty::Real], Ty::Real),
            Unary::Floor => (&[Ty::Real], Ty::Int),
            Unary::ToReal => (&[Ty::Int], Ty::Real),
        };
        self.expect(a, ty, allowed);
        (axes, Some(result))
    }

    fn binary(&mut self, op: Binary, a: Val, b: Val) -> Found {
        let ((mut axes, tx), (y, ty)) = (self.read(a), self.read(b));
        axes.extend(y);
        let (allowed, result): (&[Ty], Ty) = match op {
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Min | Binary::Max => {
                (&[Ty::Real, Ty::Int], tx)
            }
            Binary::Rem | Binary::BitAnd | Binary::Shr => (&[Ty::Int], Ty::Int),
            Binary::Lt | Binary::Le => (&[Ty::Real, Ty::Int], Ty::Bool),
            Binary::Eq => (&[Ty::Real, Ty::Int, Ty::Bool], Ty::Bool),
            Binary::And | Binary::Or => (&[Ty::Bool], Ty::Bool),
            Binary::Pow => (&[Ty::Real], Ty::Real),
        };
        self.expect(a, tx, allowed);
        self.expect(b, ty, &[tx]);
        (axes, Some(result))
    }
}

/// The name of a type in the text form.
pub fn ty_name(ty: Ty) -> &'static str {
    match ty {
        Ty::Real => "real",
        Ty::Int => "int",
        Ty::Bool => "bool",
    }
}
