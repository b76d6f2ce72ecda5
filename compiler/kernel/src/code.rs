//! Statements under construction.

use crate::ir::{Block, Dtype, Effect, Frag, Kernel, MapOp, Op, Stmt, Val};
use std::borrow::BorrowMut;

/// A sequence of statements that is being written for a kernel, which is owned or borrowed. Statements go to the innermost
/// open block.
pub struct Code<K> {
    /// The kernel, for fresh values.
    pub kernel: K,
    blocks: Vec<Vec<Stmt>>,
}

impl<K: BorrowMut<Kernel>> Code<K> {
    /// One open block, with nothing in it.
    pub fn new(kernel: K) -> Code<K> {
        Code {
            kernel,
            blocks: vec![Vec::new()],
        }
    }

    /// Opens a block.
    pub fn open(&mut self) {
        self.blocks.push(Vec::new());
    }

    /// Closes the innermost block.
    ///
    /// # Panics
    /// If none is open.
    pub fn close(&mut self) -> Block {
        Block(self.blocks.pop().expect("invariant: open and close are paired"))
    }

    /// Writes a block of its own with `f`.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn nested<T, E>(&mut self, f: impl FnOnce(&mut Code<K>) -> Result<T, E>) -> Result<(Block, T), E> {
        self.open();
        let value = f(self);
        let block = self.close();
        Ok((block, value?))
    }

    /// What the innermost block holds so far.
    pub fn written(&self) -> &[Stmt] {
        self.blocks.last().map_or(&[], Vec::as_slice)
    }

    /// Appends a statement.
    ///
    /// # Panics
    /// If no block is open.
    pub fn push(&mut self, stmt: Stmt) {
        self.blocks.last_mut().expect("invariant: a block is open").push(stmt);
    }

    /// Appends an effect.
    pub fn effect(&mut self, effect: Effect) {
        self.push(Stmt::Do(effect));
    }

    /// Appends a definition.
    pub fn def(&mut self, ty: Frag, op: Op) -> Val {
        let dst = self.kernel.borrow_mut().new_val(ty);
        self.push(Stmt::Let { dst, op });
        dst
    }

    /// An `i32` constant.
    pub fn int(&mut self, value: i64) -> Val {
        self.def(Frag::scalar(Dtype::I32), Op::ConstI(value))
    }

    /// An `f32` constant.
    pub fn float(&mut self, value: f32) -> Val {
        self.def(Frag::scalar(Dtype::F32), Op::ConstF(value))
    }

    /// An operation on `i32` scalars.
    pub fn arith(&mut self, op: MapOp, a: Val, b: Val) -> Val {
        self.def(Frag::scalar(Dtype::I32), Op::Map(op, vec![a, b]))
    }
}
