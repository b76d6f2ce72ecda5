//! The two attentions: candle's operations, and the kernel or CPU form of a spec.

use crate::bert::Heads;
use anyhow::Result;
use candle_core::{D, DType, Device, Tensor};
use drawloom::cudarc::driver::CudaStream;
use half::f16;
use std::sync::Arc;

drawloom::attn! {
    /// Encoder attention over rows of text that are padded to one length.
    /// Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    attention padded {
        type T in [f16];
        axis b, h, i: query(start), j: key, d = 32;
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d], valid: i32[b, j];
        attend o over j in (k, v) {
            score = dot(q, k) * rsqrt(len(d));
            mask = valid[b, j] == 1;
            norm = softmax;
        }
        output o: T[b, h, i, d];
    }
}

/// Attention by candle's own operations, in f32.
pub fn by_candle(heads: &Heads) -> Result<Tensor> {
    let Heads { q, k, v, valid } = heads;
    let [q, k, v] = [q, k, v].map(|tensor| tensor.transpose(1, 2)?.contiguous());
    let (q, k, v) = (q?, k?, v?);
    let score = (q.matmul(&k.t()?)? * (q.dim(D::Minus1)? as f64).sqrt().recip())?;
    let hidden = Tensor::full(f32::NEG_INFINITY, score.shape(), score.device())?;
    let valid = valid.unsqueeze(1)?.unsqueeze(1)?.broadcast_as(score.shape())?;
    let p = candle_nn::ops::softmax_last_dim(&valid.where_cond(&score, &hidden)?)?;
    Ok(p.matmul(&v)?.transpose(1, 2)?.contiguous()?)
}

/// Attention by the spec above, in f16.
pub enum Operator {
    /// Its kernels, loaded.
    Gpu {
        stream: Arc<CudaStream>,
        loaded: padded::Operator<f16>,
    },
    /// Its CPU form, because of this.
    Cpu { because: drawloom::Error },
}

impl Operator {
    /// On the first GPU if there is one, else on the CPU.
    pub fn new() -> Result<Self> {
        Ok(match drawloom::context(0) {
            Ok(context) => Self::Gpu {
                loaded: padded::load::<f16>(&context)?,
                stream: context.default_stream(),
            },
            Err(because) => Self::Cpu { because },
        })
    }

    /// Where it runs, for a person.
    pub fn device(&self) -> String {
        match self {
            Self::Gpu { stream, .. } => stream.context().name().unwrap_or_else(|error| error.to_string()),
            Self::Cpu { because } => format!("the CPU form, since {because}"),
        }
    }

    /// `[b, n, h, d]` from what a layer hands over.
    pub fn attend(&self, heads: &Heads) -> Result<Tensor> {
        let host = |tensor: &Tensor| tensor.to_dtype(DType::F16)?.flatten_all()?.to_vec1::<f16>();
        let (q, k, v) = (host(&heads.q)?, host(&heads.k)?, host(&heads.v)?);
        let valid: Vec<i32> = heads
            .valid
            .flatten_all()?
            .to_vec1::<i64>()?
            .into_iter()
            .map(|m| m as i32)
            .collect();
        let (b, n, h, d) = heads.q.dims4()?;
        let (shape, rows) = ([b, n, h, d], [b, n]);
        let mut o = vec![f16::NAN; q.len()];
        match self {
            Self::Gpu { stream, loaded } => {
                let (q, k, v) = (stream.clone_htod(&q)?, stream.clone_htod(&k)?, stream.clone_htod(&v)?);
                let (valid, mut out) = (stream.clone_htod(&valid)?, stream.clone_htod(&o)?);
                let mut workspace = loaded.workspace(stream, padded::Max { b, h, i: n, j: n })?;
                let args = padded::Args {
                    q: drawloom::Tensor::new(&q, shape)?.transpose(1, 2),
                    k: drawloom::Tensor::new(&k, shape)?.transpose(1, 2),
                    v: drawloom::Tensor::new(&v, shape)?.transpose(1, 2),
                    valid: drawloom::Tensor::new(&valid, rows)?,
                    o: drawloom::TensorMut::new(&mut out, shape)?.transpose(1, 2),
                };
                loaded.launch(stream, args, &mut workspace)?;
                o = stream.clone_dtoh(&out)?;
            }
            Self::Cpu { .. } => padded::cpu(padded::Args {
                q: drawloom::Tensor::host(&q, shape)?.transpose(1, 2),
                k: drawloom::Tensor::host(&k, shape)?.transpose(1, 2),
                v: drawloom::Tensor::host(&v, shape)?.transpose(1, 2),
                valid: drawloom::Tensor::host(&valid, rows)?,
                o: drawloom::TensorMut::host(&mut o, shape)?.transpose(1, 2),
            })?,
        }
        Ok(Tensor::from_vec(o, &shape, &Device::Cpu)?.to_dtype(DType::F32)?)
    }
}
