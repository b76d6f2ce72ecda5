//! Mbarriers, proxy fences and register budgets: what Hopper's roles synchronise and share registers by.
//!
//! A warp arrives once, by one lane; all lanes of a waiting warp poll. The lanes meet before they arrive, unless
//! they have accessed shared memory only together since they last met: asynchronous products are issued and waited for by
//! a warp as a whole.

use drawloom_kernel::ir::{Kernel, MbarId, TensorMap, Val};
use inkwell::IntPredicate;

use crate::asm;
use crate::build::{Build, Int, Ptr};
use crate::emitter::{Emitter, LaneKey};
use crate::error::{Result, malformed};
use crate::tma;

/// Bytes of an mbarrier.
const BYTES: u32 = 8;

/// Byte offset of each array of mbarriers in shared memory: behind the buffers.
pub(crate) fn offsets(kernel: &Kernel) -> Vec<u32> {
    let all = BYTES * kernel.mbarriers.iter().map(|m| m.slots).sum::<u32>();
    let mut at = kernel.shared_bytes() - all;
    let mut out = Vec::new();
    for m in &kernel.mbarriers {
        out.push(at);
        at += BYTES * m.slots;
    }
    out
}

/// Initialises all mbarriers by the first thread, and makes them visible to the CTA and to the asynchronous proxy; the
/// same thread fetches the tensor maps. `shared` is the address of shared memory.
pub(crate) fn initialise<'c>(
    b: &Build<'c>,
    kernel: &Kernel,
    maps: &[(TensorMap, Ptr<'c>)],
    shared: Int<'c>,
    tid: Int<'c>,
) {
    if kernel.mbarriers.is_empty() && maps.is_empty() {
        return;
    }
    let (first, after) = (b.block("initialise"), b.block("initialised"));
    b.branch(b.icmp(IntPredicate::EQ, tid, b.c32(0)), first, after);
    b.at_end(first);
    tma::prefetch(b, maps);
    if kernel.mbarriers.is_empty() {
        b.jump(after);
        b.at_end(after);
        return;
    }
    for (m, at) in kernel.mbarriers.iter().zip(offsets(kernel)) {
        for slot in 0..m.slots {
            let p = b.shared_ptr(b.add(shared, b.c32(i64::from(at + BYTES * slot))));
            let count = b.c32(i64::from(m.arrivals)).into();
            b.call_void("llvm.nvvm.mbarrier.init.shared", &[], &[p.into(), count]);
        }
    }
    b.call_void("llvm.nvvm.fence.mbarrier_init.release.cluster", &[], &[]);
    b.jump(after);
    b.at_end(after);
    b.call_void("llvm.nvvm.barrier.cta.sync.aligned.all", &[], &[b.c32(0).into()]);
}

impl<'c> Emitter<'c, '_> {
    /// The address of an mbarrier, in two parts of which the second is a constant.
    fn mbarrier_parts(&mut self, barrier: MbarId, slot: Val) -> Result<(Int<'c>, u32)> {
        if !self.target.tma {
            return self.unsupported("an mbarrier that counts bytes");
        }
        let Some(at) = offsets(self.kernel).get(barrier.index()).copied() else {
            return malformed(format!("{barrier} is not declared"));
        };
        let b = &self.b;
        let own = b.mul(self.int(slot)?, b.c32(i64::from(BYTES)));
        Ok((b.add(self.shared, own), at))
    }
    /// The address of an mbarrier.
    pub fn mbarrier(&mut self, barrier: MbarId, slot: Val) -> Result<Ptr<'c>> {
        let (base, offset) = self.mbarrier_parts(barrier, slot)?;
        Ok(self.b.offset_by(self.b.shared_ptr(base), offset))
    }
    /// Lets the lanes of the warp meet, if they may have accessed shared memory each by itself.
    pub fn meet(&mut self) {
        if std::mem::take(&mut self.apart) {
            let all = self.b.c32(-1).into();
            self.b.call_void("llvm.nvvm.bar.warp.sync", &[], &[all]);
        }
    }
    /// Emits `body` for one lane, on behalf of the warp: always the same one. ptxas knows what is elected to be one lane,
    /// and does not repeat a bulk copy for the others.
    pub fn by_one_lane(&mut self, body: impl FnOnce(&mut Self)) {
        self.meet();
        let elected = self.b.call("llvm.nvvm.elect.sync", &[], &[self.b.c32(-1).into()]);
        let one = self.b.field(elected, 1).into_int_value();
        self.guarded(Some(one), body);
    }
    /// Arrives at an mbarrier.
    pub fn mbarrier_arrive(&mut self, barrier: MbarId, slot: Val) -> Result<()> {
        let (base, offset) = self.mbarrier_parts(barrier, slot)?;
        self.meet();
        let first = self.lane_part(LaneKey::First);
        asm::mbarrier_arrive_if(&self.b, first, base, offset);
        Ok(())
    }
    /// Arrives at an mbarrier and announces bytes.
    pub fn mbarrier_expect(&mut self, barrier: MbarId, slot: Val, bytes: u32) -> Result<()> {
        let p = self.mbarrier(barrier, slot)?;
        self.by_one_lane(|e| {
            let bytes = e.b.c32(i64::from(bytes)).into();
            e.b.call(
                "llvm.nvvm.mbarrier.arrive.expect.tx.scope.cta.space.cta",
                &[],
                &[p.into(), bytes],
            );
        });
        Ok(())
    }
    /// Waits for a phase of an mbarrier.
    pub fn mbarrier_wait(&mut self, barrier: MbarId, slot: Val, parity: Val) -> Result<()> {
        let p = self.mbarrier(barrier, slot)?;
        let parity = self.int(parity)?;
        let (poll, after) = (self.b.block("poll"), self.b.block("passed"));
        self.b.jump(poll);
        self.b.at_end(poll);
        let name = "llvm.nvvm.mbarrier.try.wait.parity.scope.cta.space.cta";
        let done = self.b.call(name, &[], &[p.into(), parity.into()]).into_int_value();
        self.b.branch(done, after, poll);
        self.b.at_end(after);
        Ok(())
    }
    /// Makes writes to shared memory visible to the asynchronous proxy.
    pub fn fence_proxy(&mut self) -> Result<()> {
        if !self.target.tma {
            return self.unsupported("a proxy fence");
        }
        self.apart = true;
        self.b.call_void("llvm.nvvm.fence.proxy.async.shared_cta", &[], &[]);
        Ok(())
    }
    /// Gives registers back, or takes some, against what a thread has at launch.
    pub fn set_registers(&mut self, count: u32) -> Result<()> {
        if !self.target.set_registers {
            return self.unsupported("a register budget");
        }
        if !count.is_multiple_of(8) || !(24..=256).contains(&count) {
            return malformed(format!("a register budget of {count}"));
        }
        let at_launch = self.target.sm_registers / (32 * self.kernel.warps() * self.kernel.min_ctas.max(1)) / 8 * 8;
        let name = if count > at_launch {
            "llvm.nvvm.setmaxnreg.inc.sync.aligned.u32"
        } else {
            "llvm.nvvm.setmaxnreg.dec.sync.aligned.u32"
        };
        self.b.call_void(name, &[], &[self.b.c32(i64::from(count)).into()]);
        Ok(())
    }
}
