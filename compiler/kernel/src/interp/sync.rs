//! Hardware barriers and mbarriers.

use super::clock::{Clock, Components};
use super::{FaultKind, Outcome, trouble};
use crate::ir::*;

/// A hardware barrier, or the barrier of a role.
pub(super) struct Barrier {
    /// Warps that it was first used with, while some have come.
    warps: u32,
    /// Warps that have come.
    pub(super) arrived: Vec<usize>,
    /// The statement with which the last of them came.
    pub(super) stmt: u32,
    clock: Clock,
}

impl Barrier {
    pub(super) fn new(components: Components) -> Barrier {
        Barrier {
            warps: 0,
            arrived: Vec::new(),
            stmt: 0,
            clock: Clock::new(components),
        }
    }

    /// A warp comes; gives the clock that those who wait go on with, once all have come.
    pub(super) fn arrive(&mut self, name: &str, warps: u32, warp: usize, clock: &Clock) -> Outcome<Option<Clock>> {
        if self.arrived.is_empty() {
            self.warps = warps;
        }
        if self.warps != warps {
            let message = format!(
                "{name} is used with {warps} warps here, but with {} by a warp that waits",
                self.warps
            );
            return trouble(FaultKind::Barrier, message);
        }
        if self.arrived.contains(&warp) {
            let message = format!("this warp comes to {name} a second time before {warps} warps have come");
            return trouble(FaultKind::Barrier, message);
        }
        self.arrived.push(warp);
        self.clock.join(clock);
        if self.arrived.len() < warps as usize {
            return Ok(None);
        }
        self.arrived.clear();
        let released = self.clock.clone();
        self.clock.clear();
        Ok(Some(released))
    }

    /// Who has come, for a report.
    pub(super) fn describe(&self) -> String {
        format!("{} of {} warps have come", self.arrived.len(), self.warps)
    }
}

/// One slot of an mbarrier array.
pub(super) struct MbarSlot {
    id: MbarId,
    slot: usize,
    arrivals: u32,
    /// The component of the bulk loads that complete here.
    component: usize,
    /// Phases completed.
    pub(super) phase: u32,
    /// Arrivals missing in the current phase.
    pending: u32,
    /// Bytes announced and not yet completed.
    bytes: i64,
    /// Clocks of those who arrived in the current phase.
    clock: Clock,
    /// The clock of the phase completed last.
    done: Clock,
}

impl MbarSlot {
    pub(super) fn new(id: MbarId, slot: usize, arrivals: u32, component: usize, components: Components) -> MbarSlot {
        let clock = Clock::new(components);
        MbarSlot {
            id,
            slot,
            arrivals,
            component,
            phase: 0,
            pending: arrivals,
            bytes: 0,
            done: clock.clone(),
            clock,
        }
    }

    /// An arrival, which announces bytes.
    pub(super) fn arrive(&mut self, clock: &Clock, bytes: u32) -> Outcome<()> {
        if self.pending == 0 {
            let message = format!(
                "{}[{}] has had its {} arrivals in phase {}, which still waits for {} bytes",
                self.id, self.slot, self.arrivals, self.phase, self.bytes
            );
            return trouble(FaultKind::Mbarrier, message);
        }
        self.pending -= 1;
        self.bytes += i64::from(bytes);
        self.clock.join(clock);
        self.complete()
    }

    /// Bytes of a copy that was issued in phase `phase` (from 1) have landed.
    pub(super) fn land(&mut self, phase: u32, bytes: u64) -> Outcome<()> {
        if phase != self.phase + 1 {
            let message = format!(
                "{bytes} bytes land on {}[{}] in phase {}, but were to complete phase {}: that one announced too few",
                self.id,
                self.slot,
                self.phase,
                phase - 1
            );
            return trouble(FaultKind::Mbarrier, message);
        }
        self.bytes -= bytes as i64;
        self.complete()
    }

    fn complete(&mut self) -> Outcome<()> {
        if self.pending > 0 || self.bytes > 0 {
            return Ok(());
        }
        if self.bytes < 0 {
            let message = format!(
                "{} bytes more than announced have landed on {}[{}] in phase {}",
                -self.bytes, self.id, self.slot, self.phase
            );
            return trouble(FaultKind::Mbarrier, message);
        }
        self.phase += 1;
        self.pending = self.arrivals;
        self.clock.before[self.component] = self.phase;
        std::mem::swap(&mut self.clock, &mut self.done);
        self.clock.clear();
        Ok(())
    }

    /// The clock of the phase with this parity, if it is the one completed last.
    pub(super) fn passed(&self, parity: u32) -> Option<&Clock> {
        (self.phase & 1 != parity).then_some(&self.done)
    }

    /// What is missing, for a report.
    pub(super) fn describe(&self) -> String {
        format!(
            "{}[{}] in phase {} misses {} of {} arrivals and {} bytes",
            self.id, self.slot, self.phase, self.pending, self.arrivals, self.bytes
        )
    }
}
