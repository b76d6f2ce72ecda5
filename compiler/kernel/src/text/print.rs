//! A kernel to text.

use std::fmt::Write;

use crate::ir::*;

/// The text of a kernel; see [the grammar](super).
pub fn print(kernel: &Kernel) -> String {
    let mut out = String::new();
    let o = &mut out;
    line(
        o,
        0,
        format!(
            "kernel {} target {} min_ctas {} {{",
            name(&kernel.name),
            name(&kernel.target),
            kernel.min_ctas
        ),
    );
    for (i, p) in kernel.params.iter().enumerate() {
        let kind = match &p.kind {
            ParamKind::Scalar { dtype } => dtype.name().to_string(),
            ParamKind::Tensor { dtype, axes, access } => {
                let access = match access {
                    Access::In => "in",
                    Access::Out => "out",
                };
                let axes = axes.iter().map(|e| match e {
                    Extent::Const(n) => n.to_string(),
                    Extent::Param(p) => p.to_string(),
                });
                format!("{access} {}[{}]", dtype.name(), axes.collect::<Vec<_>>().join(", "))
            }
        };
        line(o, 1, format!("param p{i} {} : {kind}", name(&p.name)));
    }
    for (i, b) in kernel.buffers.iter().enumerate() {
        let layout = match b.layout {
            BufferLayout::Rows => "",
            BufferLayout::Swizzled => " swizzled",
            BufferLayout::Panels => " panels",
        };
        let alias = b.alias.map(|a| format!(" alias {a}")).unwrap_or_default();
        let (n, ty) = (name(&b.name), b.dtype.name());
        line(
            o,
            1,
            format!(
                "shared s{i} {n} : {ty}[{}][{}x{}]{layout}{alias}",
                b.slots, b.rows, b.cols
            ),
        );
    }
    for (i, m) in kernel.mbarriers.iter().enumerate() {
        line(
            o,
            1,
            format!(
                "mbarrier m{i} {} : slots {} arrivals {}",
                name(&m.name),
                m.slots,
                m.arrivals
            ),
        );
    }
    for r in &kernel.roles {
        let registers = r.registers.map(|n| format!(" registers {n}")).unwrap_or_default();
        line(o, 1, format!("role {} warps {}{registers} {{", name(&r.name), r.warps));
        block(o, 2, kernel, &r.body);
        line(o, 1, "}".to_string());
    }
    line(o, 0, "}".to_string());
    out
}

/// The first line of a statement, without the opening brace of its body.
pub fn head(kernel: &Kernel, stmt: &Stmt) -> String {
    match stmt {
        Stmt::Let { dst, op: o } => format!("{dst} = {} : {}", op(o), frag(kernel, *dst)),
        Stmt::Do(e) => effect(e),
        Stmt::Loop(l) => format!("loop {} in {}..{}{}", l.var, l.lo, l.hi, carried(kernel, &l.carried)),
        Stmt::If(i) => {
            let results = i
                .results
                .iter()
                .map(|r| format!("{} : {}", r.result, frag(kernel, r.result)));
            let results = list(results);
            if results.is_empty() {
                format!("if {}", i.cond)
            } else {
                format!("if {} -> ({results})", i.cond)
            }
        }
        Stmt::Stream(s) => format!("stream {}{}", s.var, carried(kernel, &s.carried)),
    }
}

fn line(o: &mut String, depth: usize, text: String) {
    writeln!(o, "{:1$}{text}", "", 2 * depth).expect("invariant: writing to a string does not fail");
}

fn block(o: &mut String, depth: usize, k: &Kernel, b: &Block) {
    for stmt in &b.0 {
        let first = head(k, stmt);
        match stmt {
            Stmt::Let { .. } | Stmt::Do(_) => line(o, depth, first),
            Stmt::Loop(l) => {
                line(o, depth, first + " {");
                block(o, depth + 1, k, &l.body);
                values(o, depth + 1, "next", l.carried.iter().map(|c| c.next));
                line(o, depth, "}".to_string());
            }
            Stmt::If(i) => {
                line(o, depth, first + " {");
                block(o, depth + 1, k, &i.then);
                values(o, depth + 1, "yield", i.results.iter().map(|r| r.then));
                if !i.otherwise.0.is_empty() || !i.results.is_empty() {
                    line(o, depth, "} else {".to_string());
                    block(o, depth + 1, k, &i.otherwise);
                    values(o, depth + 1, "yield", i.results.iter().map(|r| r.otherwise));
                }
                line(o, depth, "}".to_string());
            }
            Stmt::Stream(s) => {
                line(o, depth, first + " {");
                for g in &s.stages {
                    let results = list(g.results.iter().map(Val::to_string));
                    let results = if results.is_empty() {
                        results
                    } else {
                        format!(" results ({results})")
                    };
                    line(
                        o,
                        depth + 1,
                        format!("stage lead {} role {}{results} {{", g.lead, name(&g.role)),
                    );
                    block(o, depth + 2, k, &g.block);
                    line(o, depth + 1, "}".to_string());
                }
                for g in &s.segments {
                    line(o, depth + 1, format!("segment {} until {} {{", name(&g.name), g.end));
                    block(o, depth + 2, k, &g.body);
                    values(o, depth + 2, "next", g.next.iter().copied());
                    line(o, depth + 1, "}".to_string());
                }
                line(o, depth, "}".to_string());
            }
        }
    }
}

fn values(o: &mut String, depth: usize, keyword: &str, values: impl Iterator<Item = Val>) {
    let values = list(values.map(|v| v.to_string()));
    if !values.is_empty() {
        line(o, depth, format!("{keyword} {values}"));
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// A name as it stands, or quoted if it is not one token.
fn name(s: &str) -> String {
    let plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { s.to_string() } else { format!("{s:?}") }
}

fn carried(k: &Kernel, carried: &[Carried]) -> String {
    let items = list(
        carried
            .iter()
            .map(|c| format!("{} = {} -> {} : {}", c.arg, c.init, c.result, frag(k, c.arg))),
    );
    if items.is_empty() {
        items
    } else {
        format!(" carried ({items})")
    }
}

/// The type of a value; a number that has none (an error for the verifier) prints as `bool`.
fn frag(k: &Kernel, v: Val) -> String {
    let f = k.types.get(v.index()).copied().unwrap_or(Frag::scalar(Dtype::Bool));
    if f == Frag::scalar(f.dtype) {
        return f.dtype.name().to_string();
    }
    let layout = match f.layout {
        Layout::Uniform => "uniform".to_string(),
        Layout::Mma => "mma".to_string(),
        Layout::Lanes { vec } => format!("lanes.{vec}"),
    };
    format!("{}[{}x{}] {layout}", f.dtype.name(), f.rows, f.cols)
}

fn op(op: &Op) -> String {
    match op {
        Op::ConstF(x) => format!("const.f {x:?}").replace("NaN", "nan"),
        Op::ConstI(x) => format!("const.i {x}"),
        Op::Param(p) => format!("param {p}"),
        Op::Cta => "cta".to_string(),
        Op::WarpInRole => "warp_in_role".to_string(),
        Op::RowIota => "row_iota".to_string(),
        Op::ColIota => "col_iota".to_string(),
        Op::Map(m, args) => format!("map.{} {}", map_name(*m), list(args.iter().map(Val::to_string))),
        Op::Reduce(ReduceOp::Sum, v) => format!("reduce.sum {v}"),
        Op::Reduce(ReduceOp::Max, v) => format!("reduce.max {v}"),
        Op::Any(v) => format!("any {v}"),
        Op::Mma { acc, a, b } => format!("mma {acc}, {}, {}", operand(a), operand(b)),
        Op::MmaAsync { acc, a, b } => {
            let acc = acc.map_or("zero".to_string(), |v| v.to_string());
            format!("mma_async {acc}, {}, {}", operand(a), operand(b))
        }
        Op::MmaWait { of, pending } => format!("mma_wait {of} pending {pending}"),
        Op::LoadGlobal {
            tensor,
            at,
            guard,
            fill,
        } => {
            let fill = if fill.to_bits() == 0 {
                String::new()
            } else {
                format!(" fill {fill:?}").replace("NaN", "nan")
            };
            format!("load_global {}{}{fill}", element(*tensor, at), guarded(*guard))
        }
        Op::LoadShared(view) => format!("load_shared {}", shared(view)),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Copy { kind, src, dst } => {
            let kind = match kind {
                CopyKind::Sync { bytes } => format!("sync.{bytes}"),
                CopyKind::CpAsync { bytes } => format!("cp_async.{bytes}"),
                CopyKind::Tma { barrier, slot } => format!("tma {barrier}[{slot}]"),
            };
            format!("copy {kind} {} <- {}", shared(dst), tile(src))
        }
        Effect::CommitGroup => "commit_group".to_string(),
        Effect::WaitGroup { pending } => format!("wait_group {pending}"),
        Effect::Barrier { id, warps } => format!("barrier {id} warps {warps}"),
        Effect::BarrierArrive { id, warps } => format!("barrier_arrive {id} warps {warps}"),
        Effect::MbarArrive { barrier, slot } => format!("mbar_arrive {barrier}[{slot}]"),
        Effect::MbarExpect { barrier, slot, bytes } => format!("mbar_expect {barrier}[{slot}] bytes {bytes}"),
        Effect::MbarWait { barrier, slot, parity } => format!("mbar_wait {barrier}[{slot}] parity {parity}"),
        Effect::FenceProxyAsync => "fence_proxy_async".to_string(),
        Effect::MmaFence => "mma_fence".to_string(),
        Effect::MmaCommit => "mma_commit".to_string(),
        Effect::StoreShared { dst, value } => format!("store_shared {} <- {value}", shared(dst)),
        Effect::StoreGlobal {
            tensor,
            at,
            guard,
            value,
        } => {
            format!("store_global {} <- {value}{}", element(*tensor, at), guarded(*guard))
        }
        Effect::StoreTile { src, dst, bytes } => format!("store_tile.{bytes} {} <- {}", tile(dst), shared(src)),
        Effect::TmaStore { src, dst } => format!("tma_store {} <- {}", tile(dst), shared(src)),
        Effect::TmaStoreWait { pending } => format!("tma_store_wait {pending}"),
        Effect::SetRegisters { count } => format!("set_registers {count}"),
        Effect::Assert { cond, message } => format!("assert {cond} {message:?}"),
    }
}

fn element(tensor: ParamId, at: &Index) -> String {
    format!("{tensor}[{}]", list(at.iter().map(Val::to_string)))
}

fn guarded(guard: Option<Val>) -> String {
    guard.map(|g| format!(" guard {g}")).unwrap_or_default()
}

fn or_zero(v: Option<Val>) -> String {
    v.map_or("0".to_string(), |v| v.to_string())
}

fn shared(v: &SharedView) -> String {
    format!(
        "{}[{}, {}+{}, {}+{}]",
        v.buf,
        or_zero(v.slot),
        or_zero(v.row),
        v.rows,
        v.col,
        v.cols
    )
}

fn operand(o: &Operand) -> String {
    match o {
        Operand::Reg(v) => v.to_string(),
        Operand::Shared(v) => shared(v),
        Operand::SharedT(v) => format!("trans {}", shared(v)),
    }
}

fn tile(t: &GlobalTile) -> String {
    let mut at: Vec<String> = (t.at.iter())
        .map(|i| match i {
            RowIndex::Fixed(v) => v.to_string(),
            RowIndex::Row => "row".to_string(),
            RowIndex::RowDiv { by } => format!("row / {by}"),
            RowIndex::RowRem { by, base } => format!("{base} + row % {by}"),
        })
        .collect();
    at.push(format!("{}+{}", t.col, t.cols));
    format!(
        "{}[{}] rows {}+{} limit {}",
        t.tensor,
        at.join(", "),
        t.first_row,
        t.rows,
        t.row_limit
    )
}

/// Every elementwise operation with its name in the text.
pub(super) const MAP_NAMES: [(MapOp, &str); 24] = [
    (MapOp::Add, "add"),
    (MapOp::Sub, "sub"),
    (MapOp::Mul, "mul"),
    (MapOp::Fma, "fma"),
    (MapOp::Min, "min"),
    (MapOp::Max, "max"),
    (MapOp::Div, "div"),
    (MapOp::Rem, "rem"),
    (MapOp::Neg, "neg"),
    (MapOp::Abs, "abs"),
    (MapOp::Exp2, "exp2"),
    (MapOp::Log2, "log2"),
    (MapOp::Rcp, "rcp"),
    (MapOp::Rsqrt, "rsqrt"),
    (MapOp::Sqrt, "sqrt"),
    (MapOp::Tanh, "tanh"),
    (MapOp::Convert, "convert"),
    (MapOp::Lt, "lt"),
    (MapOp::Le, "le"),
    (MapOp::Eq, "eq"),
    (MapOp::And, "and"),
    (MapOp::Or, "or"),
    (MapOp::Not, "not"),
    (MapOp::Select, "select"),
];

fn map_name(op: MapOp) -> &'static str {
    MAP_NAMES
        .into_iter()
        .find(|(o, _)| *o == op)
        .expect("invariant: the table has every operation")
        .1
}
