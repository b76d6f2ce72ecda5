//! Pipes: rings of shared-memory slots between the producer and the consumers, with two mbarriers a slot.

use super::Code;
use drawloom_kernel::ir::{
    Block, BufId, CopyKind, Effect, GlobalTile, Kernel, MapOp, MbarId, Mbarrier, SharedView, Stmt, Val,
};

/// A ring of slots that the producer fills and the consumers empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pipe {
    pub(super) buf: BufId,
    pub(super) slots: u32,
    pub(super) full: MbarId,
    pub(super) empty: MbarId,
}

impl Pipe {
    /// The slot that use number `n` (from 0) takes, and the parity of that use of the slot.
    pub(super) fn slot(&self, code: &mut Code<'_>, n: Val) -> (Val, Val) {
        let slots = code.int(i64::from(self.slots));
        let two = code.int(2);
        let slot = code.arith(MapOp::Rem, n, slots);
        let round = code.arith(MapOp::Div, n, slots);
        (slot, code.arith(MapOp::Rem, round, two))
    }

    /// Waits until use `n` is filled; its slot.
    pub(super) fn wait_full(&self, code: &mut Code<'_>, n: Val) -> Val {
        let (slot, parity) = self.slot(code, n);
        code.effect(Effect::MbarWait {
            barrier: self.full,
            slot,
            parity,
        });
        slot
    }

    /// Gives the slot of use `n` back.
    pub(super) fn release(&self, code: &mut Code<'_>, n: Val) {
        let (slot, _) = self.slot(code, n);
        code.effect(Effect::MbarArrive {
            barrier: self.empty,
            slot,
        });
    }

    /// Fills the slot of use `n` as soon as it is empty.
    pub(super) fn fill(&self, code: &mut Code<'_>, n: Val, src: GlobalTile, mut dst: SharedView) {
        let (slot, parity) = self.slot(code, n);
        let one = code.int(1);
        // The slot was empty before its first use.
        let other = code.arith(MapOp::Sub, one, parity);
        code.effect(Effect::MbarWait {
            barrier: self.empty,
            slot,
            parity: other,
        });
        let bytes = dst.rows * dst.cols * code.kernel.buffers[self.buf.index()].dtype.bytes();
        code.effect(Effect::MbarExpect {
            barrier: self.full,
            slot,
            bytes,
        });
        dst.slot = Some(slot);
        code.effect(Effect::Copy {
            kind: CopyKind::Tma {
                barrier: self.full,
                slot,
            },
            src,
            dst,
        });
    }
}

/// What both roles count: `i32` scalars.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Query tiles so far.
    pub(super) tiles: Val,
    /// Stream iterations so far.
    pub(super) steps: Val,
}

/// One pipe for each buffer that a copy fills.
pub(super) fn declare(kernel: &mut Kernel, body: &Block, consumers: u32) -> Vec<Pipe> {
    let mut buffers = Vec::new();
    copied(body, &mut buffers);
    let mut pipes = Vec::new();
    for buf in buffers {
        let (name, slots) = {
            let b = &kernel.buffers[buf.index()];
            (b.name.clone(), b.slots)
        };
        let mut barrier = |name: String, arrivals| {
            kernel.mbarriers.push(Mbarrier { name, slots, arrivals });
            MbarId(kernel.mbarriers.len() as u32 - 1)
        };
        let full = barrier(format!("{name}_full"), 1);
        let empty = barrier(format!("{name}_empty"), consumers);
        pipes.push(Pipe {
            buf,
            slots,
            full,
            empty,
        });
    }
    pipes
}

/// The buffers that copies fill, each once, in order of first appearance.
fn copied(block: &Block, found: &mut Vec<BufId>) {
    for stmt in &block.0 {
        match stmt {
            Stmt::Do(Effect::Copy { dst, .. }) => {
                if !found.contains(&dst.buf) {
                    found.push(dst.buf);
                }
            }
            Stmt::Let { .. } | Stmt::Do(_) => {}
            Stmt::Loop(l) => copied(&l.body, found),
            Stmt::If(i) => {
                copied(&i.then, found);
                copied(&i.otherwise, found);
            }
            Stmt::Stream(s) => s.stages.iter().for_each(|stage| copied(&stage.block, found)),
        }
    }
}
