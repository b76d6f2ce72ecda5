//! Dense tensors over axes: broadcasting by axis, contraction, reduction, reading at indices.

use crate::ir::{Axis, Reduce};
use std::rc::Rc;

/// Values over axes in ascending order, row-major. Integers and truth values (0, 1) are exact in `f64`.
#[derive(Clone, Debug)]
pub struct Dense {
    pub axes: Vec<Axis>,
    pub shape: Vec<usize>,
    pub data: Rc<Vec<f64>>,
}

impl Dense {
    pub fn scalar(x: f64) -> Dense {
        Dense {
            axes: Vec::new(),
            shape: Vec::new(),
            data: Rc::new(vec![x]),
        }
    }

    pub fn new(axes: Vec<Axis>, shape: Vec<usize>, data: Vec<f64>) -> Dense {
        Dense {
            axes,
            shape,
            data: Rc::new(data),
        }
    }

    /// The stride on an axis; 0 on one that it has not.
    fn stride(&self, axis: Axis) -> usize {
        match self.axes.iter().position(|&a| a == axis) {
            Some(n) => self.shape[n + 1..].iter().product(),
            None => 0,
        }
    }

    pub fn strides(&self, axes: &[Axis]) -> Vec<usize> {
        axes.iter().map(|&a| self.stride(a)).collect()
    }

    /// The values at one index on an axis, or `self` without that axis.
    pub fn slice(&self, axis: Axis, index: usize) -> Dense {
        let Some(n) = self.axes.iter().position(|&a| a == axis) else {
            return self.clone();
        };
        let (outer, inner): (usize, usize) = (self.shape[..n].iter().product(), self.shape[n + 1..].iter().product());
        let size = self.shape[n];
        let mut data = Vec::with_capacity(outer * inner);
        for o in 0..outer {
            let at = (o * size + index) * inner;
            data.extend_from_slice(&self.data[at..at + inner]);
        }
        let (mut axes, mut shape) = (self.axes.clone(), self.shape.clone());
        axes.remove(n);
        shape.remove(n);
        Dense::new(axes, shape, data)
    }

    /// The same values over more axes.
    pub fn broadcast(&self, space: &Space) -> Dense {
        if self.axes == space.axes {
            return self.clone();
        }
        map([self], space, |[x]| x)
    }
}

/// Axes with sizes.
#[derive(Clone, Debug)]
pub struct Space {
    pub axes: Vec<Axis>,
    pub shape: Vec<usize>,
}

impl Space {
    pub fn volume(&self) -> usize {
        self.shape.iter().product()
    }

    /// Every axis of the operands, ascending, without `except`.
    pub fn union(operands: &[&Dense], except: &[Axis]) -> Space {
        let mut pairs: Vec<(Axis, usize)> = operands
            .iter()
            .flat_map(|d| d.axes.iter().copied().zip(d.shape.iter().copied()))
            .collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|p| p.0);
        pairs.retain(|p| !except.contains(&p.0));
        let (axes, shape) = pairs.into_iter().unzip();
        Space { axes, shape }
    }
}

/// Visits all points of a shape; `f` gets the operands' offsets, and for the innermost run its length and strides.
fn walk<const N: usize>(shape: &[usize], strides: &[Vec<usize>; N], mut f: impl FnMut([usize; N], usize, [usize; N])) {
    if shape.contains(&0) {
        return;
    }
    // Neighbouring axes that every operand runs through evenly are one.
    let mut dims: Vec<(usize, [usize; N])> = Vec::new();
    for (n, &size) in shape.iter().enumerate() {
        let step: [usize; N] = std::array::from_fn(|k| strides[k][n]);
        match dims.last_mut() {
            _ if size == 1 => {}
            Some((outer, outer_step)) if (0..N).all(|k| outer_step[k] == step[k] * size) => {
                *outer *= size;
                *outer_step = step;
            }
            _ => dims.push((size, step)),
        }
    }
    let (len, step) = dims.pop().unwrap_or((1, [0; N]));
    let mut at = vec![0; dims.len()];
    let mut offset = [0; N];
    loop {
        f(offset, len, step);
        let mut n = dims.len();
        loop {
            if n == 0 {
                return;
            }
            n -= 1;
            let (size, outer) = &dims[n];
            at[n] += 1;
            (0..N).for_each(|k| offset[k] += outer[k]);
            if at[n] < *size {
                break;
            }
            (0..N).for_each(|k| offset[k] -= outer[k] * size);
            at[n] = 0;
        }
    }
}

/// A function of the operands at each point of a space.
pub fn map<const N: usize>(operands: [&Dense; N], space: &Space, f: impl Fn([f64; N]) -> f64) -> Dense {
    let strides = operands.map(|d| d.strides(&space.axes));
    let mut data = Vec::with_capacity(space.volume());
    let slices = operands.map(|d| d.data.as_slice());
    walk(&space.shape, &strides, |offset, len, step| {
        data.extend((0..len).map(|i| f(std::array::from_fn(|k| slices[k][offset[k] + i * step[k]]))));
    });
    Dense::new(space.axes.clone(), space.shape.clone(), data)
}

/// `acc = f(acc, value)` over the points of `over`, `value` a function of the operands at each point.
fn accumulate<const N: usize>(
    operands: [&Dense; N],
    out: &Space,
    over: &Space,
    first: f64,
    f: impl Fn(f64, [f64; N]) -> f64,
) -> Dense {
    let mut data = vec![first; out.volume()];
    let result = Dense::new(out.axes.clone(), out.shape.clone(), Vec::new());
    // The last summed axis is innermost if the operands run along it, else the last axis of the result.
    let dense = |axis: Option<&Axis>| axis.is_some_and(|&a| operands.iter().all(|d| d.stride(a) <= 1));
    let cut = if dense(over.axes.last()) {
        out.axes.len()
    } else {
        out.axes.len().saturating_sub(1)
    };
    let order: Vec<Axis> = [&out.axes[..cut], &over.axes, &out.axes[cut..]].concat();
    let shape: Vec<usize> = [&out.shape[..cut], &over.shape, &out.shape[cut..]].concat();
    let target = result.strides(&order);
    let strides = operands.map(|d| d.strides(&order));
    let slices = operands.map(|d| d.data.as_slice());
    // Offsets of the operands, then the result's.
    let mut run = |offset: [usize; N], at: usize, len: usize, step: [usize; N], out_step: usize| {
        let value = |i: usize| std::array::from_fn(|k| slices[k][offset[k] + i * step[k]]);
        if out_step == 0 {
            data[at] = (0..len).fold(data[at], |acc, i| f(acc, value(i)));
        } else {
            for i in 0..len {
                data[at + i * out_step] = f(data[at + i * out_step], value(i));
            }
        }
    };
    match N {
        1 => walk(&shape, &[target, strides[0].clone()], |o, len, s| {
            run([o[1]; N], o[0], len, [s[1]; N], s[0]);
        }),
        _ => walk(
            &shape,
            &[target, strides[0].clone(), strides[1].clone()],
            |o, len, s| {
                run(
                    std::array::from_fn(|k| o[k + 1]),
                    o[0],
                    len,
                    std::array::from_fn(|k| s[k + 1]),
                    s[0],
                );
            },
        ),
    }
    Dense::new(out.axes.clone(), out.shape.clone(), data)
}

/// `sum over axes of a * b`.
pub fn contract(a: &Dense, b: &Dense, out: &Space, over: &Space) -> Dense {
    accumulate([a, b], out, over, 0.0, |acc, [x, y]| acc + x * y)
}

/// A reduction of whole axes.
pub fn reduce(op: Reduce, of: &Dense, out: &Space, over: &Space) -> Dense {
    match op {
        Reduce::Sum => accumulate([of], out, over, 0.0, |acc, [x]| acc + x),
        Reduce::Max => accumulate([of], out, over, f64::NEG_INFINITY, |acc, [x]| acc.max(x)),
        Reduce::Min => accumulate([of], out, over, f64::INFINITY, |acc, [x]| acc.min(x)),
        Reduce::Mean => {
            let count = over.volume() as f64;
            let sum = accumulate([of], out, over, 0.0, |acc, [x]| acc + x);
            map([&sum], out, |[x]| x / count)
        }
    }
}

/// The values along other axes: `names[n]` is the new name of axis `n`.
pub fn renamed(of: &Dense, names: &[Axis]) -> Dense {
    let named = Dense {
        axes: names.to_vec(),
        shape: of.shape.clone(),
        data: of.data.clone(),
    };
    map([&named], &Space::union(&[&named], &[]), |[x]| x)
}

/// An index outside its axis.
pub struct OutOfRange {
    pub axis: Axis,
    pub index: f64,
    pub len: usize,
}

/// `of` with axes read at indices.
pub fn gather(of: &Dense, at: &[(Axis, Dense)], space: &Space, fill: Option<f64>) -> Result<Dense, OutOfRange> {
    let own: Vec<Axis> = space
        .axes
        .iter()
        .copied()
        .map(|a| if at.iter().any(|p| p.0 == a) { GONE } else { a })
        .collect();
    let strides: Vec<Vec<usize>> = std::iter::once(of.strides(&own))
        .chain(at.iter().map(|(_, d)| d.strides(&space.axes)))
        .collect();
    let sources: Vec<(Axis, usize, usize)> = at
        .iter()
        .map(|&(a, _)| {
            let n = of
                .axes
                .iter()
                .position(|&b| b == a)
                .expect("invariant: verified, a gathered axis is the value's");
            (a, of.shape[n], of.stride(a))
        })
        .collect();
    let volume = space.volume();
    let mut data = Vec::with_capacity(volume);
    let mut point = vec![0; space.axes.len()];
    for _ in 0..volume {
        let offset = |strides: &[usize]| -> usize { strides.iter().zip(&point).map(|(s, p)| s * p).sum() };
        let mut place = Some(offset(&strides[0]));
        for (n, &(axis, len, stride)) in sources.iter().enumerate() {
            let index = at[n].1.data[offset(&strides[n + 1])];
            if index >= 0.0 && index < len as f64 {
                place = place.map(|p| p + index as usize * stride);
            } else if fill.is_some() {
                place = None;
            } else {
                return Err(OutOfRange { axis, index, len });
            }
        }
        data.push(place.map_or(fill.unwrap_or(0.0), |p| of.data[p]));
        for n in (0..point.len()).rev() {
            point[n] += 1;
            if point[n] < space.shape[n] {
                break;
            }
            point[n] = 0;
        }
    }
    Ok(Dense::new(space.axes.clone(), space.shape.clone(), data))
}

/// An axis that no tensor has.
const GONE: Axis = Axis(u32::MAX);

/// Offsets of `of` at every point of the axes other than `axis`, in the order of those axes.
fn lines(of: &Dense, axis: Axis) -> (Space, Vec<usize>, usize) {
    let rest = Space::union(&[of], &[axis]);
    let mut starts = Vec::with_capacity(rest.volume());
    walk(&rest.shape, &[of.strides(&rest.axes)], |[offset], len, [step]| {
        starts.extend((0..len).map(|i| offset + i * step));
    });
    let stride = of.stride(axis);
    (rest, starts, stride)
}

/// The indices of the `k` largest along `over`, along `rank`.
pub fn top_k(of: &Dense, over: Axis, rank: Axis, k: usize, ascending: bool) -> Dense {
    let size = of.axes.iter().position(|&a| a == over).map_or(1, |n| of.shape[n]);
    let (rest, starts, stride) = lines(of, over);
    let mut data = Vec::with_capacity(starts.len() * k);
    for start in starts {
        let value = |i: usize| of.data[start + i * stride];
        let mut order: Vec<usize> = (0..size).collect();
        // NaN comes last.
        let key = |i: usize| if value(i).is_nan() { f64::NEG_INFINITY } else { value(i) };
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
        order.truncate(k);
        if ascending {
            order.sort_unstable();
        }
        data.extend(order.iter().map(|&i| i as f64));
        data.extend(std::iter::repeat_n(-1.0, k - order.len()));
    }
    // The rank axis is last here; it moves to its place.
    let mut axes = rest.axes;
    let mut shape = rest.shape;
    axes.push(rank);
    shape.push(k);
    let out = Dense::new(axes.clone(), shape, data);
    renamed(&out, &axes)
}

/// `(I + strictly lower part of a) x = b` along `row`.
pub fn tri_solve(a: &Dense, b: &Dense, row: Axis, col: Axis) -> Dense {
    let mut out_space = Space::union(&[a, b], &[col]);
    // The row axis goes first, so that the rows of all systems lie behind each other.
    let n = out_space
        .axes
        .iter()
        .position(|&x| x == row)
        .expect("invariant: verified, both have rows");
    let (axis, size) = (out_space.axes.remove(n), out_space.shape.remove(n));
    let systems = out_space.clone();
    out_space.axes.insert(0, axis);
    out_space.shape.insert(0, size);
    let mut x = map([b], &out_space, |[x]| x).data.as_ref().clone();
    let width = systems.volume();
    let strides = a.strides(&systems.axes);
    let mut starts = Vec::with_capacity(width);
    walk(&systems.shape, &[strides], |[offset], len, [step]| {
        starts.extend((0..len).map(|i| offset + i * step))
    });
    let (down, right) = (a.stride(row), a.stride(col));
    for r in 0..size {
        for c in 0..r {
            for (s, &start) in starts.iter().enumerate() {
                let factor = a.data[start + r * down + c * right];
                x[r * width + s] -= factor * x[c * width + s];
            }
        }
    }
    let axes = out_space.axes.clone();
    renamed(&Dense::new(out_space.axes, out_space.shape, x), &axes)
}
