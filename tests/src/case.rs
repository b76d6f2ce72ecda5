//! A case: a spec, what its sets and sizes are, and inputs. And what runs cases: [`Engine`].

use crate::naive::Point;
use crate::tensor::Tensor;
use drawloom_lang::eval::{Value, eval};
use drawloom_lang::spec::{
    Align, Attend, AxisId, AxisRole, AxisSize, Binding, Dtype, ElemType, ExprKind, InputId, ScalarDecl, Spec, Stage,
};
use std::collections::BTreeMap;

/// Everything that a run needs.
#[derive(Clone, Debug)]
pub struct Case {
    /// What reports call it.
    pub name: String,
    /// The operator.
    pub spec: Spec,
    /// What it is compiled for.
    pub binding: Binding,
    /// The size of every axis, in the order of the spec.
    pub sizes: Vec<usize>,
    /// Inputs, in the order of the spec.
    pub inputs: Vec<Tensor>,
    /// Scalars, in the order of the spec.
    pub scalars: Vec<Scalar>,
    /// The memory order of each output, as [`Tensor::order`].
    pub output_orders: Vec<Vec<usize>>,
}

/// A run-time scalar.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// `f32`.
    Real(f32),
    /// `i32`.
    Int(i32),
}

/// The outputs of a case, in the order of the spec.
pub type Outputs = Vec<Tensor>;

/// Something that computes cases.
pub trait Engine {
    /// What reports call it.
    fn name(&self) -> &str;

    /// Computes the outputs.
    ///
    /// # Errors
    /// Why there are none.
    fn run(&self, case: &Case) -> Result<Outputs, String>;
}

/// What the queries and keys look like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Independent, normal.
    Gaussian,
    /// Scores that rise along the keys: the running maximum changes all the time.
    Rising,
    /// Scores that fall along the keys by more than 2^100: what comes last dwarfs the rest for who visits keys backwards.
    Falling,
    /// The same by 2^40, with values of 2^100: sums of weights stay in range, their products do not.
    FallingHuge,
    /// Normal, one element in a hundred twenty times as large.
    Outliers,
    /// One large element per query and key.
    OneHot,
    /// All keys alike.
    Equal,
    /// Normal, but NaN in every key that no query sees.
    UnseenGarbage,
}

/// Why a case cannot be made.
pub type CaseError = String;

impl Case {
    /// A case of `spec`: `types` chooses from its sets, `sizes` names every axis that is not grouped and the grouped
    /// ones too; inputs are drawn from `seed`.
    ///
    /// # Errors
    /// What the spec does not allow.
    pub fn new(
        name: &str,
        spec: &Spec,
        dtype: Dtype,
        sizes: &BTreeMap<String, usize>,
        kind: InputKind,
        seed: u64,
    ) -> Result<Case, CaseError> {
        let mut types = Vec::new();
        for set in &spec.types {
            match set.members.contains(&dtype) {
                true => types.push(dtype),
                false => return Err(format!("type `{}` has no member {dtype}", set.name)),
            }
        }
        let mut all = Vec::new();
        for axis in &spec.axes {
            match sizes.get(&axis.name) {
                Some(&size) => all.push(size),
                None => return Err(format!("axis `{}` has no size", axis.name)),
            }
        }
        for (axis, &size) in spec.axes.iter().zip(&all) {
            let allowed = match &axis.size {
                AxisSize::Runtime => true,
                AxisSize::OneOf(sizes) => sizes.iter().any(|s| *s as usize == size),
                AxisSize::Grouped { of, ratios } => ratios.iter().any(|r| size * *r as usize == all[of.index()]),
            };
            if !allowed {
                return Err(format!("axis `{}` cannot have size {size}", axis.name));
            }
        }
        let fixed = |(axis, size): (&drawloom_lang::spec::AxisDecl, &usize)| match axis.size {
            AxisSize::OneOf(_) => u32::try_from(*size).ok(),
            AxisSize::Runtime | AxisSize::Grouped { .. } => None,
        };
        let binding = Binding {
            types,
            sizes: spec.axes.iter().zip(&all).map(fixed).collect(),
        };
        let mut case = Case {
            name: name.to_owned(),
            spec: spec.clone(),
            binding,
            sizes: all,
            inputs: Vec::new(),
            scalars: Vec::new(),
            output_orders: spec.outputs.iter().map(|o| (0..o.axes.len()).collect()).collect(),
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        case.inputs = (0..spec.inputs.len()).map(|n| case.draw(n, kind, &mut rng)).collect();
        case.scalars = spec.scalars.iter().map(|s| draw_scalar(s, &mut rng)).collect();
        if kind == InputKind::UnseenGarbage {
            case.spoil_unseen_keys()?;
        }
        Ok(case)
    }

    /// The pair stage.
    pub fn attend(&self) -> &Attend {
        let Stage::Attend(attend) = &self.spec.stages[0];
        attend
    }

    /// The query tensor: the first operand of the score's product.
    pub fn queries(&self) -> InputId {
        let dot = self.spec.exprs.iter().find_map(|e| match e.kind {
            ExprKind::Dot { a, .. } => Some(a),
            _ => None,
        });
        dot.expect("invariant: a checked score has a product")
    }

    /// The element type of a tensor under this case's binding.
    pub fn dtype(&self, ty: ElemType) -> Dtype {
        match ty {
            ElemType::Fixed(dtype) => dtype,
            ElemType::Set(set) => self.binding.types[set.index()],
        }
    }

    /// The sizes of some axes.
    pub fn shape(&self, axes: &[AxisId]) -> Vec<usize> {
        axes.iter().map(|a| self.sizes[a.index()]).collect()
    }

    /// What is added to a query's index to give its position.
    pub fn offset(&self) -> i64 {
        let attend = self.attend();
        let size = |axis: AxisId| self.sizes[axis.index()] as i64;
        match self.spec.axes[attend.query.index()].role {
            AxisRole::Query(Align::End) => size(attend.key) - size(attend.query),
            AxisRole::Query(Align::Start) | AxisRole::Plain | AxisRole::Key => 0,
        }
    }

    /// An output filled with NaN, to be written.
    pub fn blank_output(&self, n: usize) -> Tensor {
        let decl = &self.spec.outputs[n];
        let shape = self.shape(&decl.axes);
        let mut out = Tensor::new(&decl.name, self.dtype(decl.ty), &shape, std::iter::repeat(f64::NAN));
        out.order.clone_from(&self.output_orders[n]);
        out
    }

    /// Makes every key that no query sees NaN.
    fn spoil_unseen_keys(&mut self) -> Result<(), CaseError> {
        let k = self.attend().k;
        let axes = self.spec.inputs[k.index()].axes.clone();
        let (rows, width) = match axes.split_last() {
            Some((feature, rows)) => (rows, self.sizes[feature.index()]),
            None => return Ok(()),
        };
        let mut seen = vec![false; self.shape(rows).iter().product()];
        // Features have compiled sizes, and a grouped axis follows its members.
        let outer = |axis: &AxisId| matches!(self.spec.axes[axis.index()].size, AxisSize::Runtime);
        let walked: Vec<AxisId> = (0..self.spec.axes.len() as u32).map(AxisId).filter(outer).collect();
        for at in crate::tensor::indices(&self.shape(&walked)) {
            let mut index = vec![0; self.sizes.len()];
            for (axis, x) in walked.iter().zip(&at) {
                index[axis.index()] = *x;
            }
            let point = Point::at_row(self, index);
            let visible = match self.attend().mask {
                Some(mask) => eval(&self.spec, mask, &point)
                    .and_then(Value::truth)
                    .map_err(|e| e.to_string())?,
                None => true,
            };
            let place = rows
                .iter()
                .fold(0, |place, axis| place * self.sizes[axis.index()] + point.at(*axis));
            seen[place] |= visible;
        }
        for (place, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
            self.inputs[k.index()].values[place * width..][..width].fill(f64::NAN);
        }
        Ok(())
    }

    fn draw(&self, n: usize, kind: InputKind, rng: &mut fastrand::Rng) -> Tensor {
        let decl = &self.spec.inputs[n];
        let id = InputId(n as u32);
        let (dtype, shape) = (self.dtype(decl.ty), self.shape(&decl.axes));
        let attend = self.attend();
        let (is_q, is_k, is_v) = (id == self.queries(), id == attend.k, id == attend.v);
        if dtype == Dtype::I32 {
            let last = shape.last().copied().unwrap_or(1);
            let mut value = 0;
            let values = crate::tensor::indices(&shape).map(|at| {
                let restart = decl.axes.is_empty() || at.last() == Some(&0);
                value = match (decl.sorted, restart) {
                    (true, true) => rng.i32(0..3),
                    (true, false) => value + rng.i32(0..4) / 3,
                    (false, _) => rng.i32(0..4),
                };
                f64::from(value)
            });
            let values: Vec<f64> = if last == 0 { Vec::new() } else { values.collect() };
            return Tensor::new(&decl.name, dtype, &shape, values);
        }
        let width = shape.last().copied().unwrap_or(1).max(1);
        let keys = decl.axes.iter().position(|a| *a == attend.key);
        // One row of keys that all keys share.
        let shared: Vec<f64> = (0..width).map(|_| normal(rng)).collect();
        let hot = rng.usize(0..width);
        let values: Vec<f64> = crate::tensor::indices(&shape)
            .map(|at| {
                let feature = at.last().copied().unwrap_or(0);
                let along = keys.map_or(0.0, |axis| at[axis] as f64 / shape[axis].max(1) as f64);
                match kind {
                    InputKind::Rising if is_q => 1.0 + 0.25 * normal(rng),
                    InputKind::Rising if is_k => 2.0 * along + 0.25 * normal(rng),
                    InputKind::Falling | InputKind::FallingHuge if is_q => 1.0 + 0.25 * normal(rng),
                    InputKind::Falling if is_k => (80.0 * (1.0 - along)).round() / (width as f64).sqrt(),
                    InputKind::FallingHuge if is_k => (30.0 * (1.0 - along)).round() / (width as f64).sqrt(),
                    InputKind::FallingHuge if is_v => 2f64.powi(100) * normal(rng),
                    InputKind::Outliers if is_q || is_k => {
                        normal(rng) * if rng.usize(0..100) == 0 { 20.0 } else { 1.0 }
                    }
                    InputKind::OneHot if is_q => {
                        if feature == hot {
                            8.0
                        } else {
                            0.0
                        }
                    }
                    InputKind::OneHot if is_k => {
                        let place = keys.map_or(0, |axis| at[axis] % width);
                        if feature == place { 8.0 } else { 0.0 }
                    }
                    InputKind::Equal if is_k => shared[feature],
                    _ => normal(rng),
                }
            })
            .collect();
        Tensor::new(&decl.name, dtype, &shape, values)
    }
}

fn draw_scalar(decl: &ScalarDecl, rng: &mut fastrand::Rng) -> Scalar {
    match decl.ty {
        Dtype::I32 => Scalar::Int(rng.i32(0..8)),
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 => Scalar::Real(0.25 + 2.0 * rng.f32()),
    }
}

/// A normal variate (Box and Muller).
fn normal(rng: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}
