//! The tiled form of a log-sum-exp fold: a query tile in registers, key and value tiles streaming past.
//!
//! Per tile: `S = Q K^T` on the matrix unit, the score expression, the mask where a tile needs it, the running maximum
//! `m` of `c S` (`c` is the score's constant factor times `log2(e)`), `P = 2^(c S - m)` in one fused multiply-add and one
//! exponential an element, row sums as per-lane partials, and `O = O 2^(m_old - m) + P V`. The finish (`o / l`, log-sum-exp, empty rows) is the
//! graph's own output expression over the folded state, so the split form stops before it and `merge` goes on.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, Algorithm 1; Milakov and Gimelshein 2018, arXiv:1805.02867.

use super::builder::{Builder, whole};
use super::expr::{Coord, Exprs, LOG2_E, Lowered as Value, Table};
use super::operator::Operator;
use super::sym::Leaves;
use super::tiles::{TileKind, Tiles, lower_ranges};
use super::{Lowered, Meaning, Unsupported};
use crate::schedule::{Keys, Pack, QueryHome, Schedule};
use drawloom_kernel::ir::{
    Access, BufId, Carried, CopyKind, Dtype, Effect, Extent, Frag, GlobalTile, Layout, MapOp, Op, Operand, ParamId,
    ReduceOp, RowIndex, Segment, SharedView, Stage, Stmt, Stream, Val,
};
use drawloom_graph::ir::Op as GOp;
use drawloom_graph::ranges::{Interval, Piece, Ranges, Sym};
use drawloom_lang::spec::{Align, AxisId, AxisRole};
use std::collections::BTreeMap;

/// Everything about one query tile that later parts need.
struct Tile {
    /// Index on each outer axis of the query tensor; with packed heads, the head axis is absent.
    fixed: BTreeMap<AxisId, Val>,
    /// Number of the tile's first row.
    first_row: Val,
    /// Rows in all.
    rows: Val,
    /// First row of this warp within the tile.
    warp_row: Val,
    /// Row numbers of this warp, `rows x 1`.
    row: Val,
    /// Which of them exist.
    valid: Val,
    /// Heads per key head, if the key heads are grouped.
    ratio: Option<Val>,
    /// This CTA's split and the number of splits.
    split: Option<(Val, Val)>,
}

/// Parameters by name, and sizes by axis.
struct Params {
    tensors: BTreeMap<String, ParamId>,
    lens: BTreeMap<AxisId, Val>,
    scalars: BTreeMap<String, Val>,
    partials: Vec<ParamId>,
    splits: Option<Val>,
    meaning: Vec<Meaning>,
}

/// Lowers the stage under a schedule for `sm_80`-class matrix units.
///
/// # Errors
/// [`Unsupported`] if the operator has no tiled form.
pub fn attend(op: &Operator, schedule: &Schedule, name: &str, target: &str) -> Result<Lowered, Unsupported> {
    let d = op.head_dim().ok_or_else(|| Unsupported::new("a head dimension known only at run time"))?;
    let e = op.value_dim().ok_or_else(|| Unsupported::new("a value dimension known only at run time"))?;
    let elem = op.dtype(op.spec.inputs[op.q.index()].ty);
    let (k, v) = (&op.spec.inputs[op.attend.k.index()], &op.spec.inputs[op.attend.v.index()]);
    if !matches!(elem, Dtype::F16 | Dtype::Bf16) || op.dtype(k.ty) != elem || op.dtype(v.ty) != elem {
        return Err(Unsupported::new("queries, keys and values that are not of one 16-bit type"));
    }
    if d % 16 != 0 || e % 16 != 0 {
        return Err(Unsupported::new(format!("head dimensions {d} and {e} (multiples of 16 have one)")));
    }
    let (mt, warps) = (schedule.block_m / schedule.warps, schedule.warps);
    let mut b = Builder::new(name, target);
    let params = declare(&mut b, op, schedule, e)?;
    let tile = locate(&mut b, op, schedule, &params, mt)?;
    let exprs = environment(&mut b, op, schedule, &params, &tile)?;
    let tiles = ranges(&mut b, op, schedule, &params, &tile, &exprs)?;
    let (begin, segments) = match tile.split {
        None => (b.int(0), tiles.segments.clone()),
        Some((split, splits)) => {
            let (begin, segments, _) = tiles.part(&mut b, split, splits);
            (begin, segments)
        }
    };

    // The query tile.
    let q_buf = b.buffer("q", elem, 1, schedule.block_m, d, None);
    let k_buf = b.buffer("k", elem, schedule.stages, schedule.block_n, d, None);
    let v_buf = b.buffer("v", elem, schedule.stages, schedule.block_n, e, None);
    let kind = match schedule.access {
        2 => CopyKind::Sync { bytes: 2 },
        bytes => CopyKind::CpAsync { bytes },
    };
    let q_decl = &op.spec.inputs[op.q.index()];
    let src = GlobalTile {
        tensor: params.tensors[&q_decl.name],
        at: row_index(&mut b, op, schedule, &tile, &q_decl.axes),
        col: 0,
        rows: schedule.block_m,
        cols: d,
        first_row: tile.first_row,
        row_limit: tile.rows,
    };
    let dst = whole(&b.kernel, q_buf, None);
    b.effect(Effect::Copy { kind, src, dst });
    b.effect(Effect::CommitGroup);
    let mut exprs = exprs;
    let (factor, score) = op.factored_score();
    exprs.hoist(&mut b, score)?;
    if let Some(mask) = op.mask {
        exprs.hoist(&mut b, mask)?;
    }
    b.effect(Effect::WaitGroup { pending: 0 });
    b.effect(Effect::Barrier { id: 0, warps });
    let q_view = SharedView { buf: q_buf, slot: None, row: Some(tile.warp_row), col: 0, rows: mt, cols: d };
    let q_operand = match schedule.query {
        QueryHome::Shared => Operand::Shared(q_view),
        QueryHome::Registers => {
            let ty = Frag { dtype: elem, rows: mt, cols: d, layout: Layout::Mma };
            Operand::Reg(b.def(ty, Op::LoadShared(q_view)))
        }
    };

    let looped = Loop { op, schedule, tiles: &tiles, begin, k_buf, v_buf, q: q_operand, factor, elem, mt, e };
    let stream = looped.stream(&mut b, &params, &tile, &exprs, &segments)?;
    let (m, l, o) = (stream.carried[0].result, stream.carried[1].result, stream.carried[2].result);
    b.push(Stmt::Stream(stream));

    // The state in the graph's units: the maximum in nats, the whole row's sum.
    let ln_2 = b.float(std::f32::consts::LN_2);
    let m = b.mapf(MapOp::Mul, &[m, ln_2]);
    let l = b.reduce(ReduceOp::Sum, l, 1);
    match schedule.keys {
        Keys::Split => store_partials(&mut b, op, schedule, &params, &tile, [m, l, o]),
        Keys::All => {
            for (comp, state) in [(op.fold.m, m), (op.fold.l, l), (op.fold.o, o)] {
                for (n, node) in op.graph.nodes.iter().enumerate() {
                    if node.op == (GOp::Get { fold: op.fold_id, comp }) {
                        exprs.memo.insert(drawloom_graph::ir::Val(n as u32), Value::One(state));
                    }
                }
            }
            store_outputs(&mut b, op, schedule, &params, &tile, &mut exprs, q_buf, elem, e)?;
        }
    }
    Ok(Lowered { kernel: b.finish(warps, schedule.min_ctas), meaning: params.meaning })
}

/// Declares the parameters: inputs, outputs (or partial states), sizes, scalars.
fn declare(b: &mut Builder, op: &Operator, schedule: &Schedule, e: u32) -> Result<Params, Unsupported> {
    let mut meaning = Vec::new();
    let mut size_params = BTreeMap::new();
    for (n, axis) in op.spec.axes.iter().enumerate() {
        let id = AxisId(n as u32);
        if op.size(id).is_none() {
            size_params.insert(id, b.scalar_param(&format!("len_{}", axis.name), Dtype::I32));
            meaning.push(Meaning::Size(axis.name.clone()));
        }
    }
    let splits_param = (schedule.keys == Keys::Split).then(|| {
        meaning.push(Meaning::Splits);
        b.scalar_param("splits", Dtype::I32)
    });
    let extent = |id: AxisId| match op.size(id) {
        Some(n) => Extent::Const(n),
        None => Extent::Param(size_params[&id]),
    };
    let mut tensors = BTreeMap::new();
    for input in &op.spec.inputs {
        let axes = input.axes.iter().map(|&a| extent(a)).collect();
        tensors.insert(input.name.clone(), b.tensor(&input.name, op.dtype(input.ty), axes, Access::In));
        meaning.push(Meaning::Tensor(input.name.clone()));
    }
    let mut partials = Vec::new();
    match schedule.keys {
        Keys::All => {
            for output in &op.spec.outputs {
                let axes = output.axes.iter().map(|&a| extent(a)).collect();
                tensors.insert(output.name.clone(), b.tensor(&output.name, op.dtype(output.ty), axes, Access::Out));
                meaning.push(Meaning::Tensor(output.name.clone()));
            }
        }
        Keys::Split => {
            let splits = splits_param.expect("invariant: a split kernel has the parameter");
            let q_axes = &op.spec.inputs[op.q.index()].axes;
            for (comp, part) in ["m", "l", "o"].into_iter().enumerate() {
                let mut axes = vec![Extent::Param(splits)];
                let mut names = vec!["splits".to_owned()];
                for &a in &q_axes[..q_axes.len() - 1] {
                    axes.push(extent(a));
                    names.push(op.spec.axes[a.index()].name.clone());
                }
                if part == "o" {
                    axes.push(Extent::Const(e));
                    names.push(e.to_string());
                }
                partials.push(b.tensor(&format!("part_{part}"), Dtype::F32, axes, Access::Out));
                meaning.push(Meaning::Partial { comp, axes: names });
            }
        }
    }
    let mut scalars = BTreeMap::new();
    for scalar in &op.spec.scalars {
        let dtype = match scalar.ty {
            drawloom_lang::spec::Dtype::F32 => Dtype::F32,
            drawloom_lang::spec::Dtype::I32 => Dtype::I32,
            drawloom_lang::spec::Dtype::F16 | drawloom_lang::spec::Dtype::Bf16 => {
                return Err(Unsupported::new(format!("the 16-bit scalar `{}`", scalar.name)));
            }
        };
        let param = b.scalar_param(&scalar.name, dtype);
        meaning.push(Meaning::Scalar(scalar.name.clone()));
        let mut value = b.read_param(param);
        if dtype == Dtype::I32 {
            // Distances are below 2^30; a window that is wider is as good as infinite, and must not overflow.
            let (low, high) = (b.int(-(1 << 30)), b.int(1 << 30));
            value = b.max(value, low);
            value = b.min(value, high);
        }
        scalars.insert(scalar.name.clone(), value);
    }
    let mut lens = BTreeMap::new();
    for n in 0..op.spec.axes.len() {
        let id = AxisId(n as u32);
        let v = match op.size(id) {
            Some(size) => b.int(i64::from(size)),
            None => b.read_param(size_params[&id]),
        };
        lens.insert(id, v);
    }
    let splits = splits_param.map(|p| b.read_param(p));
    Ok(Params { tensors, lens, scalars, partials, splits, meaning })
}

/// Which tile this CTA works on: the split is fastest, then the row tile (last rows, which see the most keys under causal
/// masks, first), then the outer axes from the last to the first.
fn locate(b: &mut Builder, op: &Operator, schedule: &Schedule, params: &Params, mt: u32) -> Result<Tile, Unsupported> {
    let group = op.group();
    let ratio = group.map(|(g, h)| b.div(params.lens[&h], params.lens[&g]));
    let packed = match schedule.pack {
        Pack::Queries => None,
        Pack::QueriesAndHeads => {
            Some((group.ok_or_else(|| Unsupported::new("packed heads without a grouped axis"))?, ratio))
        }
    };
    let queries = params.lens[&op.attend.query];
    let rows = match packed {
        Some((_, Some(ratio))) => b.mul(queries, ratio),
        Some((_, None)) | None => queries,
    };
    let mut rest = b.def(Frag::scalar(Dtype::I32), Op::Cta);
    let split = params.splits.map(|splits| {
        let split = b.rem(rest, splits);
        rest = b.div(rest, splits);
        (split, splits)
    });
    let row_tiles = b.ceil_div(rows, schedule.block_m);
    let m = b.rem(rest, row_tiles);
    rest = b.div(rest, row_tiles);
    let one = b.int(1);
    let last = b.sub(row_tiles, one);
    let m = b.sub(last, m);
    let mut fixed = BTreeMap::new();
    let outer: Vec<AxisId> = op
        .outer()
        .into_iter()
        .map(|a| match packed {
            Some(((g, h), _)) if a == h => g,
            Some(_) | None => a,
        })
        .collect();
    for (n, &axis) in outer.iter().enumerate().rev() {
        if n == 0 {
            fixed.insert(axis, rest);
        } else {
            let len = params.lens[&axis];
            let index = b.rem(rest, len);
            fixed.insert(axis, index);
            rest = b.div(rest, len);
        }
    }
    // A grouped key head follows from the query head.
    if let (None, Some((g, h)), Some(ratio)) = (&packed, group, ratio) {
        let index = b.div(fixed[&h], ratio);
        fixed.insert(g, index);
    }
    let block = b.int(i64::from(schedule.block_m));
    let first_row = b.mul(m, block);
    let warp = b.def(Frag::scalar(Dtype::I32), Op::WarpInRole);
    let height = b.int(i64::from(mt));
    let warp_row = b.mul(warp, height);
    let base = b.add(first_row, warp_row);
    let iota = b.def(Frag { dtype: Dtype::I32, rows: mt, cols: 1, layout: Layout::Mma }, Op::RowIota);
    let row = b.map(MapOp::Add, Dtype::I32, &[iota, base]);
    let valid = b.test(MapOp::Lt, &[row, rows]);
    Ok(Tile { fixed, first_row, rows, warp_row, row, valid, ratio, split })
}

/// The index of row `n` of a query-side tile on each axis but the last.
fn row_index(b: &mut Builder, op: &Operator, schedule: &Schedule, tile: &Tile, axes: &[AxisId]) -> Vec<RowIndex> {
    axes[..axes.len() - 1]
        .iter()
        .map(|&a| match (schedule.pack, tile.ratio, op.group()) {
            (Pack::QueriesAndHeads, Some(by), Some((g, h))) => {
                if a == op.attend.query {
                    RowIndex::RowDiv { by }
                } else if a == h {
                    let base = b.mul(tile.fixed[&g], by);
                    RowIndex::RowRem { by, base }
                } else {
                    RowIndex::Fixed(tile.fixed[&a])
                }
            }
            (Pack::Queries | Pack::QueriesAndHeads, _, _) => {
                if a == op.attend.query { RowIndex::Row } else { RowIndex::Fixed(tile.fixed[&a]) }
            }
        })
        .collect()
}

/// Per row (`rows x 1`) or fixed: the index on each outer axis and the query axis.
fn row_coords(b: &mut Builder, op: &Operator, schedule: &Schedule, tile: &Tile) -> BTreeMap<AxisId, Val> {
    let mut coords = tile.fixed.clone();
    match (schedule.pack, tile.ratio, op.group()) {
        (Pack::QueriesAndHeads, Some(ratio), Some((g, h))) => {
            let i = b.map(MapOp::Div, Dtype::I32, &[tile.row, ratio]);
            let r = b.map(MapOp::Rem, Dtype::I32, &[tile.row, ratio]);
            let base = b.mul(tile.fixed[&g], ratio);
            let head = b.map(MapOp::Add, Dtype::I32, &[r, base]);
            coords.insert(op.attend.query, i);
            coords.insert(h, head);
        }
        (Pack::Queries | Pack::QueriesAndHeads, _, _) => {
            coords.insert(op.attend.query, tile.row);
        }
    }
    coords
}

fn environment<'g>(
    b: &mut Builder,
    op: &Operator<'g>,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
) -> Result<Exprs<'g>, Unsupported> {
    let mut exprs = Exprs::new(op.graph, op.axis(op.attend.key));
    for (id, v) in row_coords(b, op, schedule, tile) {
        let coord = if b.ty(v).is_scalar() { Coord::Fixed(v) } else { Coord::Row(v, tile.valid) };
        exprs.coords.insert(op.axis(id), coord);
    }
    let key = Coord::Key { base: None, len: params.lens[&op.attend.key], cols: schedule.block_n };
    exprs.coords.insert(op.axis(op.attend.key), key);
    for (&id, &v) in &params.lens {
        exprs.lens.insert(op.axis(id), v);
    }
    for input in &op.spec.inputs {
        let table = Table {
            param: params.tensors[&input.name],
            dtype: op.dtype(input.ty),
            axes: input.axes.iter().map(|&a| op.axis(a)).collect(),
        };
        exprs.tables.insert(input.name.clone(), table);
    }
    exprs.scalars = params.scalars.clone();
    Ok(exprs)
}

/// The tiles to visit, from the mask's closed-form ranges at this tile's first and last query.
fn ranges(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
    exprs: &Exprs,
) -> Result<Tiles, Unsupported> {
    let (queries, keys) = (params.lens[&op.attend.query], params.lens[&op.attend.key]);
    let height = b.int(i64::from(schedule.block_m));
    let one = b.int(1);
    let end = b.add(tile.first_row, height);
    let end = b.min(end, tile.rows);
    let last = b.sub(end, one);
    let (mut lo, mut hi) = (tile.first_row, last);
    if let (Pack::QueriesAndHeads, Some(ratio)) = (schedule.pack, tile.ratio) {
        lo = b.div(lo, ratio);
        hi = b.div(hi, ratio);
    }
    if op.spec.axes[op.attend.query.index()].role == AxisRole::Query(Align::End) {
        let offset = b.sub(keys, queries);
        lo = b.add(lo, offset);
        hi = b.add(hi, offset);
    }
    let name = |id: &AxisId| op.spec.axes[id.index()].name.clone();
    let leaves = Leaves {
        row_lo: lo,
        row_hi: hi,
        lens: &params.lens.iter().map(|(id, &v)| (name(id), v)).collect(),
        fixed: &tile.fixed.iter().map(|(id, &v)| (name(id), v)).collect(),
        scalars: &params.scalars,
        tables: &exprs.tables,
        extents: &op
            .spec
            .inputs
            .iter()
            .map(|i| (i.name.clone(), i.axes.iter().map(|a| params.lens[a]).collect()))
            .collect(),
    };
    match (schedule.pack, op.group()) {
        // The heads of a group differ within a packed tile: ranges that depend on the head are those of no head.
        (Pack::QueriesAndHeads, Some((_, h))) if depends_on(&op.ranges, &name(&h)) => {
            let keys = Sym::Len(name(&op.attend.key));
            let possible = Interval { lo: Sym::Const(0), hi: keys };
            let certain = Interval { lo: Sym::Const(0), hi: Sym::Const(0) };
            let anything = Ranges { pieces: vec![Piece { possible, certain }] };
            lower_ranges(b, &leaves, &anything, schedule.block_n)
        }
        (Pack::Queries | Pack::QueriesAndHeads, _) => lower_ranges(b, &leaves, &op.ranges, schedule.block_n),
    }
}

/// Whether an endpoint depends on the index on an axis that is fixed in a tile.
fn depends_on(ranges: &Ranges, axis: &str) -> bool {
    let mut found = false;
    for piece in &ranges.pieces {
        for end in [&piece.possible.lo, &piece.possible.hi, &piece.certain.lo, &piece.certain.hi] {
            end.visit(&mut |sym| found |= matches!(sym, Sym::Fixed(name) if name == axis));
        }
    }
    found
}

/// What the loop is made of.
struct Loop<'a, 'g> {
    op: &'a Operator<'g>,
    schedule: &'a Schedule,
    tiles: &'a Tiles,
    begin: Val,
    k_buf: BufId,
    v_buf: BufId,
    q: Operand,
    factor: f64,
    elem: Dtype,
    mt: u32,
    e: u32,
}

impl<'g> Loop<'_, 'g> {
    fn stream(
        &self,
        b: &mut Builder,
        params: &Params,
        tile: &Tile,
        exprs: &Exprs<'g>,
        segments: &[(TileKind, Val)],
    ) -> Result<Stream, Unsupported> {
        let f32s = |rows, cols| Frag { dtype: Dtype::F32, rows, cols, layout: Layout::Mma };
        let (m_ty, l_ty, o_ty) = (f32s(self.mt, 1), f32s(self.mt, 4), f32s(self.mt, self.e));
        let carried: Vec<Carried> = [(m_ty, f32::NEG_INFINITY), (l_ty, 0.0), (o_ty, 0.0)]
            .into_iter()
            .map(|(ty, init)| {
                let init = b.def(ty, Op::ConstF(init));
                let arg = b.kernel.new_val(ty);
                Carried { arg, init, next: arg, result: b.kernel.new_val(ty) }
            })
            .collect();
        let var = b.kernel.new_val(Frag::scalar(Dtype::I32));
        // With one slot, keys are fetched a tile ahead as soon as the products with them are done, and values when the
        // tile begins; with more, both run `stages - 1` tiles ahead.
        let (k_lead, v_lead) = match self.schedule.stages {
            1 => (1, 0),
            n => (n - 1, n - 1),
        };
        let stages = vec![
            self.fetch(b, params, tile, var, self.op.attend.k, self.k_buf, k_lead),
            self.fetch(b, params, tile, var, self.op.attend.v, self.v_buf, v_lead),
        ];
        let mut bodies = Vec::new();
        for &(kind, end) in segments {
            b.open();
            let next = self.body(b, var, kind, exprs, [carried[0].arg, carried[1].arg, carried[2].arg])?;
            let name = match kind {
                TileKind::Full => "full",
                TileKind::Edge => "edge",
            };
            bodies.push(Segment { name: name.to_owned(), end, body: b.close(), next: next.to_vec() });
        }
        Ok(Stream { var, stages, segments: bodies, carried })
    }

    /// First key of the tile that iteration `var` visits.
    fn base(&self, b: &mut Builder, var: Val) -> Val {
        let t = b.add(self.begin, var);
        let tile = self.tiles.tile(b, t);
        let by = b.int(i64::from(self.schedule.block_n));
        b.mul(tile, by)
    }

    fn slot(&self, b: &mut Builder, var: Val) -> Option<Val> {
        (self.schedule.stages > 1).then(|| {
            let n = b.int(i64::from(self.schedule.stages));
            b.rem(var, n)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the two fetches differ in tensor, buffer and lead")]
    fn fetch(
        &self,
        b: &mut Builder,
        params: &Params,
        tile: &Tile,
        var: Val,
        input: drawloom_lang::spec::InputId,
        buf: BufId,
        lead: u32,
    ) -> Stage {
        b.open();
        let decl = &self.op.spec.inputs[input.index()];
        let first_row = self.base(b, var);
        let slot = self.slot(b, var);
        let at = decl.axes[..decl.axes.len() - 1]
            .iter()
            .map(|a| if *a == self.op.attend.key { RowIndex::Row } else { RowIndex::Fixed(tile.fixed[a]) })
            .collect();
        let dst = whole(&b.kernel, buf, slot);
        let src = GlobalTile {
            tensor: params.tensors[&decl.name],
            at,
            col: 0,
            rows: dst.rows,
            cols: dst.cols,
            first_row,
            row_limit: params.lens[&self.op.attend.key],
        };
        let kind = match self.schedule.access {
            2 => CopyKind::Sync { bytes: 2 },
            bytes => CopyKind::CpAsync { bytes },
        };
        b.effect(Effect::Copy { kind, src, dst });
        Stage { lead, role: "producer".to_owned(), block: b.close(), results: Vec::new() }
    }

    /// One tile: the next `(m, l, o)`.
    fn body(
        &self,
        b: &mut Builder,
        var: Val,
        kind: TileKind,
        exprs: &Exprs<'g>,
        [m, l, o]: [Val; 3],
    ) -> Result<[Val; 3], Unsupported> {
        let (mt, n) = (self.mt, self.schedule.block_n);
        let slot = self.slot(b, var);
        let tile_ty = Frag { dtype: Dtype::F32, rows: mt, cols: n, layout: Layout::Mma };
        let zero = b.def(tile_ty, Op::ConstF(0.0));
        let keys = Operand::SharedT(whole(&b.kernel, self.k_buf, slot));
        let s = b.def(tile_ty, Op::Mma { acc: zero, a: self.q.clone(), b: keys });

        let mut exprs = exprs.clone();
        for &dot in &self.op.dots {
            exprs.memo.insert(dot, Value::One(s));
        }
        let base = self.base(b, var);
        let key = self.op.axis(self.op.attend.key);
        let Some(Coord::Key { len, cols, .. }) = exprs.coords.get(&key).copied() else {
            unreachable!("invariant: the environment has the key axis")
        };
        exprs.coords.insert(key, Coord::Key { base: Some(base), len, cols });
        let (_, score) = self.op.factored_score();
        let y = exprs.one(b, score)?;
        let mut y = self.spread(b, y, tile_ty);
        if kind == TileKind::Edge {
            let iota = b.def(Frag { dtype: Dtype::I32, rows: 1, cols: n, layout: Layout::Mma }, Op::ColIota);
            let left = b.sub(len, base);
            let exists = b.test(MapOp::Lt, &[iota, left]);
            let seen = match self.op.mask {
                Some(mask) if !self.op.sees_everything() => {
                    let seen = exprs.one(b, mask)?;
                    b.test(MapOp::And, &[seen, exists])
                }
                Some(_) | None => exists,
            };
            let never = b.float(f32::NEG_INFINITY);
            y = b.mapf(MapOp::Select, &[seen, y, never]);
        }

        // The maximum as it is subtracted: of the scores in powers of two, rounded once, so that what later tiles take
        // away from earlier ones is exactly what these were reduced by. Rows that have seen nothing yet take 0, so that
        // no infinity meets another.
        let scale = b.float(self.factor as f32 * LOG2_E);
        let tile_max = b.reduce(ReduceOp::Max, y, 1);
        let tile_max = b.mapf(MapOp::Mul, &[tile_max, scale]);
        let m_next = b.mapf(MapOp::Max, &[m, tile_max]);
        let never = b.float(f32::NEG_INFINITY);
        let nothing = b.float(0.0);
        let unseen = b.test(MapOp::Eq, &[m_next, never]);
        let reference = b.mapf(MapOp::Select, &[unseen, nothing, m_next]);
        let shift = b.mapf(MapOp::Neg, &[reference]);
        let exponent = b.mapf(MapOp::Fma, &[y, scale, shift]);
        let p = b.mapf(MapOp::Exp2, &[exponent]);
        let exponent = b.mapf(MapOp::Add, &[m, shift]);
        let decay = b.mapf(MapOp::Exp2, &[exponent]);
        let sums = b.reduce(ReduceOp::Sum, p, 4);
        let l_next = b.mapf(MapOp::Fma, &[l, decay, sums]);
        let o = b.mapf(MapOp::Mul, &[o, decay]);
        let p = b.map(MapOp::Convert, self.elem, &[p]);
        let values = Operand::Shared(whole(&b.kernel, self.v_buf, slot));
        let o_ty = b.ty(o);
        let o_next = b.def(o_ty, Op::Mma { acc: o, a: Operand::Reg(p), b: values });
        Ok([m_next, l_next, o_next])
    }

    /// A score that does not fill the tile (a constant, a row or column vector) is spread over it.
    fn spread(&self, b: &mut Builder, y: Val, ty: Frag) -> Val {
        if b.ty(y) == ty {
            return y;
        }
        let zero = b.def(ty, Op::ConstF(0.0));
        b.mapf(MapOp::Add, &[y, zero])
    }
}

/// Writes `(m, l, o)` of this split, in the graph's units.
fn store_partials(b: &mut Builder, op: &Operator, schedule: &Schedule, params: &Params, tile: &Tile, state: [Val; 3]) {
    let coords = row_coords(b, op, schedule, tile);
    let (split, _) = tile.split.expect("invariant: a split kernel has a split");
    let q_axes = &op.spec.inputs[op.q.index()].axes;
    for (&tensor, value) in params.partials.iter().zip(state) {
        let mut at = vec![split];
        at.extend(q_axes[..q_axes.len() - 1].iter().map(|a| coords[a]));
        let cols = b.ty(value).cols;
        if cols > 1 {
            at.push(b.def(Frag { dtype: Dtype::I32, rows: 1, cols, layout: Layout::Mma }, Op::ColIota));
        }
        b.effect(Effect::StoreGlobal { tensor, at, guard: Some(tile.valid), value });
    }
}

/// Evaluates the graph's outputs over the folded state and writes them: the stage's result through shared memory, for
/// wide accesses; the log-sum-exp directly.
#[expect(clippy::too_many_arguments, reason = "the epilogue needs the whole tile")]
fn store_outputs(
    b: &mut Builder,
    op: &Operator,
    schedule: &Schedule,
    params: &Params,
    tile: &Tile,
    exprs: &mut Exprs,
    q_buf: BufId,
    elem: Dtype,
    e: u32,
) -> Result<(), Unsupported> {
    let coords = row_coords(b, op, schedule, tile);
    for output in &op.spec.outputs {
        let value = op
            .graph
            .outputs
            .iter()
            .find(|o| o.name == output.name)
            .ok_or_else(|| Unsupported::new(format!("output `{}` outside the graph", output.name)))?
            .value;
        let value = exprs.one(b, value)?;
        let tensor = params.tensors[&output.name];
        let dtype = op.dtype(output.ty);
        let value = if dtype == Dtype::F32 { value } else { b.map(MapOp::Convert, dtype, &[value]) };
        let ty = b.ty(value);
        if ty.cols == 1 {
            let at = output.axes.iter().map(|a| coords[a]).collect();
            b.effect(Effect::StoreGlobal { tensor, at, guard: Some(tile.valid), value });
            continue;
        }
        if output.axes.last() != op.spec.inputs[op.attend.v.index()].axes.last() {
            return Err(Unsupported::new(format!("output `{}` whose last axis is not the values'", output.name)));
        }
        let q_cols = b.kernel.buffers[q_buf.index()].cols;
        // Each warp overwrites only rows of the query tile that it alone has read.
        let alias = (q_cols == e && elem == dtype).then_some(q_buf);
        let staging = b.buffer("out", dtype, 1, schedule.block_m, e, alias);
        let dst = SharedView { buf: staging, slot: None, row: Some(tile.warp_row), col: 0, rows: ty.rows, cols: e };
        b.effect(Effect::StoreShared { dst, value });
        b.effect(Effect::Barrier { id: 0, warps: schedule.warps });
        let dst = GlobalTile {
            tensor,
            at: row_index(b, op, schedule, tile, &output.axes),
            col: 0,
            rows: schedule.block_m,
            cols: e,
            first_row: tile.first_row,
            row_limit: tile.rows,
        };
        let src = whole(&b.kernel, staging, None);
        b.effect(Effect::StoreTile { src, dst, bytes: schedule.access });
    }
    Ok(())
}
