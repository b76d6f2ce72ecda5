//! Real input, embedded: what two layers of a sentence-embedding model hand to their attention (`tests/data`).

use half::f16;
use safetensors::{SafeTensorError, SafeTensors};

/// Rows of text, tokens, heads and features, in the order of the tensors' axes.
pub const SHAPE: [usize; 4] = [4, 128, 12, 32];

/// The page.
pub struct Real {
    /// 1 for a word piece, 0 for padding: `[b, n]`.
    pub valid: Vec<i32>,
    /// The captured layers.
    pub layers: Vec<Layer>,
}

/// Inputs of one attention, each of [`SHAPE`], dense.
pub struct Layer {
    /// Which one.
    pub name: &'static str,
    /// Queries.
    pub q: Vec<f16>,
    /// Keys.
    pub k: Vec<f16>,
    /// Values.
    pub v: Vec<f16>,
}

/// Reads the embedded file.
///
/// # Errors
/// If the file has another form than `tests/data/README.md` says.
pub fn read() -> Result<Real, SafeTensorError> {
    let file = SafeTensors::deserialize(include_bytes!("../../data/minilm.safetensors"))?;
    let halves = |name: String| -> Result<Vec<f16>, SafeTensorError> {
        let (bytes, _) = file.tensor(&name)?.data().as_chunks();
        Ok(bytes.iter().map(|bytes| f16::from_le_bytes(*bytes)).collect())
    };
    let (valid, _) = file.tensor("valid")?.data().as_chunks();
    let valid = valid.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    let layer = |name: &'static str| -> Result<Layer, SafeTensorError> {
        let tensor = |letter: &str| halves(format!("{name}.{letter}"));
        Ok(Layer {
            name,
            q: tensor("q")?,
            k: tensor("k")?,
            v: tensor("v")?,
        })
    };
    Ok(Real {
        valid,
        layers: vec![layer("layer0")?, layer("layer5")?],
    })
}

#[cfg(test)]
mod tests {
    use super::{SHAPE, read};

    #[test]
    fn the_file_is_as_its_page_says() {
        let real = read().expect("the file is embedded whole");
        let counts: Vec<i32> = real.valid.chunks(SHAPE[1]).map(|row| row.iter().sum()).collect();
        assert_eq!(counts, [123, 79, 35, 103]);
        for layer in &real.layers {
            for tensor in [&layer.q, &layer.k, &layer.v] {
                assert_eq!(tensor.len(), SHAPE.iter().product::<usize>());
                assert!(tensor.iter().all(|x| x.is_finite()), "{} is finite", layer.name);
            }
        }
    }
}
