//! The CPU form beside candle's attention on the CPU, at the shapes of small encoders and decoders.
//!
//! ```text
//! cargo bench -p drawloom-candle -- [--date YYYY-MM-DD] [--machine NAME] [--commit HASH] [--rounds N]
//! ```
//!
//! Candle's are its operations, two products around a softmax, and its fused attention for the CPU, both in f32 with as
//! many threads as the machine has; ours read and write f16 and compute in f32. In each round everything runs once, in
//! turn, so that what else the machine does meets all of them. Prints a record for `tests/record`: the smallest time of
//! each, the median over the rounds of candle's time over ours, and candle's processor time over ours in all rounds, which
//! says most on a machine that has other work.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};
use drawloom_candle::Operator;
use serde_json::{Value, json};
use std::time::Instant;

const HEADS: usize = 12;

/// Candle's fused attention, the slowest by far, is timed up to this length.
const FUSED: usize = 512;

static DENSE: drawloom::Embedded = drawloom::Embedded::new(
    "dense",
    "attention dense {
        type T in [f16];
        axis b, h, i: query(end), j: key, d in [32, 64];
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) { score = dot(q, k) * rsqrt(len(d)); norm = softmax; }
        output o: T[b, h, i, d];
    }",
    None,
    "",
);

static CAUSAL: drawloom::Embedded = drawloom::Embedded::new(
    "causal",
    "attention causal {
        type T in [f16];
        axis b, h, i: query(end), j: key, d in [32, 64];
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) { score = dot(q, k) * rsqrt(len(d)); mask = causal; norm = softmax; }
        output o: T[b, h, i, d];
    }",
    None,
    "",
);

/// One measured shape.
struct Shape {
    causal: bool,
    length: usize,
    features: usize,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str, default: &str| -> String {
        let place = args.iter().position(|arg| arg == name);
        place
            .and_then(|at| args.get(at + 1))
            .map_or_else(|| default.to_owned(), String::clone)
    };
    let rounds: usize = option("--rounds", "9").parse().unwrap_or(9);
    let mut rows = Vec::new();
    for causal in [false, true] {
        for features in [32, 64] {
            for length in [512, 1024, 2048, 4096] {
                let shape = Shape {
                    causal,
                    length,
                    features,
                };
                rows.push(shape.measure(rounds)?);
                eprintln!("{}", rows[rows.len() - 1]);
            }
        }
    }
    let record = json!({
        "date": option("--date", ""),
        "machine": option("--machine", ""),
        "commit": option("--commit", ""),
        "suite": "cpu",
        "rows": rows,
    });
    println!("{record:#}");
    Ok(())
}

impl Shape {
    fn measure(&self, rounds: usize) -> Result<Value> {
        let Shape {
            causal,
            length,
            features,
        } = *self;
        let random = || Tensor::randn(0f32, 1.0, (1, HEADS, length, features), &Device::Cpu)?.to_dtype(DType::F16);
        let half = [random()?, random()?, random()?];
        let [q, k, v] = [&half[0], &half[1], &half[2]].map(|tensor| tensor.to_dtype(DType::F32));
        let (q, k, v) = (q?, k?, v?);
        // Candle's fused attention takes tokens before heads.
        let tokens = |tensor: &Tensor| tensor.transpose(1, 2)?.contiguous();
        let (q_tokens, k_tokens, v_tokens) = (tokens(&q)?, tokens(&k)?, tokens(&v)?);
        let scale = (features as f64).sqrt().recip();
        let hidden = match causal {
            true => Some(mask(length)?),
            false => None,
        };
        let operator = Operator::new(if causal { &CAUSAL } else { &DENSE });

        let ours = || {
            operator
                .apply(&[("q", &half[0]), ("k", &half[1]), ("v", &half[2])], &[])
                .map(|mut o| o.remove(0))
        };
        let operations = || {
            let mut score = (q.matmul(&k.t()?)? * scale)?;
            if let Some(hidden) = &hidden {
                score = score.broadcast_add(hidden)?;
            }
            candle_nn::ops::softmax_last_dim(&score)?.matmul(&v)
        };
        let fused = || {
            let mask = if causal { AttnMask::causal() } else { AttnMask::None };
            flash_attn::<f32>(&q_tokens, &k_tokens, &v_tokens, scale as f32, mask, None, None)
        };
        let error = distance(&ours()?, &operations()?)?;
        let mut times: [Vec<f64>; 3] = Default::default();
        let mut processor = [0.0; 2];
        for _ in 0..rounds {
            let start = processor_time();
            times[0].push(time(&ours)?);
            let between = processor_time();
            times[1].push(time(&operations)?);
            processor[0] += between - start;
            processor[1] += processor_time() - between;
            if length <= FUSED {
                times[2].push(time(&fused)?);
            }
        }
        let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = |other: &[f64]| median(other.iter().zip(&times[0]).map(|(other, ours)| other / ours).collect());
        let mut peers = json!({ "candle": least(&times[1]) });
        let mut ratios = json!({ "candle": ratio(&times[1]) });
        if length <= FUSED {
            peers["candle fused"] = json!(least(&times[2]));
            ratios["candle fused"] = json!(ratio(&times[2]));
        }
        Ok(json!({
            "spec": if causal { "causal" } else { "dense" },
            "target": "cpu",
            "pass": "fwd",
            "shape": format!("b1 h{HEADS} s{length} d{features} {}", if causal { "causal" } else { "full" }),
            "ours_ms": least(&times[0]),
            "spread": quartiles(times[0].clone()),
            "error": error,
            "peers": peers,
            "median_ratio": ratios,
            "processor_ratio": processor[1] / processor[0],
        }))
    }
}

/// Negative infinity above the diagonal.
fn mask(length: usize) -> Result<Tensor> {
    let cell = |n: usize| {
        if n % length > n / length {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    Tensor::from_iter((0..length * length).map(cell), &Device::Cpu)?.reshape((length, length))
}

/// Milliseconds.
fn time(run: &dyn Fn() -> Result<Tensor>) -> Result<f64> {
    let start = Instant::now();
    let result = run()?;
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    drop(result);
    Ok(elapsed)
}

/// Seconds that the threads of this program have run, as Linux counts them; NaN elsewhere.
fn processor_time() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything; of the fields behind it, the 12th and 13th are it.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = |field: &str| field.parse::<f64>().unwrap_or(f64::NAN);
    let counted: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(ticks).collect();
    match counted.as_slice() {
        [own, system] => (own + system) / TICKS_PER_SECOND,
        _ => f64::NAN,
    }
}

/// Distance over the norm of the second.
fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |tensor: Tensor| -> Result<f64> { Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt()) };
    let difference = (a.to_dtype(DType::F32)? - b)?;
    Ok(norm(difference)? / norm(b.clone())?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Half the distance between the quartiles over the median.
fn quartiles(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    (at(3) - at(1)) / 2.0 / at(2)
}
