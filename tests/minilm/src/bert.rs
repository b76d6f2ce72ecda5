//! all-MiniLM-L6-v2 on candle: token ids in, sentence embeddings out, with the attention left to the caller.

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::{Embedding, LayerNorm, Linear, VarBuilder, embedding, layer_norm, linear};
use serde_json::Value;
use std::path::Path;

/// What a layer hands to its attention.
pub struct Heads {
    /// Queries, keys, values: f32 `[b, n, h, d]`.
    pub q: Tensor,
    /// Keys.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
    /// 1 for a word piece, 0 for padding: i64 `[b, n]`.
    pub valid: Tensor,
}

/// The model.
///
/// Source: Devlin et al. 2018, arXiv:1810.04805; Wang et al. 2020, arXiv:2002.10957; mean pooling as in Reimers and
/// Gurevych 2019, arXiv:1908.10084.
pub struct Bert {
    words: Embedding,
    places: Embedding,
    segments: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    heads: usize,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mix: Linear,
    mix_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    narrow_norm: LayerNorm,
}

impl Bert {
    /// Reads `config.json` and `model.safetensors` of a directory.
    pub fn load(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))
        };
        let config: Value = serde_json::from_slice(&read("config.json")?)?;
        let size = |name: &str| {
            config[name]
                .as_u64()
                .map(|n| n as usize)
                .with_context(|| format!("no {name} in config.json"))
        };
        let (wide, inner) = (size("hidden_size")?, size("intermediate_size")?);
        let eps = config["layer_norm_eps"]
            .as_f64()
            .context("no layer_norm_eps in config.json")?;
        let weights = VarBuilder::from_buffered_safetensors(read("model.safetensors")?, DType::F32, &Device::Cpu)?;

        let table = weights.pp("embeddings");
        let layer = |index: usize| -> candle_core::Result<Layer> {
            let weights = weights.pp("encoder.layer").pp(index);
            let attention = weights.pp("attention");
            Ok(Layer {
                query: linear(wide, wide, attention.pp("self.query"))?,
                key: linear(wide, wide, attention.pp("self.key"))?,
                value: linear(wide, wide, attention.pp("self.value"))?,
                mix: linear(wide, wide, attention.pp("output.dense"))?,
                mix_norm: layer_norm(wide, eps, attention.pp("output.LayerNorm"))?,
                widen: linear(wide, inner, weights.pp("intermediate.dense"))?,
                narrow: linear(inner, wide, weights.pp("output.dense"))?,
                narrow_norm: layer_norm(wide, eps, weights.pp("output.LayerNorm"))?,
            })
        };
        Ok(Self {
            words: embedding(size("vocab_size")?, wide, table.pp("word_embeddings"))?,
            places: embedding(size("max_position_embeddings")?, wide, table.pp("position_embeddings"))?,
            segments: embedding(size("type_vocab_size")?, wide, table.pp("token_type_embeddings"))?,
            norm: layer_norm(wide, eps, table.pp("LayerNorm"))?,
            layers: (0..size("num_hidden_layers")?).map(layer).collect::<Result<_, _>>()?,
            heads: size("num_attention_heads")?,
        })
    }

    /// Unit embeddings `[b, c]` of rows of ids `[b, n]` (u32), where `valid` `[b, n]` (i64) is 1 for word pieces and 0
    /// for padding. `attend` returns f32 `[b, n, h, d]`.
    pub fn embed(&self, ids: &Tensor, valid: &Tensor, attend: &dyn Fn(&Heads) -> Result<Tensor>) -> Result<Tensor> {
        let (b, n) = ids.dims2()?;
        let places = Tensor::arange(0, n as u32, ids.device())?;
        let x = self.words.forward(ids)?.broadcast_add(&self.places.forward(&places)?)?;
        let mut x = self
            .norm
            .forward(&x.broadcast_add(&self.segments.embeddings().get(0)?)?)?;
        for layer in &self.layers {
            let split = |projection: &Linear| projection.forward(&x)?.reshape((b, n, self.heads, ()));
            let (q, k, v) = (split(&layer.query)?, split(&layer.key)?, split(&layer.value)?);
            let mixed = attend(&Heads {
                q,
                k,
                v,
                valid: valid.clone(),
            })?
            .reshape(x.shape())?;
            x = layer.mix_norm.forward(&(x + layer.mix.forward(&mixed)?)?)?;
            let wide = layer.widen.forward(&x)?.gelu_erf()?;
            x = layer.narrow_norm.forward(&(x + layer.narrow.forward(&wide)?)?)?;
        }
        let weight = valid.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
        let sum = x.broadcast_mul(&weight)?.sum(1)?;
        Ok(sum.broadcast_div(&sum.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
    }
}
