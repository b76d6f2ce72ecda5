//! Statements under construction in a pass.

use drawloom_kernel::ir::{Block, Dtype, Effect, Frag, Kernel, MapOp, Op, Stmt, Val};

/// A sequence of statements that is being written into a kernel.
pub struct Code<'k> {
    /// The kernel, for fresh values.
    pub kernel: &'k mut Kernel,
    /// What is written so far.
    pub stmts: Vec<Stmt>,
}

impl<'k> Code<'k> {
    /// Nothing yet.
    pub fn new(kernel: &'k mut Kernel) -> Code<'k> {
        Code {
            kernel,
            stmts: Vec::new(),
        }
    }

    /// Writes a block of its own with `f`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn nested<T, E>(&mut self, f: impl FnOnce(&mut Code<'_>) -> Result<T, E>) -> Result<(Block, T), E> {
        let mut inner = Code::new(self.kernel);
        let value = f(&mut inner)?;
        let stmts = inner.stmts;
        Ok((Block(stmts), value))
    }

    /// Appends a statement.
    pub fn push(&mut self, stmt: Stmt) {
        self.stmts.push(stmt);
    }

    /// Appends an effect.
    pub fn effect(&mut self, effect: Effect) {
        self.push(Stmt::Do(effect));
    }

    /// Appends a definition.
    pub fn def(&mut self, ty: Frag, op: Op) -> Val {
        let dst = self.kernel.new_val(ty);
        self.push(Stmt::Let { dst, op });
        dst
    }

    /// A scalar constant.
    pub fn int(&mut self, value: i64) -> Val {
        self.def(Frag::scalar(Dtype::I32), Op::ConstI(value))
    }

    /// An operation on `i32` scalars.
    pub fn arith(&mut self, op: MapOp, a: Val, b: Val) -> Val {
        self.def(Frag::scalar(Dtype::I32), Op::Map(op, vec![a, b]))
    }
}
