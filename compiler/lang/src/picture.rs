//! Pictures of masks, in characters, for the terminal and for the documentation of generated modules.
//!
//! In: a spec and the numbers of queries and keys, or any question "does row `r` see key `c`". Out: lines of text, queries
//! downwards, keys to the right. A character stands for a block of points: `█` all visible, `·` none, `▀` and `▄` the
//! upper or lower half, `▒` some.

use crate::eval::{Env, Value, eval};
use crate::spec::{Align, AxisId, AxisRole, AxisSize, Dtype, ElemType, ExprKind, InputId, ScalarId, Spec, Stage};

/// The most characters in a line of a picture, and half of the most lines.
const WIDTH: usize = 64;

/// Sample points per block and direction: a block of more points is judged by its edges and an even grid between.
const SAMPLES: usize = 8;

/// The number of documents in the synthetic tables of [`mask_picture`].
const DOCUMENTS: i64 = 4;

/// The mask of a spec for `rows` queries and `cols` keys, at index 0 of all other axes.
///
/// What a caller would pass is made up: integer tables cut their last axis into 4 documents of equal length, numbered
/// from 0; real tables hold 1; integer scalars are a quarter of the keys, real ones 1. What the mask reads out of range
/// is 0. At most 64 characters wide and 32 lines high; a spec without a stage has an empty picture.
pub fn mask_picture(spec: &Spec, rows: usize, cols: usize) -> String {
    let Some(Stage::Attend(attend)) = spec.stages.first() else {
        return String::new();
    };
    let align = match spec.axes[attend.query.index()].role {
        AxisRole::Query(align) => align,
        AxisRole::Plain | AxisRole::Key => Align::Start,
    };
    let (rows_long, cols_long) = (rows as i64, cols as i64);
    let offset = match align {
        Align::End => cols_long.saturating_sub(rows_long),
        Align::Start => 0,
    };
    picture(rows, cols, |row, col| {
        let Some(mask) = attend.mask else { return true };
        let point = Synthetic {
            spec,
            query: (attend.query, (row as i64).saturating_add(offset), rows_long, offset),
            key: (attend.key, col as i64, cols_long),
        };
        matches!(eval(spec, mask, &point), Ok(Value::Bool(true)))
    })
}

/// Queries and keys for a picture that shows the edges of the mask: the power of two of at least 32 above twice the
/// largest constant in the mask, at most 4096.
pub fn picture_size(spec: &Spec) -> usize {
    let largest = spec.exprs.iter().filter_map(|e| match e.kind {
        ExprKind::Int(value) => usize::try_from(value).ok(),
        _ => None,
    });
    largest
        .max()
        .unwrap_or(0)
        .saturating_mul(2)
        .clamp(32, 4096)
        .next_power_of_two()
        .min(4096)
}

/// A picture of `rows` by `cols` points.
pub fn picture(rows: usize, cols: usize, visible: impl Fn(usize, usize) -> bool) -> String {
    // Characters are about twice as high as wide: a block has twice as many rows as columns.
    let across = cols.div_ceil(WIDTH).max(rows.div_ceil(WIDTH)).max(1);
    let mut out = String::new();
    for top in (0..rows).step_by(2 * across) {
        for left in (0..cols).step_by(across) {
            let right = (left + across).min(cols);
            let seen = |from: usize, to: usize| Seen::of(from.min(rows)..to.min(rows), left..right, &visible);
            let (upper, lower) = (seen(top, top + across), seen(top + across, top + 2 * across));
            out.push(match (upper, lower) {
                (Seen::None | Seen::Outside, Seen::None | Seen::Outside) => '·',
                (Seen::All, Seen::All) => '█',
                (Seen::All, Seen::None | Seen::Outside) => '▀',
                (Seen::None, Seen::All) => '▄',
                _ => '▒',
            });
        }
        out.push('\n');
    }
    out
}

/// How much of half a block is visible.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It lies below the last row.
    Outside,
    None,
    Some,
    All,
}

impl Seen {
    fn of(rows: std::ops::Range<usize>, cols: std::ops::Range<usize>, visible: impl Fn(usize, usize) -> bool) -> Seen {
        let (mut some, mut all) = (false, true);
        if rows.is_empty() || cols.is_empty() {
            return Seen::Outside;
        }
        for row in samples(rows) {
            for col in samples(cols.clone()) {
                let seen = visible(row, col);
                some |= seen;
                all &= seen;
            }
        }
        match (some, all) {
            (_, true) => Seen::All,
            (true, false) => Seen::Some,
            (false, false) => Seen::None,
        }
    }
}

/// All points of a range, or its ends and an even grid between.
fn samples(range: std::ops::Range<usize>) -> impl Iterator<Item = usize> {
    let count = range.len().min(SAMPLES);
    let steps = count.saturating_sub(1).max(1);
    (0..count).map(move |n| range.start + n * (range.len() - 1) / steps)
}

/// A point of a picture with made-up tables.
struct Synthetic<'a> {
    spec: &'a Spec,
    /// Axis, position, size, position of the first row.
    query: (AxisId, i64, i64, i64),
    /// Axis, index, size.
    key: (AxisId, i64, i64),
}

impl Env for Synthetic<'_> {
    fn index(&self, axis: AxisId) -> i64 {
        match axis {
            _ if axis == self.query.0 => self.query.1,
            _ if axis == self.key.0 => self.key.1,
            _ => 0,
        }
    }

    fn len(&self, axis: AxisId) -> i64 {
        match &self.spec.axes[axis.index()].size {
            _ if axis == self.query.0 => self.query.2,
            _ if axis == self.key.0 => self.key.2,
            AxisSize::OneOf(sizes) => sizes.first().copied().unwrap_or(1).into(),
            AxisSize::Runtime | AxisSize::Grouped { .. } => 1,
        }
    }

    fn scalar(&self, scalar: ScalarId) -> Value {
        match self.spec.scalars[scalar.index()].ty {
            Dtype::I32 => Value::Int(self.key.2 / 4),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Value::Real(1.0),
        }
    }

    fn load(&self, input: InputId, at: &[i64]) -> Option<Value> {
        let decl = &self.spec.inputs[input.index()];
        for (&axis, &index) in decl.axes.iter().zip(at) {
            let first = if axis == self.query.0 { self.query.3 } else { 0 };
            if index < first || index - first >= self.len(axis) {
                return None;
            }
        }
        match decl.ty {
            ElemType::Fixed(Dtype::I32) => {
                let (axis, index) = (decl.axes.last()?, at.last()?);
                Some(Value::Int(index.saturating_mul(DOCUMENTS) / self.len(*axis).max(1)))
            }
            ElemType::Fixed(Dtype::F16 | Dtype::Bf16 | Dtype::F32) | ElemType::Set(_) => Some(Value::Real(1.0)),
        }
    }

    fn dot(&self) -> f64 {
        0.0
    }
}
