//! Launches of file tests: arguments, references, and changed copies of a kernel.

use drawloom_kernel::interp::{Arg, Args, Counts, Elements, Tensor};
use drawloom_kernel::ir::{Dtype, Kernel};

/// What the head of a file says of its launch.
pub struct Launch {
    /// CTAs.
    pub grid: u32,
    /// Seeds `0..seeds` are run.
    pub seeds: u64,
    /// Arguments.
    pub args: Args,
    names: Vec<String>,
    sizes: Vec<Vec<usize>>,
    expectations: Vec<Vec<String>>,
}

fn number<T: std::str::FromStr>(word: Option<&&str>) -> Result<T, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

impl Launch {
    /// Reads the commands `launch`, `arg` and `expect`.
    pub fn read(text: &str) -> Result<Launch, String> {
        let (names, sizes, expectations) = (Vec::new(), Vec::new(), Vec::new());
        let mut launch = Launch {
            grid: 1,
            seeds: 1,
            args: Args::default(),
            names,
            sizes,
            expectations,
        };
        for line in text.lines().filter_map(|l| l.strip_prefix("; ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first() {
                Some(&"launch") => {
                    launch.grid = number(words.get(2))?;
                    launch.seeds = number(words.get(4))?;
                }
                Some(&"arg") => {
                    let (arg, sizes) = argument(&words[2..], launch.names.len() as u64)?;
                    launch.names.push(words[1].to_string());
                    launch.args.values.push(arg);
                    launch.sizes.push(sizes);
                }
                Some(&"expect") => launch
                    .expectations
                    .push(words[1..].iter().map(|w| w.to_string()).collect()),
                _ => {}
            }
        }
        Ok(launch)
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        self.names
            .iter()
            .position(|n| n == name)
            .ok_or_else(|| format!("no argument `{name}`"))
    }

    /// The sizes of a tensor argument and its numbers.
    fn tensor(&self, args: &Args, name: &str) -> Result<(&[usize], Vec<f64>), String> {
        let i = self.index(name)?;
        let t = args.tensor(i).ok_or_else(|| format!("`{name}` is not a tensor"))?;
        Ok((&self.sizes[i], t.data.to_f64()))
    }

    /// Checks what is expected of a finished run.
    pub fn check(&self, kernel: &Kernel, args: &Args, counts: &Counts) -> Result<(), String> {
        if self.expectations.is_empty() {
            return Err("the file expects nothing".to_string());
        }
        for words in &self.expectations {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words[..] {
                ["read", name, bytes] => same(words.as_slice(), counts.read[self.param(kernel, name)?], bytes)?,
                ["written", name, bytes] => same(words.as_slice(), counts.written[self.param(kernel, name)?], bytes)?,
                ["exps", n] => same(words.as_slice(), counts.exps, n)?,
                ["flops", n] => same(words.as_slice(), counts.mma_flops, n)?,
                [o, "attention", q, k, v, "scale", scale, "within", tolerance] => {
                    let scale: f64 = number(Some(&scale))?;
                    let (sizes, q) = self.tensor(args, q)?;
                    let reference = attention(&q, &self.tensor(args, k)?.1, &self.tensor(args, v)?.1, sizes[1], scale);
                    close(
                        &self.tensor(args, o)?.1,
                        &reference,
                        sizes[1],
                        number(Some(&tolerance))?,
                    )?;
                }
                [o, "values", ref values @ ..] => {
                    let expected = values
                        .iter()
                        .map(|v| number(Some(v)))
                        .collect::<Result<Vec<f64>, _>>()?;
                    let given = self.tensor(args, o)?.1;
                    if given != expected {
                        return Err(format!("`{o}` is {given:?}, expected {expected:?}"));
                    }
                }
                [o, "sum", a, b] => {
                    let (a, b) = (self.tensor(args, a)?.1, self.tensor(args, b)?.1);
                    let sum: Vec<f64> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
                    close(&self.tensor(args, o)?.1, &sum, sum.len(), 1e-6)?;
                }
                _ => return Err(format!("cannot expect `{}`", words.join(" "))),
            }
        }
        Ok(())
    }

    fn param(&self, kernel: &Kernel, name: &str) -> Result<usize, String> {
        kernel
            .params
            .iter()
            .position(|p| p.name == name)
            .ok_or_else(|| format!("no parameter `{name}`"))
    }
}

fn same(words: &[&str], given: u64, expected: &str) -> Result<(), String> {
    if given == number(Some(&expected))? {
        Ok(())
    } else {
        Err(format!("{}: counted {given}", words.join(" ")))
    }
}

fn argument(words: &[&str], seed: u64) -> Result<(Arg, Vec<usize>), String> {
    let dtype = |name: &str| {
        let all = [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::I32, Dtype::I64];
        all.into_iter()
            .find(|d| d.name() == name)
            .ok_or_else(|| format!("no dtype `{name}`"))
    };
    let scalar = |arg| Ok((arg, Vec::new()));
    match words {
        ["i32", x] => scalar(Arg::I32(number(Some(x))?)),
        ["i64", x] => scalar(Arg::I64(number(Some(x))?)),
        ["f32", x] => scalar(Arg::F32(number(Some(x))?)),
        [kind @ ("random" | "zeros" | "iota"), ty, sizes @ ..] => {
            let offset = sizes.iter().position(|w| *w == "offset");
            let dims = &sizes[..offset.unwrap_or(sizes.len())];
            let dims = dims
                .iter()
                .map(|s| number(Some(s)))
                .collect::<Result<Vec<usize>, _>>()?;
            let offset = offset.map_or(Ok(0), |i| number(sizes.get(i + 1)))?;
            let count = dims.iter().product::<usize>() + offset;
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
            let values: Vec<f64> = (0..count)
                .map(|i| match *kind {
                    "random" => random(&mut state),
                    "iota" => i as f64,
                    _ => 0.0,
                })
                .collect();
            let data = Elements::from_f64(dtype(ty)?, &values).ok_or("not a memory type")?;
            Ok((
                Arg::Tensor(Tensor {
                    offset,
                    ..Tensor::contiguous(data, &dims)
                }),
                dims,
            ))
        }
        _ => Err(format!("cannot read the argument `{}`", words.join(" "))),
    }
}

/// A number in -2..2, from a linear congruential generator.
fn random(state: &mut u64) -> f64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as f64 / (1u64 << 29) as f64 - 2.0
}

/// Softmax attention in f64, for one head with head dimension `d`.
fn attention(q: &[f64], k: &[f64], v: &[f64], d: usize, scale: f64) -> Vec<f64> {
    let mut out = Vec::new();
    for q in q.chunks(d) {
        let dot = |k: &[f64]| scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = k.chunks(d).map(dot).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = p.iter().sum();
        out.extend((0..d).map(|c| p.iter().zip(v.chunks(d)).map(|(p, v)| p * v[c]).sum::<f64>() / sum));
    }
    out
}

/// Compares row by row: the norm of the difference against the norm of the reference.
fn close(given: &[f64], expected: &[f64], row: usize, tolerance: f64) -> Result<(), String> {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    for (r, (g, e)) in given.chunks(row).zip(expected.chunks(row)).enumerate() {
        let error = norm(&mut g.iter().zip(e).map(|(a, b)| a - b));
        let size = norm(&mut e.iter().copied());
        if error.is_nan() || error > tolerance * size {
            return Err(format!("row {r} is off by {error:.2e} of {size:.2e}"));
        }
    }
    if given.len() == expected.len() {
        Ok(())
    } else {
        Err("the reference has another size".to_string())
    }
}

/// The text of `base` with the changes of a file.
pub fn apply_changes(base: &str, changes: &str) -> Result<String, String> {
    let mut lines: Vec<String> = base.lines().map(str::to_string).collect();
    let find = |lines: &[String], text: &str| {
        let mut found = lines
            .iter()
            .enumerate()
            .filter(|(_, l)| l.trim() == text)
            .map(|(i, _)| i);
        match (found.next(), found.next()) {
            (Some(i), None) => Ok(i),
            (None, _) => Err(format!("the base has no line `{text}`")),
            (Some(_), Some(_)) => Err(format!("the base has several lines `{text}`")),
        }
    };
    let mut insert_at = 0;
    for line in changes.lines() {
        if let Some(text) = line.strip_prefix("- ") {
            insert_at = find(&lines, text.trim())?;
            lines.remove(insert_at);
        } else if let Some(text) = line.strip_prefix("+ ") {
            lines.insert(insert_at, text.to_string());
            insert_at += 1;
        } else if let Some(text) = line.strip_prefix("= ") {
            let (plain, mark) = text
                .rsplit_once(" ; fault: ")
                .ok_or_else(|| format!("`{line}` has no mark"))?;
            let i = find(&lines, plain.trim())?;
            lines[i] += &format!(" ; fault: {mark}");
        } else if let Some(launch) = line.strip_prefix("; launch ") {
            lines.push(format!("; launch {launch}"));
        } else if let Some(argument) = line.strip_prefix("; arg ") {
            let name = argument.split_whitespace().next().unwrap_or_default();
            let i = lines.iter().position(|l| l.starts_with(&format!("; arg {name} ")));
            let i = i.ok_or_else(|| format!("the base has no argument `{name}`"))?;
            lines[i] = line.to_string();
        }
    }
    Ok(lines.join("\n"))
}
