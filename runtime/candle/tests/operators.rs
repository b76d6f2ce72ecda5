//! Operators on candle tensors on the CPU, against candle's own operations.

use candle_core::{DType, Device, Result, Tensor, Var};
use drawloom_candle::Operator;

static GROUPED: drawloom::Embedded = drawloom::Embedded::new(
    "grouped",
    "attention grouped {
        type T in [f16, bf16];
        axis b, h, g = h / [1, 3], i: query(end), j: key, d in [16, 32];
        input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, d], doc: i32[b, j], slope: f32[h];
        scalar scale: f32;
        attend o over j in (k, v) {
            score = dot(q, k) * scale + slope[h] * (j - i);
            mask = causal && doc[b, j] != 7;
            norm = softmax;
        }
        output o: T[b, h, i, d], lse(o, nats): f32[b, h, i];
    }",
    None,
    "",
);

struct Case {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    doc: Tensor,
    slope: Tensor,
}

const SCALE: f32 = 0.3;

impl Case {
    fn new(dtype: DType, [b, h, g, i, j, d]: [usize; 6]) -> Result<Case> {
        let random = |shape: [usize; 4]| Tensor::randn(0f32, 1.0, &shape, &Device::Cpu)?.to_dtype(dtype);
        let doc: Vec<i32> = (0..b * j).map(|n| [1, 7, 3][n % 3]).collect();
        Ok(Case {
            q: random([b, h, i, d])?,
            k: random([b, g, j, d])?,
            v: random([b, g, j, d])?,
            doc: Tensor::from_vec(doc, (b, j), &Device::Cpu)?,
            slope: Tensor::from_vec((0..h).map(|n| n as f32 * 0.1).collect::<Vec<_>>(), h, &Device::Cpu)?,
        })
    }

    fn apply(&self) -> Result<Vec<Tensor>> {
        let inputs = [
            ("slope", &self.slope),
            ("q", &self.q),
            ("k", &self.k),
            ("v", &self.v),
            ("doc", &self.doc),
        ];
        Operator::new(&GROUPED).apply(&inputs, &[("scale", SCALE.into())])
    }

    /// Results and log-sum-exps by candle's operations, in f32.
    fn expected(&self) -> Result<[Tensor; 2]> {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
        let ((b, h, i, d), (_, g, j, _)) = (self.q.dims4()?, self.k.dims4()?);
        let repeat = |tensor: &Tensor| -> Result<Tensor> {
            let wide = wide(tensor)?.unsqueeze(2)?.broadcast_as((b, g, h / g, j, d))?;
            wide.contiguous()?.reshape((b, h, j, d))
        };
        let (q, k, v) = (wide(&self.q)?, repeat(&self.k)?, repeat(&self.v)?);
        let score = (q.matmul(&k.t()?)? * f64::from(SCALE))?;
        let place = |row: usize, column: usize| column as f32 - (row + j - i) as f32;
        let distance: Vec<f32> = (0..i * j).map(|n| place(n / j, n % j)).collect();
        let distance = Tensor::from_vec(distance, (1, 1, i, j), &Device::Cpu)?;
        let bias = self.slope.reshape((1, h, 1, 1))?.broadcast_mul(&distance)?;
        let hidden = distance.gt(0f32)?.to_dtype(DType::F32)?;
        let seven = self.doc.reshape((b, 1, 1, j))?.eq(7i64)?.to_dtype(DType::F32)?;
        let hidden = (hidden.broadcast_add(&seven)? * -1e9)?;
        let score = score.broadcast_add(&bias)?.broadcast_add(&hidden)?;
        let most = score.max_keepdim(3)?;
        let lse = (score.broadcast_sub(&most)?.exp()?.sum_keepdim(3)?.log()? + most)?.squeeze(3)?;
        Ok([candle_nn::ops::softmax_last_dim(&score)?.matmul(&v)?, lse])
    }

    fn check(&self, tolerance: f32) -> Result<()> {
        let found = self.apply()?;
        for (found, expected) in found.iter().zip(self.expected()?) {
            assert_eq!(found.dims(), expected.dims());
            let difference = (found.to_dtype(DType::F32)? - expected)?.abs()?.flatten_all()?;
            let worst: f32 = difference.to_vec1::<f32>()?.into_iter().fold(0.0, f32::max);
            assert!(worst < tolerance, "{worst}");
        }
        assert_eq!(found[0].dtype(), self.q.dtype());
        Ok(())
    }
}

#[test]
fn results_are_those_of_candle() -> Result<()> {
    Case::new(DType::F16, [2, 3, 1, 9, 20, 32])?.check(4e-3)?;
    Case::new(DType::BF16, [1, 2, 2, 5, 130, 16])?.check(3e-2)
}

#[test]
fn strides_offsets_and_repeats_are_honoured() -> Result<()> {
    // Tokens before heads, a part of a longer cache, one row of keys for the whole batch.
    let mut case = Case::new(DType::F16, [2, 3, 3, 40, 12, 16])?;
    case.q = case.q.transpose(1, 2)?.contiguous()?.transpose(1, 2)?.narrow(2, 7, 6)?;
    case.k = case.k.narrow(0, 1, 1)?.broadcast_as((2, 3, 12, 16))?;
    case.v = Tensor::cat(&[&case.v, &case.v], 2)?.narrow(2, 5, 12)?;
    assert!([&case.q, &case.k, &case.v].iter().all(|tensor| !tensor.is_contiguous()));
    case.check(4e-3)
}

#[test]
fn what_cannot_be_taken_is_named() -> Result<()> {
    let told = |case: &Case| case.apply().expect_err("it cannot be taken").to_string();
    let good = || Case::new(DType::F16, [2, 3, 1, 9, 20, 32]);
    let mut case = good()?;
    case.k = case.k.transpose(2, 3)?.contiguous()?.transpose(2, 3)?;
    assert!(told(&case).contains("the last axis `d` of `k` must have stride 1, but has stride 20"));
    case = good()?;
    case.v = case.v.narrow(2, 0, 19)?;
    assert!(told(&case).contains("axis `j` of `v` is 19, but 20 in `k`"));
    case = good()?;
    case.k = case.k.to_dtype(DType::BF16)?;
    assert!(told(&case).contains("argument `k` must hold f16, but holds bf16"));
    case = good()?;
    case.doc = case.doc.to_dtype(DType::I64)?;
    assert!(told(&case).contains("argument `doc` holds i64, which no spec has"));
    case = good()?;
    case.slope = case.slope.unsqueeze(0)?;
    assert!(
        told(&case).contains("argument `slope` must have 1 axes, but has 2"),
        "{}",
        told(&case)
    );
    case = good()?;
    case.q = Var::from_tensor(&case.q)?.as_tensor().clone();
    assert!(told(&case).contains("argument `q` is tracked for its gradient"));
    let missing = Operator::new(&GROUPED).apply(&[("q", &good()?.q)], &[]);
    assert!(missing.expect_err("k is missing").to_string().contains("`k`"));
    let (x, case) = (Tensor::zeros(1, DType::F32, &Device::Cpu)?, good()?);
    let inputs = [
        ("q", &case.q),
        ("k", &case.k),
        ("v", &case.v),
        ("doc", &case.doc),
        ("slope", &case.slope),
        ("x", &x),
    ];
    let unknown = Operator::new(&GROUPED).apply(&inputs, &[("scale", SCALE.into())]);
    assert!(unknown.expect_err("x is unknown").to_string().contains("`x`"));
    Ok(())
}
