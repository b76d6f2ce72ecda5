//! Barriers, groups of copies, and assertions.

use drawloom_kernel::ir::{Dtype, Val};

use crate::asm;
use crate::build::Int;
use crate::emitter::Emitter;
use crate::error::{EmitError, Result, malformed};

impl<'c> Emitter<'c, '_> {
    /// Closes a group of `cp.async` copies.
    pub fn commit_group(&mut self) {
        self.b.call_void("llvm.nvvm.cp.async.commit.group", &[], &[]);
    }
    /// Waits for groups of `cp.async` copies.
    pub fn wait_group(&mut self, pending: u32) {
        self.apart = true;
        let n = self.b.c32(i64::from(pending)).into();
        self.b.call_void("llvm.nvvm.cp.async.wait.group", &[], &[n]);
    }
    fn check_barrier(&self, id: u32, warps: u32) -> Result<()> {
        if id >= self.target.barriers {
            return Err(EmitError::Shape {
                what: "a barrier number".into(),
                given: id,
                required: format!("below {}", self.target.barriers),
            });
        }
        if warps == 0 || warps > self.kernel.warps() {
            return malformed(format!("barrier {id} of {warps} warps"));
        }
        Ok(())
    }
    /// Waits at a barrier.
    pub fn barrier(&mut self, id: u32, warps: u32) -> Result<()> {
        self.check_barrier(id, warps)?;
        self.apart = false;
        let n = self.b.c32(i64::from(id)).into();
        if warps == self.kernel.warps() {
            self.b.call_void("llvm.nvvm.barrier.cta.sync.aligned.all", &[], &[n]);
        } else {
            let threads = self.b.c32(i64::from(32 * warps)).into();
            self.b
                .call_void("llvm.nvvm.barrier.cta.sync.aligned.count", &[], &[n, threads]);
        }
        Ok(())
    }
    /// Arrives at a barrier.
    pub fn barrier_arrive(&mut self, id: u32, warps: u32) -> Result<()> {
        self.check_barrier(id, warps)?;
        let args = [
            self.b.c32(i64::from(id)).into(),
            self.b.c32(i64::from(32 * warps)).into(),
        ];
        self.b
            .call_void("llvm.nvvm.barrier.cta.arrive.aligned.count", &[], &args);
        Ok(())
    }
    /// Stops the launch unless `cond` holds in every element.
    pub fn assert(&mut self, cond: Val) -> Result<()> {
        if self.ty(cond)?.dtype != Dtype::Bool {
            return malformed(format!("{cond} is asserted, but is no predicate"));
        }
        let registers = self.registers(cond)?;
        let all = registers
            .iter()
            .map(|r| r.into_int_value())
            .reduce(|a: Int<'c>, b| self.b.and(a, b));
        let fails = all.map(|a| self.b.not(a));
        self.guarded(fails, |e| asm::trap(&e.b));
        Ok(())
    }
}
