//! Effects of a warp other than copies.

use super::global::Launch;
use super::machine::{Cta, State};
use super::value::{Data, IntGrid};
use super::{FaultKind, Outcome, trouble};
use crate::ir::*;

impl Cta<'_> {
    /// Executes an effect.
    pub(super) fn effect(
        &mut self,
        launch: &mut Launch,
        w: usize,
        effect: &Effect,
        in_stream: bool,
        stmt: u32,
    ) -> Outcome<()> {
        match effect {
            Effect::Copy { kind, src, dst } => self.copy(launch, w, *kind, src, dst, in_stream, stmt),
            Effect::CommitGroup => {
                self.warps[w].copies.commit();
                Ok(())
            }
            Effect::WaitGroup { pending } => {
                let component = self.components.cp_async(w);
                let warp = &mut self.warps[w];
                warp.clock.before[component] = warp.copies.wait(*pending, &mut self.shared);
                Ok(())
            }
            Effect::Barrier { id, warps } => {
                launch.counts.barriers += 1;
                self.barrier(*id as usize, &format!("barrier {id}"), *warps, w, stmt, true)
            }
            Effect::BarrierArrive { id, warps } => {
                launch.counts.barriers += 1;
                self.barrier(*id as usize, &format!("barrier {id}"), *warps, w, stmt, false)
            }
            Effect::MbarArrive { barrier, slot } => self.mbar_arrive(launch, w, *barrier, *slot, 0),
            Effect::MbarExpect { barrier, slot, bytes } => self.mbar_arrive(launch, w, *barrier, *slot, *bytes),
            Effect::MbarWait { barrier, slot, parity } => {
                let slot = self.mbar_slot(w, *barrier, *slot)?;
                let parity = self.warps[w].int(*parity)?;
                if parity != 0 && parity != 1 {
                    return trouble(FaultKind::Mbarrier, format!("parity {parity} is neither 0 nor 1"));
                }
                match self.mbarriers[slot].passed(parity as u32) {
                    Some(clock) => {
                        launch.counts.mbarriers += 1;
                        self.warps[w].clock.join(clock);
                    }
                    None => self.warps[w].state = State::Mbarrier(slot, parity as u32),
                }
                Ok(())
            }
            Effect::FenceProxyAsync => {
                let clock = &mut self.warps[w].clock;
                for component in [self.components.warp(w), self.components.cp_async(w)] {
                    clock.fenced[component] = clock.before[component];
                }
                self.advance(w);
                Ok(())
            }
            Effect::MmaFence => {
                let warp = &mut self.warps[w];
                warp.products.fenced = Some(warp.now);
                Ok(())
            }
            Effect::MmaCommit => {
                let p = &mut self.warps[w].products;
                p.groups.push_back(p.issued);
                p.committed = p.issued;
                Ok(())
            }
            Effect::StoreShared { dst, value } => {
                let window = self.window(w, dst)?;
                launch.counts.shared_written += self.shared.bytes(window);
                let warp = &self.warps[w];
                let component = self.components.warp(w);
                let (epoch, clock) = (warp.clock.before[component], &warp.clock);
                let access = super::shared::Access {
                    component,
                    epoch,
                    clock,
                    generic: true,
                    asynchronous: false,
                    stmt,
                };
                self.shared.write(window, access, &warp.get(*value)?.data)
            }
            Effect::StoreGlobal {
                tensor,
                at,
                guard,
                value,
            } => self.store_global(launch, w, *tensor, at, *guard, *value, stmt),
            Effect::StoreTile { src, dst, bytes } => self.store_tile(launch, w, src, dst, *bytes, stmt),
            Effect::TmaStore { src, dst } => self.tma_store(launch, w, src, dst, stmt),
            Effect::TmaStoreWait { pending } => {
                let component = self.components.bulk_store(w);
                let warp = &mut self.warps[w];
                warp.stores.1 = warp.stores.1.max(warp.stores.0.saturating_sub(*pending));
                warp.clock.before[component] = warp.stores.1;
                Ok(())
            }
            Effect::SetRegisters { .. } => Ok(()),
            Effect::Assert { cond, message } => {
                let value = self.warps[w].get(*cond)?;
                match &value.data {
                    Data::B(v) if v.contains(&false) => trouble(FaultKind::Assert, message.clone()),
                    Data::B(_) | Data::F(_) | Data::I(_) | Data::L(_) => Ok(()),
                }
            }
        }
    }

    /// The position of an mbarrier among all slots.
    pub(super) fn mbar_slot(&self, w: usize, barrier: MbarId, slot: Val) -> Outcome<usize> {
        let slot = self.warps[w].int(slot)?;
        let slots = self.kernel.mbarriers[barrier.index()].slots;
        if slot < 0 || slot >= i64::from(slots) {
            return trouble(
                FaultKind::Bounds,
                format!("slot {slot} of {barrier}, which has {slots}"),
            );
        }
        Ok(self.first_slot[barrier.index()] + slot as usize)
    }

    fn mbar_arrive(&mut self, launch: &mut Launch, w: usize, barrier: MbarId, slot: Val, bytes: u32) -> Outcome<()> {
        launch.counts.mbarriers += 1;
        let slot = self.mbar_slot(w, barrier, slot)?;
        self.mbarriers[slot].arrive(&self.warps[w].clock, bytes)?;
        self.advance(w);
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the effect's fields, the warp and the statement"
    )]
    fn store_global(
        &self,
        launch: &mut Launch,
        w: usize,
        tensor: ParamId,
        at: &Index,
        guard: Option<Val>,
        value: Val,
        stmt: u32,
    ) -> Outcome<()> {
        let warp = &self.warps[w];
        let at = at
            .iter()
            .map(|v| Ok(warp.get(*v)?.int()))
            .collect::<Outcome<Vec<IntGrid>>>()?;
        let guard = guard.map(|v| warp.get(v)).transpose()?.map(|v| v.b());
        let value = warp.get(value)?;
        let global = launch.tensor(tensor);
        let mut written = 0;
        for r in 0..value.rows {
            for c in 0..value.cols {
                if guard.is_some_and(|g| !g.at(r, c)) {
                    continue;
                }
                let mut distance = 0;
                for (axis, index) in at.iter().enumerate() {
                    distance += global.step(axis, index.at(r, c))?;
                }
                global.write(global.position(distance), &value.data, r * value.cols + c, stmt)?;
                written += u64::from(global.element_bytes());
            }
        }
        launch.counts.written[tensor.index()] += written;
        Ok(())
    }
}
