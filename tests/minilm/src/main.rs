//! Embeds sentences with all-MiniLM-L6-v2: candle on the CPU for everything but attention, which goes through `attn!`.
//!
//! ```text
//! cargo run -p drawloom-minilm -- MODEL_DIRECTORY ["a sentence" …]
//! ```
//!
//! Prints how similar the sentences are, and fails unless candle's own attention gives the same within 1e-3.

mod attention;
mod bert;

use anyhow::{Context, Result, anyhow, ensure};
use bert::Bert;
use candle_core::{Device, Tensor};
use std::path::Path;
use tokenizers::{PaddingParams, Tokenizer, TruncationParams};

const SENTENCES: [&str; 6] = [
    "The weaver set up the loom before sunrise.",
    "Early in the morning she threaded the warp.",
    "The kernel keeps its tiles in shared memory.",
    "Data stays close to the processor while it is being used.",
    "My neighbour's cat sleeps on the warm roof of the car.",
    "A cat is napping.",
];

/// The largest difference allowed between an embedding, or a similarity, with one attention and with the other.
const TOLERANCE: f32 = 1e-3;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let directory = args
        .next()
        .context("give the model's directory: config.json, model.safetensors, tokenizer.json")?;
    let directory = Path::new(&directory);
    let given: Vec<String> = args.collect();
    let sentences: Vec<&str> = if given.is_empty() {
        SENTENCES.to_vec()
    } else {
        given.iter().map(String::as_str).collect()
    };

    let bert = Bert::load(directory)?;
    let (ids, valid) = tokenize(directory, &sentences)?;
    let operator = attention::Operator::new()?;
    println!(
        "{} sentences of at most {} word pieces; attention on {}",
        sentences.len(),
        ids.dim(1)?,
        operator.device()
    );
    let ours = bert.embed(&ids, &valid, &|heads| operator.attend(heads))?;
    let candles = bert.embed(&ids, &valid, &attention::by_candle)?;

    let similar = ours.matmul(&ours.t()?)?;
    print_table(&sentences, &similar.to_vec2()?);
    let embeddings = largest_difference(&ours, &candles)?;
    let similarities = largest_difference(&similar, &candles.matmul(&candles.t()?)?)?;
    println!("\nlargest difference from candle's attention: {embeddings:.1e} in an embedding, {similarities:.1e} here");
    ensure!(
        embeddings.max(similarities) <= TOLERANCE,
        "more than {TOLERANCE:.0e} apart"
    );
    Ok(())
}

/// Ids (u32) and validity (i64) of the sentences, `[b, n]`, padded to the longest.
fn tokenize(directory: &Path, sentences: &[&str]) -> Result<(Tensor, Tensor)> {
    let mut tokenizer =
        Tokenizer::from_file(directory.join("tokenizer.json")).map_err(|e| anyhow!("tokenizer: {e}"))?;
    let truncation = TruncationParams {
        max_length: 256,
        ..TruncationParams::default()
    };
    tokenizer
        .with_padding(Some(PaddingParams::default()))
        .with_truncation(Some(truncation))
        .map_err(|e| anyhow!("{e}"))?;
    let rows = tokenizer
        .encode_batch(sentences.to_vec(), true)
        .map_err(|e| anyhow!("tokenizer: {e}"))?;
    let shape = (rows.len(), rows.first().map_or(0, |row| row.len()));
    let ids: Vec<u32> = rows.iter().flat_map(|row| row.get_ids()).copied().collect();
    let valid: Vec<i64> = rows
        .iter()
        .flat_map(|row| row.get_attention_mask())
        .map(|&m| i64::from(m))
        .collect();
    Ok((
        Tensor::from_vec(ids, shape, &Device::Cpu)?,
        Tensor::from_vec(valid, shape, &Device::Cpu)?,
    ))
}

fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f32> {
    // A NaN must not pass for small, as it would in a maximum.
    let differences: Vec<f32> = (a - b)?.abs()?.flatten_all()?.to_vec1()?;
    Ok(differences
        .into_iter()
        .fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most }))
}

fn print_table(sentences: &[&str], similar: &[Vec<f32>]) {
    println!();
    for (row, sentence) in sentences.iter().enumerate() {
        let cells: Vec<String> = similar[row].iter().map(|s| format!("{s:6.3}")).collect();
        println!("{}  {}  {sentence}", row + 1, cells.join(" "));
    }
}
