//! Vector clocks over the agents of a CTA.

/// Which component of a clock belongs to which agent.
#[derive(Clone, Copy)]
pub(super) struct Components {
    /// Warps of the CTA.
    pub(super) warps: usize,
    /// Slots of all mbarrier arrays.
    pub(super) mbarriers: usize,
}

impl Components {
    pub(super) fn count(self) -> usize {
        4 * self.warps + self.mbarriers
    }
    /// A warp itself. Its epoch grows at each release.
    pub(super) fn warp(self, w: usize) -> usize {
        w
    }
    /// A warp's `cp.async` engine. Epoch: copies issued.
    pub(super) fn cp_async(self, w: usize) -> usize {
        self.warps + w
    }
    /// A warp's asynchronous products. Epoch: products issued.
    pub(super) fn mma(self, w: usize) -> usize {
        2 * self.warps + w
    }
    /// A warp's bulk stores. Epoch: stores issued.
    pub(super) fn bulk_store(self, w: usize) -> usize {
        3 * self.warps + w
    }
    /// Bulk loads that complete on an mbarrier. Epoch: its phase, from 1.
    pub(super) fn bulk_load(self, mbarrier: usize) -> usize {
        4 * self.warps + mbarrier
    }
    /// The agent in words.
    pub(super) fn describe(self, component: usize) -> String {
        let (kind, warp) = (component / self.warps, component % self.warps);
        match kind {
            0 => format!("warp {warp}"),
            1 => format!("cp.async of warp {warp}"),
            2 => format!("asynchronous products of warp {warp}"),
            3 => format!("bulk stores of warp {warp}"),
            _ => "bulk loads".to_string(),
        }
    }
}

/// What an agent knows to have happened before.
#[derive(Clone)]
pub(super) struct Clock {
    /// Per component: everything up to this epoch.
    pub(super) before: Box<[u32]>,
    /// Per component: generic writes up to this epoch are visible to the asynchronous proxy.
    pub(super) fenced: Box<[u32]>,
}

impl Clock {
    pub(super) fn new(components: Components) -> Clock {
        let zero = vec![0; components.count()].into_boxed_slice();
        Clock {
            before: zero.clone(),
            fenced: zero,
        }
    }
    pub(super) fn join(&mut self, other: &Clock) {
        for (a, b) in self.before.iter_mut().zip(&other.before) {
            *a = (*a).max(*b);
        }
        for (a, b) in self.fenced.iter_mut().zip(&other.fenced) {
            *a = (*a).max(*b);
        }
    }
    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.before.fill(0);
        self.fenced.fill(0);
    }
}
