//! A CTA: its warps, their engines, and the order in which they go on.

use std::collections::VecDeque;
use std::rc::Rc;

use super::clock::{Clock, Components};
use super::code::{Code, Inst};
use super::copy::CpAsync;
use super::global::Launch;
use super::shared::{Shared, Window};
use super::sync::{Barrier, MbarSlot};
use super::value::{Data, Value};
use super::{Fault, FaultKind, Options, Outcome, Trouble, trouble};
use crate::ir::*;

/// A register.
#[derive(Clone)]
pub(super) enum Reg {
    /// Not defined yet.
    Empty,
    /// A value, and when the warp wrote it (0: not with ordinary instructions).
    Ready(Rc<Value>, u64),
    /// The result of the asynchronous product with this number.
    InFlight(Rc<Value>, u32),
    /// Was in flight and has become the accumulator of a later product.
    Passed,
}

/// What a warp waits for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum State {
    Ready,
    /// A hardware barrier, or behind those the barriers of roles.
    Barrier(usize),
    /// A slot of all mbarrier slots, and a parity.
    Mbarrier(usize, u32),
    Done,
}

/// Asynchronous products of a warp, numbered from 1.
#[derive(Default)]
pub(super) struct Products {
    pub(super) issued: u32,
    /// The last product of each group that was not waited for.
    pub(super) groups: VecDeque<u32>,
    pub(super) committed: u32,
    pub(super) complete: u32,
    /// When the warp last executed `mma_fence`.
    pub(super) fenced: Option<u64>,
    /// The statement of the last one.
    pub(super) stmt: u32,
    /// A hash of what they are, the same in all warps of a warpgroup.
    digest: u64,
}

impl Products {
    /// Takes note of a product: its statement, and where a shared operand lies, with its first row.
    pub(super) fn note(&mut self, stmt: u32, operand: Option<(Window, i64)>) {
        let mut mix = |x: u64| self.digest = (self.digest ^ x).wrapping_mul(0x0000_0100_0000_01b3);
        mix(u64::from(stmt));
        if let Some((w, row)) = operand {
            [u64::from(w.buf.0), w.slot as u64, row as u64, w.col as u64]
                .into_iter()
                .for_each(mix);
        }
    }
}

/// A warp.
pub(super) struct Warp<'k> {
    pub(super) role: usize,
    pub(super) in_role: usize,
    code: &'k Code<'k>,
    pc: usize,
    pub(super) regs: Vec<Reg>,
    pub(super) clock: Clock,
    pub(super) state: State,
    /// Instructions executed.
    pub(super) now: u64,
    pub(super) copies: CpAsync,
    pub(super) products: Products,
    /// Bulk stores issued, and how many of them no longer read shared memory; the statement of the last.
    pub(super) stores: (u32, u32, u32),
}

/// A bulk load on its way.
pub(super) struct Load {
    pub(super) mbarrier: usize,
    pub(super) window: Window,
    pub(super) data: Data,
    pub(super) stmt: u32,
    /// The phase that it belongs to, from 1.
    pub(super) phase: u32,
}

/// A CTA.
pub(super) struct Cta<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) number: u32,
    pub(super) components: Components,
    pub(super) warps: Vec<Warp<'k>>,
    pub(super) shared: Shared,
    /// Hardware barriers, then one per role.
    pub(super) barriers: Vec<Barrier>,
    pub(super) mbarriers: Vec<MbarSlot>,
    /// The first slot of each mbarrier array.
    pub(super) first_slot: Vec<usize>,
    pub(super) loads: Vec<Load>,
    /// The last phase of each mbarrier slot that a bulk load completes on, and its statement.
    pub(super) last_load: Vec<(u32, u32)>,
}

/// Hardware barriers of a CTA.
const HARDWARE_BARRIERS: usize = 16;

/// Runs one CTA to its end.
pub(super) fn run_cta(
    kernel: &Kernel,
    code: &[Code],
    granules: &[u32],
    launch: &mut Launch,
    options: &Options,
    number: u32,
) -> Result<(), Fault> {
    let mut cta = Cta::new(kernel, code, granules, number);
    let mut random = Random(options.seed ^ (u64::from(number) << 32));
    // How eagerly copies land: a chance out of 256 per turn, from never before they must to always at once.
    let eagerness = [0, 16, 128, 256][random.below(4)];
    let longest_turn = [1, 4, 32, 1024][random.below(4)];
    loop {
        let ready: Vec<usize> = (0..cta.warps.len()).filter(|w| cta.can_run(*w)).collect();
        let copying: Vec<usize> = (0..cta.warps.len())
            .filter(|w| cta.warps[*w].copies.is_landing())
            .collect();
        let events = copying.len() + cta.loads.len();
        if ready.is_empty() && events == 0 {
            break;
        }
        if events > 0 && (ready.is_empty() || random.below(256) < eagerness) {
            let event = random.below(events);
            match copying.get(event) {
                Some(&w) => cta.warps[w].copies.land_one(&mut cta.shared),
                None => cta.land_load(event - copying.len())?,
            }
            continue;
        }
        let warp = ready[random.below(ready.len())];
        for _ in 0..=random.below(longest_turn) {
            if !cta.can_run(warp) {
                break;
            }
            let stmt = cta.warps[warp].stmt();
            launch.counts.steps += 1;
            let step = if launch.counts.steps > launch.max_steps {
                trouble(FaultKind::Steps, format!("more than {} steps", launch.max_steps))
            } else {
                cta.step(launch, warp, stmt)
            };
            step.map_err(|t| cta.fault(*t, Some(stmt), cta.agent(warp)))?;
        }
    }
    cta.finish()
}

impl Warp<'_> {
    /// The number of the statement that it stands at.
    fn stmt(&self) -> u32 {
        self.code[self.pc].1
    }

    /// A value that can be read.
    pub(super) fn get(&self, v: Val) -> Outcome<&Rc<Value>> {
        match &self.regs[v.index()] {
            Reg::Ready(value, _) => Ok(value),
            Reg::InFlight(..) => trouble(FaultKind::InFlight, format!("{v} is read while it is in flight")),
            Reg::Passed => trouble(
                FaultKind::InFlight,
                format!("{v} is read after a later product took its registers"),
            ),
            Reg::Empty => unreachable!("invariant: the verifier checks that definitions come before uses"),
        }
    }

    pub(super) fn int(&self, v: Val) -> Outcome<i64> {
        Ok(self.get(v)?.to_i64())
    }

    pub(super) fn set(&mut self, v: Val, value: Value) {
        self.regs[v.index()] = Reg::Ready(Rc::new(value), self.now);
    }
}

impl<'k> Cta<'k> {
    fn new(kernel: &'k Kernel, code: &'k [Code<'k>], granules: &[u32], number: u32) -> Cta<'k> {
        let slots: usize = kernel.mbarriers.iter().map(|m| m.slots as usize).sum();
        let components = Components {
            warps: kernel.warps() as usize,
            mbarriers: slots,
        };
        let mut warps = Vec::new();
        for (role, (r, code)) in kernel.roles.iter().zip(code).enumerate() {
            for in_role in 0..r.warps as usize {
                let mut clock = Clock::new(components);
                clock.before[components.warp(warps.len())] = 1;
                warps.push(Warp {
                    role,
                    in_role,
                    code,
                    pc: 0,
                    regs: vec![Reg::Empty; kernel.types.len()],
                    clock,
                    state: State::Ready,
                    now: 0,
                    copies: CpAsync::default(),
                    products: Products::default(),
                    stores: (0, 0, 0),
                });
            }
        }
        let (mut mbarriers, mut first_slot) = (Vec::new(), Vec::new());
        for (i, m) in kernel.mbarriers.iter().enumerate() {
            first_slot.push(mbarriers.len());
            for slot in 0..m.slots as usize {
                let component = components.bulk_load(mbarriers.len());
                mbarriers.push(MbarSlot::new(MbarId(i as u32), slot, m.arrivals, component, components));
            }
        }
        let barriers = HARDWARE_BARRIERS + kernel.roles.len();
        Cta {
            kernel,
            number,
            components,
            warps,
            shared: Shared::new(kernel, granules, components),
            barriers: (0..barriers).map(|_| Barrier::new(components)).collect(),
            last_load: vec![(0, 0); mbarriers.len()],
            mbarriers,
            first_slot,
            loads: Vec::new(),
        }
    }

    fn can_run(&self, w: usize) -> bool {
        match self.warps[w].state {
            State::Ready => true,
            State::Mbarrier(slot, parity) => self.mbarriers[slot].passed(parity).is_some(),
            State::Barrier(_) | State::Done => false,
        }
    }

    /// The name of a warp.
    fn agent(&self, w: usize) -> String {
        let warp = &self.warps[w];
        format!("warp {w} ({} {})", self.kernel.roles[warp.role].name, warp.in_role)
    }

    fn fault(&self, t: Trouble, stmt: Option<u32>, agent: String) -> Fault {
        let stmt = t.at.or(stmt);
        Fault {
            kind: t.kind,
            stmt,
            cta: self.number,
            agent,
            message: t.message,
            other: t.other,
        }
    }

    /// Lets what a warp did so far be told from what it does next.
    pub(super) fn advance(&mut self, w: usize) {
        let component = self.components.warp(w);
        self.warps[w].clock.before[component] += 1;
    }

    fn land_load(&mut self, index: usize) -> Result<(), Fault> {
        let load = self.loads.swap_remove(index);
        self.shared.put(load.window, &load.data);
        let landed = self.mbarriers[load.mbarrier].land(load.phase, self.shared.bytes(load.window));
        landed.map_err(|t| self.fault(*t, Some(load.stmt), "bulk loads".to_string()))
    }

    /// Executes one instruction of a warp.
    fn step(&mut self, launch: &mut Launch, w: usize, stmt: u32) -> Outcome<()> {
        let warp = &mut self.warps[w];
        warp.now += 1;
        warp.state = State::Ready;
        let code = warp.code;
        let mut next = warp.pc + 1;
        match &code[warp.pc].0 {
            Inst::Op(dst, op) => self.op(launch, w, *dst, op, stmt)?,
            Inst::Do { effect, in_stream } => {
                self.effect(launch, w, effect, *in_stream, stmt)?;
                if matches!(self.warps[w].state, State::Mbarrier(..)) {
                    // The wait is tried again when it can succeed.
                    return Ok(());
                }
            }
            Inst::Moves(moves) => {
                let mut from = Vec::with_capacity(moves.len());
                for (_, v) in moves {
                    warp.get(*v)?;
                    from.push(warp.regs[v.index()].clone());
                }
                for ((to, _), reg) in moves.iter().zip(from) {
                    warp.regs[to.index()] = reg;
                }
            }
            Inst::Zero(v) => warp.set(*v, Value::scalar_i32(0)),
            Inst::Test { var, end, exit } => {
                if warp.int(*var)? >= warp.int(*end)? {
                    next = *exit;
                }
            }
            Inst::Step { var, back } => {
                let x = warp.int(*var)? as i32;
                warp.set(*var, Value::scalar_i32(x.wrapping_add(1)));
                next = *back;
            }
            Inst::Branch { cond, exit } => {
                if !warp.get(*cond)?.to_bool() {
                    next = *exit;
                }
            }
            Inst::Jump(to) => next = *to,
            Inst::RoleBarrier => {
                let role = warp.role;
                let warps = self.kernel.roles[role].warps;
                self.barrier(
                    HARDWARE_BARRIERS + role,
                    "the barrier of the role",
                    warps,
                    w,
                    stmt,
                    true,
                )?;
            }
            Inst::End => {
                self.end_of_warp(w)?;
                self.warps[w].state = State::Done;
                next -= 1;
            }
        }
        self.warps[w].pc = next;
        Ok(())
    }

    /// A warp comes to a barrier, and waits there or goes on.
    pub(super) fn barrier(
        &mut self,
        index: usize,
        name: &str,
        warps: u32,
        w: usize,
        stmt: u32,
        waits: bool,
    ) -> Outcome<()> {
        self.barriers[index].stmt = stmt;
        let released = self.barriers[index].arrive(name, warps, w, &self.warps[w].clock)?;
        self.advance(w);
        if waits {
            self.warps[w].state = State::Barrier(index);
        }
        if let Some(clock) = released {
            for warp in self.warps.iter_mut().filter(|x| x.state == State::Barrier(index)) {
                warp.clock.join(&clock);
                warp.state = State::Ready;
            }
        }
        Ok(())
    }

    /// Checks that a warp leaves no asynchronous work behind.
    fn end_of_warp(&self, w: usize) -> Outcome<()> {
        let warp = &self.warps[w];
        let left = |at: u32, message: &str| {
            let (kind, message) = (FaultKind::Unfinished, message.to_string());
            Err(Box::new(Trouble {
                kind,
                message,
                other: None,
                at: Some(at),
            }))
        };
        if let Some(at) = warp.copies.unfinished() {
            return left(at, "the warp ends without waiting for this copy");
        }
        if warp.products.complete < warp.products.issued {
            return left(warp.products.stmt, "the warp ends without waiting for this product");
        }
        if warp.stores.1 < warp.stores.0 {
            return left(
                warp.stores.2,
                "the warp ends while this store may still read shared memory",
            );
        }
        Ok(())
    }

    /// Checks the CTA when nothing can go on: that this is because everything is done.
    fn finish(self) -> Result<(), Fault> {
        let stuck: Vec<usize> = (0..self.warps.len())
            .filter(|w| self.warps[*w].state != State::Done)
            .collect();
        let cta_fault = |kind, stmt, message| {
            let t = Trouble {
                kind,
                message,
                other: None,
                at: None,
            };
            Err(self.fault(t, Some(stmt), "cta".to_string()))
        };
        if let Some(&first) = stuck.first() {
            let waits: Vec<String> = stuck.iter().map(|w| self.waits_for(*w)).collect();
            let stmt = match self.warps[first].state {
                State::Mbarrier(..) | State::Ready | State::Done => self.warps[first].stmt(),
                State::Barrier(b) => self.barriers[b].stmt,
            };
            return cta_fault(
                FaultKind::Deadlock,
                stmt,
                format!("no agent can go on: {}", waits.join("; ")),
            );
        }
        for (i, b) in self.barriers.iter().enumerate() {
            if !b.arrived.is_empty() {
                let message = format!("all warps have ended, but at barrier {i} only {}", b.describe());
                return cta_fault(FaultKind::Barrier, b.stmt, message);
            }
        }
        for (slot, &(phase, stmt)) in self.last_load.iter().enumerate() {
            let component = self.components.bulk_load(slot);
            if self.warps.iter().all(|w| w.clock.before[component] < phase) {
                let message = "the CTA ends without waiting for this copy".to_string();
                return cta_fault(FaultKind::Unfinished, stmt, message);
            }
        }
        self.warpgroups_agree()
    }

    /// Checks that the warps of each warpgroup issued the same asynchronous products: the hardware has one descriptor of
    /// an operand in shared memory for all four, and gives each warp its sixteen rows of the left one.
    fn warpgroups_agree(&self) -> Result<(), Fault> {
        for (g, group) in self.warps.chunks(4).enumerate() {
            if let Some(odd) = group.iter().position(|x| x.products.digest != group[0].products.digest) {
                let message = format!(
                    "its {} asynchronous products are not those of the first warp of its warpgroup, which issued {}",
                    group[odd].products.issued, group[0].products.issued
                );
                let stmt = group.iter().map(|x| x.products.stmt).max();
                let t = Trouble {
                    kind: FaultKind::Warpgroup,
                    message,
                    other: None,
                    at: None,
                };
                return Err(self.fault(t, stmt, self.agent(4 * g + odd)));
            }
        }
        Ok(())
    }

    fn waits_for(&self, w: usize) -> String {
        let what = match self.warps[w].state {
            State::Ready | State::Done => "nothing".to_string(),
            State::Barrier(b) if b < HARDWARE_BARRIERS => format!("barrier {b}, where {}", self.barriers[b].describe()),
            State::Barrier(b) => format!("the barrier of its role, where {}", self.barriers[b].describe()),
            State::Mbarrier(slot, parity) => format!("parity {parity} of {}", self.mbarriers[slot].describe()),
        };
        format!("{} waits for {what}", self.agent(w))
    }
}

/// SplitMix64. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    /// A number in `0..n`; the bias for small `n` does not matter here.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}
