//! Structured statements to a list of instructions with jumps, so that a warp can stop and go on anywhere.

use crate::ir::*;

/// An instruction.
pub(super) enum Inst<'k> {
    /// Defines a value.
    Op(Val, &'k Op),
    /// An effect; in a stream, copies are complete at once.
    Do { effect: &'k Effect, in_stream: bool },
    /// Parallel copies `(to, from)`.
    Moves(Vec<(Val, Val)>),
    /// Sets an `i32` scalar to 0.
    Zero(Val),
    /// Goes on if `var < end`, else jumps.
    Test { var: Val, end: Val, exit: usize },
    /// Adds 1 to an `i32` scalar and jumps.
    Step { var: Val, back: usize },
    /// Goes on if the scalar is true, else jumps.
    Branch { cond: Val, exit: usize },
    /// Jumps.
    Jump(usize),
    /// A barrier of the role.
    RoleBarrier,
    /// The warp is done.
    End,
}

/// The instructions of a role, each with the number of its statement.
pub(super) type Code<'k> = Vec<(Inst<'k>, u32)>;

/// The instructions of all roles.
pub(super) fn flatten(kernel: &Kernel) -> Vec<Code<'_>> {
    let mut next_stmt = 0;
    kernel
        .roles
        .iter()
        .map(|role| role_code(role, &mut next_stmt))
        .collect()
}

fn role_code<'k>(role: &'k Role, next_stmt: &mut u32) -> Code<'k> {
    let mut f = Flattener {
        code: Vec::new(),
        next_stmt: *next_stmt,
        in_stream: false,
    };
    f.block(&role.body);
    let last = f.next_stmt.saturating_sub(1);
    f.code.push((Inst::End, last));
    *next_stmt = f.next_stmt;
    f.code
}

struct Flattener<'k> {
    code: Code<'k>,
    next_stmt: u32,
    in_stream: bool,
}

impl<'k> Flattener<'k> {
    fn emit(&mut self, stmt: u32, inst: Inst<'k>) -> usize {
        self.code.push((inst, stmt));
        self.code.len() - 1
    }

    /// Makes the jump at `at` go to the next instruction.
    fn land(&mut self, at: usize) {
        let here = self.code.len();
        match &mut self.code[at].0 {
            Inst::Test { exit, .. } | Inst::Branch { exit, .. } | Inst::Jump(exit) => *exit = here,
            Inst::Op(..) | Inst::Do { .. } | Inst::Moves(_) | Inst::Zero(_) | Inst::Step { .. } => {}
            Inst::RoleBarrier | Inst::End => {}
        }
    }

    fn block(&mut self, block: &'k Block) {
        for stmt in &block.0 {
            let n = self.next_stmt;
            self.next_stmt += 1;
            match stmt {
                Stmt::Let { dst, op } => {
                    self.emit(n, Inst::Op(*dst, op));
                }
                Stmt::Do(effect) => {
                    let in_stream = self.in_stream;
                    self.emit(n, Inst::Do { effect, in_stream });
                }
                Stmt::Loop(l) => self.loop_(n, l),
                Stmt::If(i) => self.if_(n, i),
                Stmt::Stream(s) => self.stream(n, s),
            }
        }
    }

    fn loop_(&mut self, n: u32, l: &'k Loop) {
        let mut enter = vec![(l.var, l.lo)];
        enter.extend(l.carried.iter().map(|c| (c.arg, c.init)));
        self.emit(n, Inst::Moves(enter));
        let test = self.emit(
            n,
            Inst::Test {
                var: l.var,
                end: l.hi,
                exit: 0,
            },
        );
        self.block(&l.body);
        self.emit(n, Inst::Moves(l.carried.iter().map(|c| (c.arg, c.next)).collect()));
        self.emit(n, Inst::Step { var: l.var, back: test });
        self.land(test);
        self.emit(n, Inst::Moves(l.carried.iter().map(|c| (c.result, c.arg)).collect()));
    }

    fn if_(&mut self, n: u32, i: &'k If) {
        let branch = self.emit(n, Inst::Branch { cond: i.cond, exit: 0 });
        self.block(&i.then);
        self.emit(n, Inst::Moves(i.results.iter().map(|r| (r.result, r.then)).collect()));
        let skip = self.emit(n, Inst::Jump(0));
        self.land(branch);
        self.block(&i.otherwise);
        self.emit(
            n,
            Inst::Moves(i.results.iter().map(|r| (r.result, r.otherwise)).collect()),
        );
        self.land(skip);
    }

    fn stream(&mut self, n: u32, s: &'k Stream) {
        let outer = std::mem::replace(&mut self.in_stream, true);
        self.emit(n, Inst::Zero(s.var));
        self.emit(n, Inst::Moves(s.carried.iter().map(|c| (c.arg, c.init)).collect()));
        let last = s.segments.last().expect("invariant: the verifier wants a segment").end;
        let test = self.emit(
            n,
            Inst::Test {
                var: s.var,
                end: last,
                exit: 0,
            },
        );
        for stage in &s.stages {
            self.emit(n, Inst::RoleBarrier);
            self.block(&stage.block);
            self.emit(n, Inst::RoleBarrier);
        }
        let mut done = Vec::new();
        for segment in &s.segments {
            let skip = self.emit(
                n,
                Inst::Test {
                    var: s.var,
                    end: segment.end,
                    exit: 0,
                },
            );
            self.emit(n, Inst::RoleBarrier);
            self.block(&segment.body);
            self.emit(n, Inst::RoleBarrier);
            self.emit(
                n,
                Inst::Moves(s.carried.iter().zip(&segment.next).map(|(c, v)| (c.arg, *v)).collect()),
            );
            done.push(self.emit(n, Inst::Jump(0)));
            self.land(skip);
        }
        for jump in done {
            self.land(jump);
        }
        self.emit(n, Inst::Step { var: s.var, back: test });
        self.land(test);
        self.emit(n, Inst::Moves(s.carried.iter().map(|c| (c.result, c.arg)).collect()));
        self.in_stream = outer;
    }
}
