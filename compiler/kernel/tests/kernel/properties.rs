//! Properties of all kernels: the text form loses nothing, and no kernel makes the verifier or the interpreter panic.

use std::fs;
use std::path::Path;

use crate::launch::Launch;
use drawloom_kernel::interp::{FaultKind, Options, run};
use drawloom_kernel::ir::*;
use drawloom_kernel::text::{parse, print};
use drawloom_kernel::verify::verify;
use proptest::prelude::*;

/// Numbers that decide what is generated; when they run out, everything is the first choice.
struct Tape {
    numbers: Vec<u32>,
    at: usize,
}

impl Tape {
    fn number(&mut self) -> u32 {
        self.at += 1;
        self.numbers.get(self.at - 1).copied().unwrap_or(0)
    }
    fn below(&mut self, n: u32) -> u32 {
        self.number() % n
    }
    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize].clone()
    }
    fn some<T>(&mut self, f: impl FnOnce(&mut Tape) -> T) -> Option<T> {
        if self.flag() { Some(f(self)) } else { None }
    }
    fn list<T>(&mut self, most: u32, mut f: impl FnMut(&mut Tape) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| f(self)).collect()
    }
    fn name(&mut self) -> String {
        self.of(&["a", "row", "k_1", "", "a b", "\"", "\n", "é", "v7", "x.y", "next"])
            .to_string()
    }
    fn bytes(&mut self) -> u32 {
        self.of(&[16, 8, 4, 2])
    }
    fn float(&mut self) -> f64 {
        let any = f64::from(f32::from_bits(self.number()));
        let any = if any.is_nan() { 1e-40 } else { any };
        self.of(&[0.0, -0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, 1e300, any])
    }
    fn dtype(&mut self) -> Dtype {
        self.of(&[Dtype::F32, Dtype::I32, Dtype::Bf16, Dtype::F16, Dtype::I64, Dtype::Bool])
    }
    fn frag(&mut self) -> Frag {
        let layout = self.of(&[Layout::Uniform, Layout::Mma, Layout::Lanes { vec: 4 }]);
        Frag {
            dtype: self.dtype(),
            rows: self.of(&[1, 16, 32]),
            cols: self.of(&[1, 8, 64]),
            layout,
        }
    }
    fn param(&mut self) -> ParamId {
        ParamId(self.below(4))
    }
}

/// A kernel under construction.
struct Build {
    tape: Tape,
    types: Vec<Frag>,
}

impl Build {
    fn new_val(&mut self, ty: Frag) -> Val {
        self.types.push(ty);
        Val(self.types.len() as u32 - 1)
    }
    fn any_val(&mut self) -> Val {
        Val(self.tape.below(self.types.len() as u32 + 1))
    }
    fn vals(&mut self, most: u32) -> Vec<Val> {
        (0..self.tape.below(most) + 1).map(|_| self.any_val()).collect()
    }
    fn maybe_val(&mut self) -> Option<Val> {
        if self.tape.flag() { Some(self.any_val()) } else { None }
    }
    fn view(&mut self) -> SharedView {
        let (slot, row) = (self.maybe_val(), self.maybe_val());
        let t = &mut self.tape;
        SharedView {
            buf: BufId(t.below(3)),
            slot,
            row,
            col: t.of(&[0, 16]),
            rows: t.of(&[16, 32]),
            cols: t.of(&[16, 64]),
        }
    }
    fn tile(&mut self) -> GlobalTile {
        let at = (0..self.tape.below(4))
            .map(|_| match self.tape.below(4) {
                0 => RowIndex::Row,
                1 => RowIndex::Fixed(self.any_val()),
                2 => RowIndex::RowDiv { by: self.any_val() },
                _ => RowIndex::RowRem {
                    by: self.any_val(),
                    base: self.any_val(),
                },
            })
            .collect();
        let (first_row, row_limit, t) = (self.any_val(), self.any_val(), &mut self.tape);
        GlobalTile {
            tensor: t.param(),
            at,
            col: t.of(&[0, 16]),
            rows: t.of(&[16, 32]),
            cols: t.of(&[16, 64]),
            first_row,
            row_limit,
        }
    }
    fn operand(&mut self) -> Operand {
        match self.tape.below(3) {
            0 => Operand::Reg(self.any_val()),
            1 => Operand::Shared(self.view()),
            _ => Operand::SharedT(self.view()),
        }
    }
    fn op(&mut self) -> Op {
        match self.tape.below(14) {
            0 => Op::ConstI(i64::from(self.tape.number()) - (1 << 20)),
            1 => Op::ConstF(self.tape.float() as f32),
            2 => Op::Param(self.tape.param()),
            3 => self.tape.of(&[Op::Cta, Op::WarpInRole, Op::RowIota, Op::ColIota]),
            4..=7 => {
                let op = self.tape.of(&[
                    MapOp::Add,
                    MapOp::Fma,
                    MapOp::Select,
                    MapOp::Exp2,
                    MapOp::Convert,
                    MapOp::Div,
                    MapOp::Lt,
                    MapOp::Not,
                ]);
                Op::Map(op, self.vals(3))
            }
            8 => Op::Reduce(self.tape.of(&[ReduceOp::Sum, ReduceOp::Max]), self.any_val()),
            9 => Op::Mma {
                acc: self.any_val(),
                a: self.operand(),
                b: self.operand(),
            },
            10 => Op::MmaAsync {
                acc: self.maybe_val(),
                a: self.operand(),
                b: self.operand(),
            },
            11 => Op::MmaWait {
                of: self.any_val(),
                pending: self.tape.below(3),
            },
            12 => {
                let (at, guard) = (self.vals(3), self.maybe_val());
                Op::LoadGlobal {
                    tensor: self.tape.param(),
                    at,
                    guard,
                    fill: self.tape.float(),
                }
            }
            _ => Op::LoadShared(self.view()),
        }
    }
    fn effect(&mut self) -> Effect {
        let barrier = MbarId(self.tape.below(2));
        match self.tape.below(19) {
            0 => {
                let kind = match self.tape.below(3) {
                    0 => CopyKind::Sync {
                        bytes: self.tape.bytes(),
                    },
                    1 => CopyKind::CpAsync {
                        bytes: self.tape.bytes(),
                    },
                    _ => CopyKind::Tma {
                        barrier,
                        slot: self.any_val(),
                    },
                };
                Effect::Copy {
                    kind,
                    src: self.tile(),
                    dst: self.view(),
                }
            }
            1 => Effect::CommitGroup,
            2 => Effect::WaitGroup {
                pending: self.tape.below(3),
            },
            3 => Effect::Barrier {
                id: self.tape.below(17),
                warps: self.tape.below(9),
            },
            4 => Effect::BarrierArrive {
                id: self.tape.below(17),
                warps: self.tape.below(9),
            },
            5 => Effect::MbarArrive {
                barrier,
                slot: self.any_val(),
            },
            6 => Effect::MbarExpect {
                barrier,
                slot: self.any_val(),
                bytes: self.tape.below(1 << 21),
            },
            7 => Effect::MbarWait {
                barrier,
                slot: self.any_val(),
                parity: self.any_val(),
            },
            8 => Effect::FenceProxyAsync,
            9 => Effect::MmaFence,
            10 => Effect::MmaCommit,
            11 => Effect::StoreShared {
                dst: self.view(),
                value: self.any_val(),
            },
            12 => {
                let (at, guard, value) = (self.vals(3), self.maybe_val(), self.any_val());
                Effect::StoreGlobal {
                    tensor: self.tape.param(),
                    at,
                    guard,
                    value,
                }
            }
            13 => Effect::StoreTile {
                src: self.view(),
                dst: self.tile(),
                bytes: self.tape.bytes(),
            },
            14 => Effect::TmaStore {
                src: self.view(),
                dst: self.tile(),
            },
            15 => Effect::TmaStoreWait {
                pending: self.tape.below(3),
            },
            16 => Effect::SetRegisters {
                count: self.tape.below(300),
            },
            _ => Effect::Assert {
                cond: self.any_val(),
                message: self.tape.name(),
            },
        }
    }
    fn carried(&mut self) -> Vec<Carried> {
        (0..self.tape.below(3))
            .map(|_| {
                let (init, ty) = (self.any_val(), self.tape.frag());
                let (arg, result) = (self.new_val(ty), self.new_val(ty));
                Carried {
                    arg,
                    init,
                    next: arg,
                    result,
                }
            })
            .collect()
    }
    fn stmt(&mut self, depth: u32) -> Stmt {
        match self.tape.below(if depth == 0 { 5 } else { 8 }) {
            0..=2 => {
                let op = self.op();
                let ty = self.tape.frag();
                Stmt::Let {
                    dst: self.new_val(ty),
                    op,
                }
            }
            3 | 4 => Stmt::Do(self.effect()),
            5 => {
                let (lo, hi, var) = (self.any_val(), self.any_val(), self.new_val(Frag::scalar(Dtype::I32)));
                let mut carried = self.carried();
                let body = self.block(depth - 1);
                carried.iter_mut().for_each(|c| c.next = self.any_val());
                Stmt::Loop(Loop {
                    var,
                    lo,
                    hi,
                    carried,
                    body,
                })
            }
            6 => {
                let cond = self.any_val();
                let (then, otherwise) = (self.block(depth - 1), self.block(depth - 1));
                let results = (0..self.tape.below(3))
                    .map(|_| {
                        let ty = self.tape.frag();
                        Phi {
                            result: self.new_val(ty),
                            then: self.any_val(),
                            otherwise: self.any_val(),
                        }
                    })
                    .collect();
                Stmt::If(If {
                    cond,
                    then,
                    otherwise,
                    results,
                })
            }
            _ => {
                let var = self.new_val(Frag::scalar(Dtype::I32));
                let carried = self.carried();
                let stages = (0..self.tape.below(3))
                    .map(|_| Stage {
                        lead: self.tape.below(3),
                        role: self.tape.name(),
                        block: self.block(depth - 1),
                        results: self.vals(2),
                    })
                    .collect();
                let segments = (0..self.tape.below(3))
                    .map(|_| Segment {
                        name: self.tape.name(),
                        end: self.any_val(),
                        body: self.block(depth - 1),
                        next: carried.iter().map(|_| self.any_val()).collect(),
                    })
                    .collect();
                Stmt::Stream(Stream {
                    var,
                    stages,
                    segments,
                    carried,
                })
            }
        }
    }
    fn block(&mut self, depth: u32) -> Block {
        Block((0..self.tape.below(6)).map(|_| self.stmt(depth)).collect())
    }
}

/// Any kernel whose value numbers are all defined.
fn kernel(numbers: Vec<u32>) -> Kernel {
    let mut tape = Tape { numbers, at: 0 };
    let params = tape.list(4, |t| {
        let name = t.name();
        let extent = |t: &mut Tape| {
            if t.flag() {
                Extent::Param(t.param())
            } else {
                Extent::Const(t.below(100))
            }
        };
        let kind = if t.flag() {
            ParamKind::Tensor {
                dtype: t.dtype(),
                axes: t.list(4, extent),
                access: t.of(&[Access::In, Access::Out]),
            }
        } else {
            ParamKind::Scalar { dtype: t.dtype() }
        };
        Param { name, kind }
    });
    let size = |t: &mut Tape| t.of(&[0, 1, 16, 64, u32::MAX]);
    let buffers = tape.list(3, |t| Buffer {
        name: t.name(),
        dtype: t.dtype(),
        slots: t.below(4),
        rows: size(t),
        cols: size(t),
        layout: t.of(&[BufferLayout::Rows, BufferLayout::Swizzled, BufferLayout::Panels]),
        alias: t.some(|t| BufId(t.below(3))),
    });
    let mbarriers = tape.list(2, |t| Mbarrier {
        name: t.name(),
        slots: size(t),
        arrivals: t.below(9),
    });
    let target = tape.of(&["sm_80", "sm_90a", "sm_1"]).to_string();
    let (name, min_ctas) = (tape.name(), tape.below(3));
    let mut build = Build {
        tape,
        types: Vec::new(),
    };
    let roles = (0..build.tape.below(3))
        .map(|_| Role {
            name: build.tape.name(),
            warps: size(&mut build.tape),
            registers: build.tape.some(|t| t.below(300)),
            body: build.block(3),
        })
        .collect();
    Kernel {
        name,
        target,
        params,
        buffers,
        mbarriers,
        roles,
        min_ctas,
        types: build.types,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_form_loses_nothing(numbers in prop::collection::vec(any::<u32>(), 0..600)) {
        let k = kernel(numbers);
        let text = print(&k);
        match parse(&text) {
            Ok(again) => prop_assert!(again == k, "parses to another kernel:\n{text}"),
            Err(e) => prop_assert!(false, "{e}\n{text}"),
        }
    }

    #[test]
    fn verifier_takes_any_kernel(numbers in prop::collection::vec(any::<u32>(), 0..600)) {
        let k = kernel(numbers);
        // An error that names a statement names one that is there.
        let count = drawloom_kernel::text::statements(&k).len() as u32;
        prop_assert!(verify(&k).iter().all(|e| e.stmt.is_none_or(|n| n < count)));
    }

    #[test]
    fn interpreter_takes_any_change(file in any::<prop::sample::Index>(), edits in prop::collection::vec(any::<[u32; 3]>(), 1..4)) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filetests/kernel");
        let names = ["attention_sm80", "attention_sm90", "stream_sync", "packed_rows", "row_local", "arithmetic"];
        let path = dir.join(format!("{}.kir", names[file.index(names.len())]));
        let text = fs::read_to_string(path).expect("the file test is there");
        let mut launch = Launch::read(&text).expect("its launch can be read");
        let mut lines: Vec<String> = text.lines().filter(|l| !l.starts_with(';')).map(str::to_string).collect();
        for [what, a, b] in edits {
            let (a, b) = (a as usize % lines.len(), b as usize % lines.len());
            match what % 4 {
                0 => { lines.remove(a); }
                1 => lines.swap(a, b),
                2 => { let line = lines[a].clone(); lines.insert(b, line); }
                _ => lines[a] = other_number(&lines[a], b as u32),
            }
        }
        let text = lines.join("\n");
        let Ok(kernel) = parse(&text) else { return Ok(()) };
        let options = Options { seed: 1, max_steps: 20_000 };
        if let Err(fault) = run(&kernel, launch.grid.min(4), &mut launch.args, &options) {
            prop_assert_eq!(fault.kind == FaultKind::Invalid, !verify(&kernel).is_empty());
        }
    }
}

/// The line with one of its numbers changed.
fn other_number(line: &str, by: u32) -> String {
    let starts: Vec<usize> = line
        .char_indices()
        .filter(|(i, c)| c.is_ascii_digit() && !line[..*i].ends_with(|p: char| p.is_ascii_digit()))
        .map(|(i, _)| i)
        .collect();
    let Some(&start) = starts.get(by as usize % starts.len().max(1)) else {
        return line.to_string();
    };
    let len = line[start..]
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(line.len() - start);
    let number: u32 = line[start..start + len].parse().unwrap_or(0);
    let other = [0, 1, number.wrapping_add(1), number.wrapping_sub(1), 16, u32::MAX][by as usize % 6];
    format!("{}{other}{}", &line[..start], &line[start + len..])
}
