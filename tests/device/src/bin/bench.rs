//! Times the kernels on one GPU: CUDA events, medians of interleaved repeats, the L2 cache flushed before each launch.
//!
//!     bench --machine NAME --date YYYY-MM-DD --out result.json
//!
//! The suite `forward` has the shapes of the field's papers: 16 384 tokens in all, heads times head size 2 048. What it
//! writes is filed with `cargo xtask record`.

use clap::Parser;
use drawloom::cudarc::driver::sys::CUevent_flags;
use drawloom::cudarc::driver::{CudaSlice, CudaStream};
use drawloom::{Dtype, Loaded, Tensor, TensorMut};
use drawloom_device::choice::chosen;
use half::bf16;
use serde::Serialize;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

drawloom::attn! {
    /// Attention without a mask.
    /// Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    attention dense {
        type T in [bf16];
        axis b, h, i: query(end), j: key, d in [64, 128];
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) {
            score = dot(q, k) * rsqrt(len(d));
            norm = softmax;
        }
        output o: T[b, h, i, d], lse(o, nats): f32[b, h, i];
    }

    /// Causal attention.
    /// Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    attention causal {
        type T in [bf16];
        axis b, h, i: query(end), j: key, d in [64, 128];
        input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
        attend o over j in (k, v) {
            score = dot(q, k) * rsqrt(len(d));
            mask = causal;
            norm = softmax;
        }
        output o: T[b, h, i, d], lse(o, nats): f32[b, h, i];
    }
}

/// Tokens of a launch, and features of a token.
const TOKENS: usize = 16_384;
const FEATURES: usize = 2_048;

/// Bytes that are written before each launch: more than any L2 cache.
const FLUSH: usize = 256 << 20;

#[derive(Parser)]
struct Cli {
    /// What the GPU is called in the record; the driver's name for it by default.
    #[arg(long)]
    machine: Option<String>,
    /// The day, `2026-01-31`.
    #[arg(long)]
    date: String,
    /// What was built.
    #[arg(long, default_value = option_env!("DRAWLOOM_COMMIT").unwrap_or("unknown"))]
    commit: String,
    /// Times that every shape is visited.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Launches in a visit.
    #[arg(long, default_value_t = 10)]
    launches: usize,
    /// Where the result goes.
    #[arg(long, default_value = "result.json")]
    out: PathBuf,
}

/// What is written: a record that the compiler's counts and the peers' times are still to be added to.
#[derive(Serialize)]
struct Measured {
    date: String,
    machine: String,
    commit: String,
    suite: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    spec: &'static str,
    target: String,
    pass: &'static str,
    shape: String,
    dtype: &'static str,
    sizes: BTreeMap<&'static str, usize>,
    schedule: String,
    ours_ms: f64,
    spread: f64,
    predicted_ms: f64,
}

fn main() -> ExitCode {
    match bench(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: Cli) -> Result<(), Box<dyn Error>> {
    let context = drawloom::context(0)?;
    let stream = context.new_stream()?;
    let machine = match cli.machine {
        Some(machine) => machine,
        None => context.name()?,
    };
    let mut buffers = Buffers::new(&stream)?;
    let operators = (dense::load::<bf16>(&context)?, causal::load::<bf16>(&context)?);
    let mut cases = Vec::new();
    for (d, masked) in [64, 128].into_iter().flat_map(|d| [(d, false), (d, true)]) {
        for n in [512, 1024, 2048, 4096, 8192, 16_384] {
            cases.push(Case {
                masked,
                b: TOKENS / n,
                h: FEATURES / d,
                n,
                d,
                times: Vec::new(),
            });
        }
    }
    for round in 0..=cli.rounds {
        for case in &mut cases {
            let times = case.visit(&stream, &operators, &mut buffers, cli.launches)?;
            // The first round warms up: modules are loaded lazily, clocks rise.
            if round > 0 {
                case.times.extend(times);
            }
        }
    }
    let rows = cases
        .iter_mut()
        .map(|case| case.row(&operators))
        .collect::<Result<Vec<Row>, _>>()?;
    for Row {
        spec,
        shape,
        ours_ms,
        spread,
        predicted_ms,
        ..
    } in &rows
    {
        println!(
            "{spec:8} {shape:28} {ours_ms:9.4} ms ± {:4.1} %  predicted {predicted_ms:9.4} ms",
            100.0 * spread
        );
    }
    let measured = Measured {
        date: cli.date,
        machine,
        commit: cli.commit,
        suite: "forward",
        rows,
    };
    std::fs::write(&cli.out, serde_json::to_string_pretty(&measured)? + "\n")?;
    println!("wrote {}", cli.out.display());
    Ok(())
}

/// Memory that all shapes share, since all have as many elements.
struct Buffers {
    q: CudaSlice<bf16>,
    k: CudaSlice<bf16>,
    v: CudaSlice<bf16>,
    o: CudaSlice<bf16>,
    lse: CudaSlice<f32>,
    flush: CudaSlice<u8>,
}

impl Buffers {
    fn new(stream: &Arc<CudaStream>) -> Result<Self, Box<dyn Error>> {
        let mut state = 1u32;
        let mut normal = || {
            // A sum of uniform numbers is near enough to normal for power draw, which random data decides.
            let mut uniform = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            bf16::from_f32(uniform() + uniform() + uniform())
        };
        let host: Vec<bf16> = (0..TOKENS * FEATURES + 2).map(|_| normal()).collect();
        let [q, k, v] = [0, 1, 2].map(|shift| stream.clone_htod(&host[shift..][..TOKENS * FEATURES]));
        let lse = stream.alloc_zeros(TOKENS * FEATURES / 64)?;
        let (o, flush) = (stream.alloc_zeros(TOKENS * FEATURES)?, stream.alloc_zeros(FLUSH)?);
        Ok(Self {
            q: q?,
            k: k?,
            v: v?,
            o,
            lse,
            flush,
        })
    }
}

/// The loaded operators.
type Operators = (dense::Operator<bf16>, causal::Operator<bf16>);

/// A shape, with or without the causal mask.
struct Case {
    masked: bool,
    b: usize,
    h: usize,
    n: usize,
    d: usize,
    /// Milliseconds of each launch.
    times: Vec<f64>,
}

impl Case {
    /// Milliseconds of each of some launches, after one that is not counted.
    fn visit(
        &self,
        stream: &Arc<CudaStream>,
        operators: &Operators,
        buffers: &mut Buffers,
        launches: usize,
    ) -> Result<Vec<f64>, Box<dyn Error>> {
        let Self { b, h, n, d, .. } = *self;
        let (dense, causal) = operators;
        let mut dense_space = dense.workspace(stream, dense::Max { b, h, i: n, j: n, d })?;
        let mut causal_space = causal.workspace(stream, causal::Max { b, h, i: n, j: n, d })?;
        let mut events = Vec::new();
        for _ in 0..=launches {
            let Buffers { q, k, v, o, lse, flush } = &mut *buffers;
            let shape = [b, h, n, d];
            let (q, k, v) = (
                Tensor::new(&*q, shape)?,
                Tensor::new(&*k, shape)?,
                Tensor::new(&*v, shape)?,
            );
            let (o, lse) = (TensorMut::new(o, shape)?, TensorMut::new(lse, [b, h, n])?);
            stream.memset_zeros(flush)?;
            let start = stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?;
            if self.masked {
                causal.launch(stream, causal::Args { q, k, v, o, lse }, &mut causal_space)?;
            } else {
                dense.launch(stream, dense::Args { q, k, v, o, lse }, &mut dense_space)?;
            }
            events.push((start, stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?));
        }
        stream.synchronize()?;
        let times = events
            .iter()
            .skip(1)
            .map(|(start, end)| Ok(f64::from(start.elapsed_ms(end)?)));
        times.collect()
    }

    /// The row of what was measured.
    fn row(&mut self, (dense, causal): &Operators) -> Result<Row, Box<dyn Error>> {
        let Self {
            masked,
            b,
            h,
            n,
            d,
            ref mut times,
        } = *self;
        let loaded: &Loaded = if masked { causal.loaded() } else { dense.loaded() };
        let sizes = BTreeMap::from([("b", b), ("h", h), ("i", n), ("j", n), ("d", d)]);
        let choice = chosen(loaded, &[Dtype::Bf16], &sizes)?;
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get(times.len() * part / 4).copied().ok_or("no launch was timed");
        let (low, ours_ms, high) = (at(1)?, at(2)?, at(3)?);
        Ok(Row {
            spec: if masked { "causal" } else { "dense" },
            target: choice.variant.target.clone(),
            pass: "fwd",
            shape: format!("b{b} h{h} s{n} d{d} {}", if masked { "causal" } else { "full" }),
            dtype: "bf16",
            sizes,
            schedule: choice.variant.name.clone(),
            ours_ms,
            spread: (high - low) / 2.0 / ours_ms,
            predicted_ms: choice.time as f64 / 1e6,
        })
    }
}
