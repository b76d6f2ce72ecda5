//! A spec's score and mask as straight-line programs over a block of keys.
//!
//! The expression DAG is compiled once: each node becomes one instruction that fills one register of [`LANES`] lanes, a
//! lane per key. Instructions are sorted by what their values change with: nothing, the row, the keys, or both.
//! Reals are `f32`, as in the kernels; integers are `i64`, wrapping.

use super::lanes::Registers;
use super::sight::{Sight, Spans};
use crate::operator::Operator;
use drawloom_lang::spec::{AxisId, BinaryOp, ExprId, ExprKind, InputId, ScalarId, Spec, Ty, UnaryOp};

/// Keys per block.
pub const LANES: usize = 128;

/// What a value changes with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Rate {
    row: bool,
    keys: bool,
}

impl Rate {
    /// With nothing.
    const ONCE: Rate = Rate {
        row: false,
        keys: false,
    };

    /// With what either changes with.
    fn or(self, other: Rate) -> Rate {
        Rate {
            row: self.row || other.row,
            keys: self.keys || other.keys,
        }
    }
}

/// A register: its number among those of its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reg {
    Real(usize),
    Int(usize),
    Bool(usize),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Op {
    Real(f32),
    Int(i64),
    Bool(bool),
    Index(AxisId),
    Len(AxisId),
    Scalar(ScalarId),
    Load { input: InputId, at: Vec<usize> },
    Dot(usize),
    Unary(UnaryOp, Reg),
    Binary(BinaryOp, Reg, Reg),
    Select(usize, Reg, Reg),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Instruction {
    pub(super) op: Op,
    pub(super) to: Reg,
}

/// A product of a query row with key rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dot {
    /// Query side.
    pub a: InputId,
    /// Key side.
    pub b: InputId,
    /// Summed axis.
    pub over: AxisId,
}

/// A compiled score and mask.
#[derive(Clone, Debug)]
pub struct Program {
    once: Vec<Instruction>,
    row: Vec<Instruction>,
    keys: Vec<Instruction>,
    /// What the mask needs for each row and block.
    mask: Vec<Instruction>,
    /// What the score needs beyond that.
    score: Vec<Instruction>,
    visible: Option<usize>,
    value: usize,
    dots: Vec<Dot>,
    counts: [usize; 3],
}

/// What a program reads: the caller's memory and the place of the block in the iteration space.
pub trait Source {
    /// Index on an axis other than the key axis (the position, on a query axis).
    fn index(&self, axis: AxisId) -> i64;
    /// Whether indices on this axis run along the lanes; the first lane's index.
    fn lanes(&self, axis: AxisId) -> Option<i64>;
    /// The first and last index on an axis among all rows and keys of the block.
    fn span(&self, axis: AxisId) -> (i64, i64);
    /// Size of an axis.
    fn len(&self, axis: AxisId) -> i64;
    /// A scalar's value as real and integer.
    fn scalar(&self, scalar: ScalarId) -> (f32, i64);
    /// The element at these indices; `None` out of range.
    fn load_real(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<f32>;
    /// The integer at these indices; `None` out of range.
    fn load_int(&self, input: InputId, at: &mut dyn Iterator<Item = i64>) -> Option<i64>;
    /// The products of the current row with the block's keys.
    fn dot(&self, dot: usize, to: &mut [f32]);
}

struct Compiler<'s> {
    spec: &'s Spec,
    key: AxisId,
    done: Vec<Option<(Reg, Rate)>>,
    program: Program,
    /// Whether block instructions go to the score's part.
    scoring: bool,
}

/// Compiles a stage's score and mask, where `key` is its key axis.
pub fn compile(operator: &Operator, score: ExprId, mask: Option<ExprId>, key: AxisId) -> Program {
    let spec = operator.spec();
    let program = Program {
        once: Vec::new(),
        row: Vec::new(),
        keys: Vec::new(),
        mask: Vec::new(),
        score: Vec::new(),
        visible: None,
        value: 0,
        dots: Vec::new(),
        counts: [0; 3],
    };
    let mut compiler = Compiler {
        spec,
        key,
        done: vec![None; spec.exprs.len()],
        program,
        scoring: false,
    };
    if let Some(mask) = mask {
        compiler.program.visible = Some(compiler.bool(mask));
    }
    compiler.scoring = true;
    compiler.program.value = match compiler.expr(score) {
        (Reg::Real(value), _) => value,
        // The checker makes scores real; an integer or Boolean one would be a fault there, and is 0 here.
        (Reg::Int(_) | Reg::Bool(_), _) => compiler.constant_zero(),
    };
    compiler.program
}

impl Compiler<'_> {
    fn emit(&mut self, op: Op, ty: Ty, rate: Rate) -> Reg {
        let Program {
            once,
            row,
            keys,
            mask,
            score,
            counts,
            ..
        } = &mut self.program;
        let (kind, make): (usize, fn(usize) -> Reg) = match ty {
            Ty::Real => (0, Reg::Real),
            Ty::Int => (1, Reg::Int),
            Ty::Bool => (2, Reg::Bool),
        };
        let to = make(counts[kind]);
        counts[kind] += 1;
        let list = match (rate.row, rate.keys) {
            (false, false) => once,
            (true, false) => row,
            (false, true) => keys,
            (true, true) if self.scoring => score,
            (true, true) => mask,
        };
        list.push(Instruction { op, to });
        to
    }

    fn constant_zero(&mut self) -> usize {
        match self.emit(Op::Real(0.0), Ty::Real, Rate::ONCE) {
            Reg::Real(reg) | Reg::Int(reg) | Reg::Bool(reg) => reg,
        }
    }

    fn bool(&mut self, id: ExprId) -> usize {
        match self.expr(id).0 {
            Reg::Bool(reg) | Reg::Int(reg) | Reg::Real(reg) => reg,
        }
    }

    fn expr(&mut self, id: ExprId) -> (Reg, Rate) {
        if let Some(done) = self.done[id.index()] {
            return done;
        }
        let expr = &self.spec.exprs[id.index()];
        let (op, rate) = match &expr.kind {
            ExprKind::Real(value) => (Op::Real(*value as f32), Rate::ONCE),
            ExprKind::Int(value) => (Op::Int(*value), Rate::ONCE),
            ExprKind::Bool(value) => (Op::Bool(*value), Rate::ONCE),
            ExprKind::Index(axis) => (
                Op::Index(*axis),
                Rate {
                    row: *axis != self.key,
                    keys: *axis == self.key,
                },
            ),
            ExprKind::Len(axis) => (Op::Len(*axis), Rate::ONCE),
            ExprKind::Scalar(scalar) => (Op::Scalar(*scalar), Rate::ONCE),
            ExprKind::Load { input, at } => {
                let mut rate = Rate::ONCE;
                let mut regs = Vec::with_capacity(at.len());
                for index in at {
                    let (Reg::Int(reg) | Reg::Real(reg) | Reg::Bool(reg), of) = self.expr(*index);
                    rate = rate.or(of);
                    regs.push(reg);
                }
                (
                    Op::Load {
                        input: *input,
                        at: regs,
                    },
                    rate,
                )
            }
            ExprKind::Dot { a, b, over } => {
                let dot = Dot {
                    a: *a,
                    b: *b,
                    over: *over,
                };
                let known = self.program.dots.iter().position(|known| *known == dot);
                let number = known.unwrap_or_else(|| {
                    self.program.dots.push(dot);
                    self.program.dots.len() - 1
                });
                (Op::Dot(number), Rate { row: true, keys: true })
            }
            ExprKind::Unary(op, a) => {
                let (a, rate) = self.expr(*a);
                (Op::Unary(*op, a), rate)
            }
            ExprKind::Binary(op, a, b) => {
                let ((a, rate_a), (b, rate_b)) = (self.expr(*a), self.expr(*b));
                (Op::Binary(*op, a, b), rate_a.or(rate_b))
            }
            ExprKind::If(c, a, b) => {
                let rate_c = self.expr(*c).1;
                let c = self.bool(*c);
                let ((a, rate_a), (b, rate_b)) = (self.expr(*a), self.expr(*b));
                (Op::Select(c, a, b), rate_a.or(rate_b).or(rate_c))
            }
        };
        let done = (self.emit(op, expr.ty, rate), rate);
        self.done[id.index()] = Some(done);
        done
    }
}

impl Program {
    /// The products that it needs.
    pub fn dots(&self) -> &[Dot] {
        &self.dots
    }

    /// Registers, with the instructions that run once already run.
    pub fn registers(&self, source: &dyn Source) -> Registers {
        let mut registers = Registers::new(self.counts);
        registers.run(&self.once, source, LANES);
        registers
    }

    /// What the mask lets the rows and keys of a block see, as far as the ranges of their indices tell.
    pub fn sight(&self, source: &dyn Source) -> Sight {
        let Some(mask) = self.visible else {
            return Sight::Everything;
        };
        let mut spans = Spans::new(self.counts);
        for part in [&self.once, &self.row, &self.keys, &self.mask] {
            spans.run(part, source);
        }
        spans.sight(mask)
    }

    /// Runs what depends on the block's first `count` keys alone.
    pub fn start_block(&self, registers: &mut Registers, source: &dyn Source, count: usize) {
        registers.run(&self.keys, source, count);
    }

    /// Runs what depends on the row alone.
    pub fn start_row(&self, registers: &mut Registers, source: &dyn Source) {
        registers.run(&self.row, source, LANES);
    }

    /// Which of the block's first `count` keys are visible; `None`: all.
    pub fn visible<'r>(&self, registers: &'r mut Registers, source: &dyn Source, count: usize) -> Option<&'r [bool]> {
        registers.run(&self.mask, source, count);
        let mask = self.visible?;
        Some(&registers.bools[mask * LANES..mask * LANES + count])
    }

    /// The scores of the block's first `count` keys, after [`Program::visible`], and which are visible.
    pub fn scores<'r>(
        &self,
        registers: &'r mut Registers,
        source: &dyn Source,
        count: usize,
    ) -> (&'r [f32], Option<&'r [bool]>) {
        registers.run(&self.score, source, count);
        let scores = &registers.reals[self.value * LANES..self.value * LANES + count];
        (
            scores,
            self.visible
                .map(|mask| &registers.bools[mask * LANES..mask * LANES + count]),
        )
    }
}
