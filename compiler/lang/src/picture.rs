//! Pictures of masks: in characters for the terminal and for the documentation of generated modules, in colours as SVG
//! and as points for PNG, with the tiles of a kernel laid over them.
//!
//! In: a spec and the numbers of queries and keys ([`Mask`]), or any question "does row `r` see key `c`". Out: a
//! [`Grid`] of blocks, which is what tiles are; [`picture`] and [`paint`] draw it.

mod grid;
mod paint;
mod text;

pub use grid::{Cover, Grid};
pub use paint::{Colour, Painting, paint};
pub use text::{LEGEND, picture};

use crate::eval::{Env, Value, eval};
use crate::spec::{
    Align, AxisId, AxisRole, AxisSize, Dtype, ElemType, ExprId, ExprKind, InputId, ScalarId, Spec, Stage,
};
use std::collections::BTreeMap;

/// The number of documents in the synthetic tables of a [`Mask`].
const DOCUMENTS: i64 = 4;

/// The mask of a spec for given numbers of queries and keys, as a question about points.
///
/// What a caller would pass is made up unless it is set: integer tables cut their last axis into 4 documents of equal
/// length, numbered from 0; real tables hold 1; integer scalars are a quarter of the keys, real ones 1. Other axes than
/// those of queries and keys have the index 0. What the mask reads out of range is 0.
#[derive(Clone, Debug)]
pub struct Mask<'s> {
    spec: &'s Spec,
    mask: Option<ExprId>,
    /// Query axis, its size, and the position of the first query.
    query: (AxisId, usize, i64),
    /// Key axis and its size.
    key: (AxisId, usize),
    /// Index and size of other axes.
    places: BTreeMap<AxisId, (i64, i64)>,
    scalars: BTreeMap<ScalarId, Value>,
}

impl<'s> Mask<'s> {
    /// The mask for `rows` queries and `cols` keys; `None` for a spec without a stage.
    pub fn new(spec: &'s Spec, rows: usize, cols: usize) -> Option<Mask<'s>> {
        let Stage::Attend(attend) = spec.stages.first()?;
        let offset = match spec.axes[attend.query.index()].role {
            AxisRole::Query(Align::End) => (cols as i64).saturating_sub(rows as i64),
            AxisRole::Query(Align::Start) | AxisRole::Plain | AxisRole::Key => 0,
        };
        Some(Mask {
            spec,
            mask: attend.mask,
            query: (attend.query, rows, offset),
            key: (attend.key, cols),
            places: BTreeMap::new(),
            scalars: BTreeMap::new(),
        })
    }

    /// The same at another index of an axis of this size, such as another head.
    #[must_use]
    pub fn at(mut self, axis: AxisId, index: i64, size: i64) -> Mask<'s> {
        self.places.insert(axis, (index, size));
        self
    }

    /// The same with a run-time scalar.
    #[must_use]
    pub fn with(mut self, scalar: ScalarId, value: Value) -> Mask<'s> {
        self.scalars.insert(scalar, value);
        self
    }

    /// The numbers of queries and keys.
    pub fn size(&self) -> (usize, usize) {
        (self.query.1, self.key.1)
    }

    /// Whether the `row`-th query sees the `col`-th key.
    pub fn sees(&self, row: usize, col: usize) -> bool {
        let Some(mask) = self.mask else { return true };
        let point = Point {
            mask: self,
            position: (row as i64).saturating_add(self.query.2),
            key: col as i64,
        };
        matches!(eval(self.spec, mask, &point), Ok(Value::Bool(true)))
    }

    /// The tiles of a kernel that takes `down` queries and `across` keys at a time.
    pub fn tiles(&self, down: usize, across: usize) -> Grid {
        Grid::exact(self.size(), (down, across), |row, col| self.sees(row, col))
    }

    /// The picture in characters, with tiles laid over it if there are some.
    pub fn picture(&self, tiles: Option<&Grid>) -> String {
        picture(self.query.1, self.key.1, tiles, |row, col| self.sees(row, col))
    }

    /// The picture in colours.
    pub fn paint(&self, tiles: Option<&Grid>) -> Painting {
        paint(self.query.1, self.key.1, tiles, |row, col| self.sees(row, col))
    }
}

/// The mask of a spec for `rows` queries and `cols` keys in characters, at most 64 wide and 32 lines high, with what
/// [`Mask`] makes up; a spec without a stage has an empty picture.
pub fn mask_picture(spec: &Spec, rows: usize, cols: usize) -> String {
    Mask::new(spec, rows, cols).map_or_else(String::new, |mask| mask.picture(None))
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

/// A point of a mask.
struct Point<'m> {
    mask: &'m Mask<'m>,
    position: i64,
    key: i64,
}

impl Env for Point<'_> {
    fn index(&self, axis: AxisId) -> i64 {
        match axis {
            _ if axis == self.mask.query.0 => self.position,
            _ if axis == self.mask.key.0 => self.key,
            _ => match (&self.mask.spec.axes[axis.index()].size, self.mask.places.get(&axis)) {
                (_, Some((index, _))) => *index,
                // The index on a grouped axis follows from the axis that it is grouped from.
                (AxisSize::Grouped { of, ratios }, None) => {
                    let ratio = ratios.first().copied().unwrap_or(1).max(1);
                    self.index(*of).div_euclid(ratio.into())
                }
                (AxisSize::Runtime | AxisSize::OneOf(_), None) => 0,
            },
        }
    }

    fn len(&self, axis: AxisId) -> i64 {
        match &self.mask.spec.axes[axis.index()].size {
            _ if axis == self.mask.query.0 => self.mask.query.1 as i64,
            _ if axis == self.mask.key.0 => self.mask.key.1 as i64,
            size => match (size, self.mask.places.get(&axis)) {
                (_, Some((_, size))) => *size,
                (AxisSize::OneOf(sizes), None) => sizes.first().copied().unwrap_or(1).into(),
                (AxisSize::Grouped { of, ratios }, None) => {
                    let ratio = ratios.first().copied().unwrap_or(1).max(1);
                    (self.len(*of) / i64::from(ratio)).max(1)
                }
                (AxisSize::Runtime, None) => 1,
            },
        }
    }

    fn scalar(&self, scalar: ScalarId) -> Value {
        if let Some(value) = self.mask.scalars.get(&scalar) {
            return *value;
        }
        match self.mask.spec.scalars[scalar.index()].ty {
            Dtype::I32 => Value::Int(self.mask.key.1 as i64 / 4),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Value::Real(1.0),
        }
    }

    fn load(&self, input: InputId, at: &[i64]) -> Option<Value> {
        let decl = &self.mask.spec.inputs[input.index()];
        for (&axis, &index) in decl.axes.iter().zip(at) {
            let first = if axis == self.mask.query.0 {
                self.mask.query.2
            } else {
                0
            };
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
