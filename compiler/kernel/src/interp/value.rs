//! Fragment values and elementwise arithmetic.

use half::{bf16, f16};

use super::{FaultKind, Outcome, trouble};
use crate::ir::*;

/// The elements of a fragment, row by row.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// f16, bf16 and f32, each exactly as an f32.
    F(Vec<f32>),
    /// i32.
    I(Vec<i32>),
    /// i64.
    L(Vec<i64>),
    /// bool.
    B(Vec<bool>),
}

/// A fragment.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) data: Data,
}

/// A fragment's elements with the steps that broadcast it.
#[derive(Clone, Copy)]
pub(super) struct Grid<'v, T> {
    data: &'v [T],
    row: usize,
    col: usize,
}

impl<T: Copy> Grid<'_, T> {
    pub(super) fn at(&self, r: usize, c: usize) -> T {
        self.data[r * self.row + c * self.col]
    }
}

/// An integer fragment of either width.
#[derive(Clone, Copy)]
pub(super) enum IntGrid<'v> {
    I(Grid<'v, i32>),
    L(Grid<'v, i64>),
}

impl IntGrid<'_> {
    pub(super) fn at(&self, r: usize, c: usize) -> i64 {
        match self {
            IntGrid::I(g) => i64::from(g.at(r, c)),
            IntGrid::L(g) => g.at(r, c),
        }
    }
}

impl Value {
    pub(super) fn scalar_i32(x: i32) -> Value {
        Value {
            rows: 1,
            cols: 1,
            data: Data::I(vec![x]),
        }
    }

    fn grid<'v, T>(&self, data: &'v [T]) -> Grid<'v, T> {
        let row = if self.rows == 1 { 0 } else { self.cols };
        Grid {
            data,
            row,
            col: usize::from(self.cols != 1),
        }
    }

    pub(super) fn f(&self) -> Grid<'_, f32> {
        match &self.data {
            Data::F(v) => self.grid(v),
            Data::I(_) | Data::L(_) | Data::B(_) => unreachable!("invariant: the verifier checks dtypes"),
        }
    }
    pub(super) fn i(&self) -> Grid<'_, i32> {
        match &self.data {
            Data::I(v) => self.grid(v),
            Data::F(_) | Data::L(_) | Data::B(_) => unreachable!("invariant: the verifier checks dtypes"),
        }
    }
    pub(super) fn l(&self) -> Grid<'_, i64> {
        match &self.data {
            Data::L(v) => self.grid(v),
            Data::F(_) | Data::I(_) | Data::B(_) => unreachable!("invariant: the verifier checks dtypes"),
        }
    }
    pub(super) fn b(&self) -> Grid<'_, bool> {
        match &self.data {
            Data::B(v) => self.grid(v),
            Data::F(_) | Data::I(_) | Data::L(_) => unreachable!("invariant: the verifier checks dtypes"),
        }
    }
    pub(super) fn int(&self) -> IntGrid<'_> {
        match &self.data {
            Data::L(_) => IntGrid::L(self.l()),
            Data::F(_) | Data::I(_) | Data::B(_) => IntGrid::I(self.i()),
        }
    }
    /// The only element of an integer scalar.
    pub(super) fn to_i64(&self) -> i64 {
        self.int().at(0, 0)
    }
    /// The only element of a bool scalar.
    pub(super) fn to_bool(&self) -> bool {
        self.b().at(0, 0)
    }
}

/// Rounds to a 16-bit type; f32 stays.
pub(super) fn round(dtype: Dtype, x: f32) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(x).to_f32(),
        Dtype::Bf16 => bf16::from_f32(x).to_f32(),
        Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => x,
    }
}

/// Subnormal numbers become zero.
fn ftz(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// The shape of a result.
type Shape = (usize, usize);

fn map1<A: Copy, R>((rows, cols): Shape, a: Grid<A>, f: impl Fn(A) -> R) -> Vec<R> {
    let mut out = Vec::with_capacity(rows * cols);
    for r in 0..rows {
        out.extend((0..cols).map(|c| f(a.at(r, c))));
    }
    out
}

fn map2<A: Copy, B: Copy, R>((rows, cols): Shape, a: Grid<A>, b: Grid<B>, f: impl Fn(A, B) -> R) -> Vec<R> {
    let mut out = Vec::with_capacity(rows * cols);
    for r in 0..rows {
        out.extend((0..cols).map(|c| f(a.at(r, c), b.at(r, c))));
    }
    out
}

fn map3<A: Copy, B: Copy, C: Copy, R>(
    (rows, cols): Shape,
    a: Grid<A>,
    b: Grid<B>,
    c: Grid<C>,
    f: impl Fn(A, B, C) -> R,
) -> Vec<R> {
    let mut out = Vec::with_capacity(rows * cols);
    for r in 0..rows {
        out.extend((0..cols).map(|k| f(a.at(r, k), b.at(r, k), c.at(r, k))));
    }
    out
}

/// Applies an elementwise operation; the verifier has checked operands and type.
pub(super) fn map(op: MapOp, ty: Frag, args: &[&Value]) -> Outcome<Value> {
    let shape = (ty.rows as usize, ty.cols as usize);
    let data = match (op, &args[0].data) {
        (MapOp::Convert, _) => convert(ty.dtype, shape, args[0])?,
        (MapOp::Select, _) => select(shape, args),
        (_, Data::F(_)) => map_f(op, shape, args),
        (_, Data::I(_)) => map_i(op, shape, args)?,
        (_, Data::L(_)) => map_l(op, shape, args)?,
        (_, Data::B(_)) => Data::B(match op {
            MapOp::And => map2(shape, args[0].b(), args[1].b(), |a, b| a && b),
            MapOp::Or => map2(shape, args[0].b(), args[1].b(), |a, b| a || b),
            _ => map1(shape, args[0].b(), |a| !a),
        }),
    };
    Ok(Value {
        rows: shape.0,
        cols: shape.1,
        data,
    })
}

fn map_f(op: MapOp, shape: Shape, args: &[&Value]) -> Data {
    let a = args[0].f();
    let b = || args[1].f();
    Data::F(match op {
        MapOp::Add => map2(shape, a, b(), |x, y| x + y),
        MapOp::Sub => map2(shape, a, b(), |x, y| x - y),
        MapOp::Mul => map2(shape, a, b(), |x, y| x * y),
        MapOp::Fma => map3(shape, a, b(), args[2].f(), f32::mul_add),
        MapOp::Min => map2(shape, a, b(), f32::min),
        MapOp::Max => map2(shape, a, b(), f32::max),
        MapOp::Div => map2(shape, a, b(), |x, y| x / y),
        MapOp::Neg => map1(shape, a, |x| -x),
        MapOp::Abs => map1(shape, a, f32::abs),
        MapOp::Exp2 => map1(shape, a, |x| ftz(ftz(x).exp2())),
        MapOp::Log2 => map1(shape, a, |x| ftz(x).log2()),
        MapOp::Rcp => map1(shape, a, |x| ftz(1.0 / ftz(x))),
        MapOp::Rsqrt => map1(shape, a, |x| ftz(1.0 / ftz(x).sqrt())),
        MapOp::Sqrt => map1(shape, a, |x| ftz(ftz(x).sqrt())),
        MapOp::Tanh => map1(shape, a, |x| f64::from(x).tanh() as f32),
        MapOp::Lt => return Data::B(map2(shape, a, b(), |x, y| x < y)),
        MapOp::Le => return Data::B(map2(shape, a, b(), |x, y| x <= y)),
        MapOp::Eq => return Data::B(map2(shape, a, b(), |x, y| x == y)),
        MapOp::Rem | MapOp::Convert | MapOp::And | MapOp::Or | MapOp::Not | MapOp::Select => {
            unreachable!("invariant: the verifier checks dtypes")
        }
    })
}

/// Integer operations, the same for both widths.
macro_rules! integer_map {
    ($name:ident, $get:ident, $int:ty, $data:ident) => {
        fn $name(op: MapOp, shape: Shape, args: &[&Value]) -> Outcome<Data> {
            let a = args[0].$get();
            let b = || args[1].$get();
            if matches!(op, MapOp::Div | MapOp::Rem) && map1(shape, b(), |y| y <= 0).contains(&true) {
                return trouble(FaultKind::Arithmetic, "division by a number that is not positive");
            }
            Ok(Data::$data(match op {
                MapOp::Add => map2(shape, a, b(), <$int>::wrapping_add),
                MapOp::Sub => map2(shape, a, b(), <$int>::wrapping_sub),
                MapOp::Mul => map2(shape, a, b(), <$int>::wrapping_mul),
                MapOp::Fma => map3(shape, a, b(), args[2].$get(), |x, y, z| {
                    x.wrapping_mul(y).wrapping_add(z)
                }),
                MapOp::Min => map2(shape, a, b(), <$int>::min),
                MapOp::Max => map2(shape, a, b(), <$int>::max),
                MapOp::Div => map2(shape, a, b(), <$int>::div_euclid),
                MapOp::Rem => map2(shape, a, b(), <$int>::rem_euclid),
                MapOp::Neg => map1(shape, a, <$int>::wrapping_neg),
                MapOp::Abs => map1(shape, a, <$int>::wrapping_abs),
                MapOp::Lt => return Ok(Data::B(map2(shape, a, b(), |x, y| x < y))),
                MapOp::Le => return Ok(Data::B(map2(shape, a, b(), |x, y| x <= y))),
                MapOp::Eq => return Ok(Data::B(map2(shape, a, b(), |x, y| x == y))),
                MapOp::Exp2 | MapOp::Log2 | MapOp::Rcp | MapOp::Rsqrt | MapOp::Sqrt | MapOp::Tanh => {
                    unreachable!("invariant: the verifier checks dtypes")
                }
                MapOp::Convert | MapOp::And | MapOp::Or | MapOp::Not | MapOp::Select => {
                    unreachable!("invariant: the verifier checks dtypes")
                }
            }))
        }
    };
}
integer_map!(map_i, i, i32, I);
integer_map!(map_l, l, i64, L);

fn select(shape: Shape, args: &[&Value]) -> Data {
    let cond = args[0].b();
    match &args[1].data {
        Data::F(_) => Data::F(map3(
            shape,
            cond,
            args[1].f(),
            args[2].f(),
            |c, x, y| if c { x } else { y },
        )),
        Data::I(_) => Data::I(map3(
            shape,
            cond,
            args[1].i(),
            args[2].i(),
            |c, x, y| if c { x } else { y },
        )),
        Data::L(_) => Data::L(map3(
            shape,
            cond,
            args[1].l(),
            args[2].l(),
            |c, x, y| if c { x } else { y },
        )),
        Data::B(_) => Data::B(map3(
            shape,
            cond,
            args[1].b(),
            args[2].b(),
            |c, x, y| if c { x } else { y },
        )),
    }
}

fn convert(to: Dtype, shape: Shape, from: &Value) -> Outcome<Data> {
    // An integer goes to a 16-bit float in one rounding: f64 holds every i32, and an i64 that it does not hold is
    // beyond the range of f16 and within the double rounding that the hardware's two-step conversion has for bf16.
    let narrow = |x: f64| match to {
        Dtype::F16 => f16::from_f64(x).to_f32(),
        Dtype::Bf16 => bf16::from_f64(x).to_f32(),
        Dtype::F32 | Dtype::I32 | Dtype::I64 | Dtype::Bool => x as f32,
    };
    Ok(match (&from.data, to) {
        (Data::F(_), Dtype::F16 | Dtype::Bf16 | Dtype::F32) => Data::F(map1(shape, from.f(), |x| round(to, x))),
        (Data::F(_), Dtype::I32) => Data::I(map1(shape, from.f(), |x| x as i32)),
        (Data::F(_), Dtype::I64) => Data::L(map1(shape, from.f(), |x| x as i64)),
        (Data::I(_), Dtype::F32) => Data::F(map1(shape, from.i(), |x| x as f32)),
        (Data::I(_), Dtype::F16 | Dtype::Bf16) => Data::F(map1(shape, from.i(), |x| narrow(f64::from(x)))),
        (Data::I(_), Dtype::I32) => from.data.clone(),
        (Data::I(_), Dtype::I64) => Data::L(map1(shape, from.i(), i64::from)),
        (Data::L(_), Dtype::F32) => Data::F(map1(shape, from.l(), |x| x as f32)),
        (Data::L(_), Dtype::F16 | Dtype::Bf16) => Data::F(map1(shape, from.l(), |x| narrow(x as f64))),
        (Data::L(_), Dtype::I64) => from.data.clone(),
        (Data::L(v), Dtype::I32) => match v.iter().find(|x| i32::try_from(**x).is_err()) {
            Some(x) => return trouble(FaultKind::Arithmetic, format!("{x} does not fit an i32")),
            None => Data::I(map1(shape, from.l(), |x| x as i32)),
        },
        (Data::B(_), _) | (_, Dtype::Bool) => unreachable!("invariant: the verifier refuses bool conversions"),
    })
}

/// Reduces the columns of a fragment; see [`Op::Reduce`].
pub(super) fn reduce(op: ReduceOp, layout: Layout, cols: usize, of: &Value) -> Value {
    let data = match &of.data {
        Data::F(v) => Data::F(match op {
            ReduceOp::Sum => reduce_rows(v, of.cols, layout, cols, 0.0, |a, b| a + b),
            ReduceOp::Max => reduce_rows(v, of.cols, layout, cols, f32::NEG_INFINITY, f32::max),
        }),
        Data::I(v) => Data::I(match op {
            ReduceOp::Sum => reduce_rows(v, of.cols, layout, cols, 0, i32::wrapping_add),
            ReduceOp::Max => reduce_rows(v, of.cols, layout, cols, i32::MIN, i32::max),
        }),
        Data::L(_) | Data::B(_) => unreachable!("invariant: the verifier checks dtypes"),
    };
    Value {
        rows: of.rows,
        cols,
        data,
    }
}

/// Whether a predicate holds in any element; see [`Op::Any`].
pub(super) fn any(of: &Value) -> Value {
    let Data::B(v) = &of.data else {
        unreachable!("invariant: the verifier checks dtypes")
    };
    Value {
        rows: 1,
        cols: 1,
        data: Data::B(vec![v.contains(&true)]),
    }
}

/// Sums in the order of the hardware: each lane its columns, then lanes in pairs (which for four lanes of a quad is
/// `(0 + 1) + (2 + 3)`).
fn reduce_rows<T: Copy>(v: &[T], from: usize, layout: Layout, to: usize, zero: T, f: impl Fn(T, T) -> T) -> Vec<T> {
    let lane = |c: usize| match layout {
        Layout::Mma if from == 4 => c,
        Layout::Mma => (c % 8) / 2,
        Layout::Lanes { vec } => (c / vec as usize) % 32,
        Layout::Uniform => 0,
    };
    let lanes = if matches!(layout, Layout::Lanes { .. }) { 32 } else { 4 };
    let mut out = Vec::with_capacity(v.len() / from * to);
    for row in v.chunks_exact(from) {
        let mut partial = [zero; 32];
        for (c, &x) in row.iter().enumerate() {
            partial[lane(c)] = f(partial[lane(c)], x);
        }
        if to == 4 {
            out.extend_from_slice(&partial[..4]);
            continue;
        }
        let mut step = 1;
        while step < lanes {
            for i in (0..lanes).step_by(2 * step) {
                partial[i] = f(partial[i], partial[i + step]);
            }
            step *= 2;
        }
        out.push(partial[0]);
    }
    out
}

/// `acc + a * b` for row-major matrices of `rows x k` and `k x cols`: products are exact, sums are f32.
pub(super) fn product(acc: &mut [f32], a: &[f32], b: &[f32], rows: usize, k: usize, cols: usize) {
    for r in 0..rows {
        let out = &mut acc[r * cols..(r + 1) * cols];
        for i in 0..k {
            let x = a[r * k + i];
            for (o, y) in out.iter_mut().zip(&b[i * cols..(i + 1) * cols]) {
                *o += x * y;
            }
        }
    }
}
