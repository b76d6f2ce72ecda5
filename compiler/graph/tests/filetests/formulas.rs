//! The operators as direct loops over points: no fold, no online softmax, nothing shared with the graphs.

use super::Case;

type Results = Vec<(&'static str, Vec<f64>)>;

/// The outputs that a formula gives.
pub fn formula(name: &str, case: &Case) -> Results {
    match name {
        "attention" => attention(case),
        "lightning" => vec![("o", lightning(case))],
        "landmark" => vec![("o", landmark(case))],
        "var" => vec![("o", var(case))],
        "act" => vec![("o", act(case))],
        "routing" => routing(case),
        "combiner" => vec![("o", combiner(case))],
        "third_order" => vec![("o", third_order(case))],
        "delta" => vec![("o", delta(case))],
        "titans" => vec![("y", titans(case))],
        "agent" => vec![("o", agent(case))],
        "hip" => vec![("o", hip(case))],
        other => panic!("no formula `{other}`"),
    }
}

fn dot(n: usize, f: impl Fn(usize) -> f64, g: impl Fn(usize) -> f64) -> f64 {
    (0..n).map(|x| f(x) * g(x)).sum()
}

/// Probabilities of the listed scores.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
    scores.iter().map(|s| s.exp() / sum).collect()
}

fn attention(c: &Case) -> Results {
    let (mut o, mut lse) = (Vec::new(), Vec::new());
    for i in 0..c.len("i") {
        let seen: Vec<usize> = (0..c.len("j"))
            .filter(|&j| c.at("own", &[i]) == c.at("document", &[j]))
            .collect();
        let scale = 1.0 / (c.len("d") as f64).sqrt();
        let scores: Vec<f64> = seen
            .iter()
            .map(|&j| score(c, i, j) * scale + c.at("bias", &[i, j]))
            .collect();
        let p = softmax(&scores);
        o.extend((0..c.len("e")).map(|e| dot(seen.len(), |x| p[x], |x| c.at("v", &[seen[x], e]))));
        lse.push(scores.iter().map(|s| s.exp()).sum::<f64>().ln());
    }
    vec![("o", o), ("lse", lse)]
}

fn lightning(c: &Case) -> Vec<f64> {
    let mut out = Vec::new();
    for h in 0..c.len("h") {
        for t in 0..c.len("t") {
            for e in 0..c.len("e") {
                out.push(
                    (0..=t)
                        .map(|s| {
                            let decay = (-c.at("s", &[h]) * (t - s) as f64).exp();
                            let score = dot(c.len("d"), |d| c.at("q", &[h, t, d]), |d| c.at("k", &[h, s, d]));
                            decay * score * c.at("v", &[h, s, e])
                        })
                        .sum(),
                );
            }
        }
    }
    out
}

fn score(c: &Case, i: usize, j: usize) -> f64 {
    dot(c.len("d"), |d| c.at("q", &[i, d]), |d| c.at("k", &[j, d]))
}

fn landmark(c: &Case) -> Vec<f64> {
    let mut out = Vec::new();
    for i in 0..c.len("j") {
        let own = i / 4;
        let group: Vec<usize> = (0..c.len("j"))
            .filter(|&j| {
                if j / 4 == own {
                    j <= i && !(j == i && j % 4 == 3)
                } else {
                    j < i && j % 4 == 3
                }
            })
            .collect();
        let p = softmax(&group.iter().map(|&j| score(c, i, j)).collect::<Vec<_>>());
        let mut weight = vec![0.0; c.len("j")];
        for (&j, p) in group.iter().zip(p) {
            if j / 4 == own {
                weight[j] += p;
            } else {
                let block: Vec<usize> = (j - 3..j).collect();
                let inside = softmax(&block.iter().map(|&x| score(c, i, x)).collect::<Vec<_>>());
                block.iter().zip(inside).for_each(|(&x, w)| weight[x] += p * w);
            }
        }
        for e in 0..c.len("e") {
            out.push(dot(c.len("j"), |j| weight[j], |j| c.at("v", &[j, e])));
        }
    }
    out
}

/// Causal probabilities, whole rows.
fn causal(c: &Case, n: usize, scale: f64) -> Vec<Vec<f64>> {
    (0..n)
        .map(|i| {
            let mut p = softmax(&(0..=i).map(|j| scale * score(c, i, j)).collect::<Vec<_>>());
            p.resize(n, 0.0);
            p
        })
        .collect()
}

fn weighted(c: &Case, p: &[Vec<f64>]) -> Vec<f64> {
    p.iter()
        .flat_map(|row| (0..c.len("e")).map(|e| dot(row.len(), |j| row[j], |j| c.at("v", &[j, e]))))
        .collect()
}

fn var(c: &Case) -> Vec<f64> {
    let n = c.len("i");
    let mut p = causal(c, n, 1.0);
    let class = |j: usize| c.at("class", &[j]) as usize;
    for row in &mut p {
        let mass: Vec<f64> = (0..4)
            .map(|x| (0..n).filter(|&j| class(j) == x).map(|j| row[j]).sum())
            .collect();
        let visual = mass[1] + mass[2];
        if mass[1] > 0.5 * visual || visual < 0.2 {
            continue;
        }
        for (j, p) in row.iter_mut().enumerate() {
            *p *= match class(j) {
                0 | 1 => 0.6,
                2 => 1.0 + (1.0 - 0.6) * (mass[0] + mass[1]) / mass[2],
                _ => 1.0,
            };
        }
    }
    weighted(c, &p)
}

fn act(c: &Case) -> Vec<f64> {
    let n = c.len("i");
    let mut p = causal(c, n, 2.0);
    let column = |j: usize| p.iter().map(|row| row[j]).sum::<f64>() / (n - j) as f64;
    let sinks: Vec<usize> = (0..n).filter(|&j| column(j) > 0.1).skip(1).collect();
    for row in &mut p {
        let mass: f64 = sinks.iter().map(|&j| row[j]).sum();
        for (j, p) in row.iter_mut().enumerate() {
            *p = if sinks.contains(&j) {
                0.4 * *p
            } else {
                *p + *p / (1.0 - mass) * 0.6 * mass
            };
        }
    }
    p[0] = (0..n).map(|j| f64::from(u8::from(j == 0))).collect();
    weighted(c, &p)
}

fn routing(c: &Case) -> Results {
    let (n, d) = (c.len("t"), c.len("d"));
    let unit = |name: &str, t: usize, x: usize| {
        c.at(name, &[t, x]) / dot(d, |y| c.at(name, &[t, y]), |y| c.at(name, &[t, y])).sqrt()
    };
    let nearest = |name: &str, cluster: usize| {
        let mut order: Vec<usize> = (0..n).collect();
        let near = |t: usize| dot(d, |x| c.at("mu", &[cluster, x]), |x| unit(name, t, x));
        order.sort_by(|&a, &b| near(b).partial_cmp(&near(a)).expect("numbers"));
        let mut best = order[..4].to_vec();
        best.sort_unstable();
        best
    };
    let mut sums = vec![vec![0.0; c.len("e")]; n];
    let mut count = vec![0.0; n];
    for cluster in 0..c.len("c") {
        let keys = nearest("k", cluster);
        for i in nearest("q", cluster) {
            let seen: Vec<usize> = keys.iter().copied().filter(|&j| j <= i).collect();
            let mut scores: Vec<f64> = seen
                .iter()
                .map(|&j| dot(d, |x| unit("q", i, x), |x| unit("k", j, x)))
                .collect();
            scores.extend((0..2).map(|m| dot(d, |x| unit("q", i, x), |x| c.at("mk", &[cluster, m, x]))));
            let p = softmax(&scores);
            for (e, sum) in sums[i].iter_mut().enumerate() {
                *sum += dot(seen.len(), |x| p[x], |x| c.at("v", &[seen[x], e]));
                *sum += dot(2, |m| p[seen.len() + m], |m| c.at("mv", &[cluster, m, e]));
            }
            count[i] += 1.0;
        }
    }
    let o = sums
        .iter()
        .zip(&count)
        .flat_map(|(s, &n)| s.iter().map(move |x| if n > 0.0 { x / n } else { 0.0 }));
    vec![("o", o.collect()), ("count", count)]
}

fn combiner(c: &Case) -> Vec<f64> {
    let (d, e) = (c.len("d"), c.len("e"));
    let mut out = Vec::new();
    for i in 0..c.len("j") {
        let own = i / 4;
        let pool = |name: &str, b: usize, x: usize| (0..4).map(|r| c.at(name, &[b * 4 + r, x])).sum::<f64>() / 4.0;
        let mut scores: Vec<f64> = (own * 4..=i).map(|j| score(c, i, j)).collect();
        scores.extend((0..own).map(|b| dot(d, |x| c.at("q", &[i, x]), |x| pool("k", b, x))));
        let p = softmax(&scores);
        let direct = i - own * 4 + 1;
        for e in 0..e {
            let near = dot(direct, |x| p[x], |x| c.at("v", &[own * 4 + x, e]));
            let far = dot(
                own,
                |b| p[direct + b],
                |b| {
                    let inside: Vec<f64> = (0..4)
                        .map(|r| dot(d, |x| pool("q", b, x), |x| c.at("k", &[b * 4 + r, x])))
                        .collect();
                    let inside = softmax(&inside);
                    dot(4, |r| inside[r], |r| c.at("v", &[b * 4 + r, e]))
                },
            );
            out.push(near + far);
        }
    }
    out
}

fn third_order(c: &Case) -> Vec<f64> {
    let (d, n) = (c.len("d"), c.len("j"));
    let mut out = Vec::new();
    for i in 0..c.len("i") {
        let scores: Vec<f64> = (0..n * n)
            .map(|p| {
                dot(
                    d,
                    |x| c.at("q", &[i, x]) * c.at("k1", &[p / n, x]),
                    |x| c.at("k2", &[p % n, x]),
                ) / d as f64
            })
            .collect();
        let p = softmax(&scores);
        out.extend((0..d).map(|x| dot(n * n, |y| p[y], |y| c.at("v1", &[y / n, x]) * c.at("v2", &[y % n, x]))));
    }
    out
}

fn delta(c: &Case) -> Vec<f64> {
    let (d, e) = (c.len("d"), c.len("e"));
    let mut s = vec![vec![0.0; e]; d];
    let mut out = Vec::new();
    for t in 0..c.len("t") {
        let k = |x: usize| c.at("k", &[t, x]);
        let error: Vec<f64> = (0..e).map(|y| c.at("v", &[t, y]) - dot(d, k, |x| s[x][y])).collect();
        for (x, row) in s.iter_mut().enumerate() {
            row.iter_mut()
                .zip(&error)
                .for_each(|(s, u)| *s += c.at("beta", &[t]) * k(x) * u);
        }
        out.extend((0..e).map(|y| dot(d, |x| c.at("q", &[t, x]), |x| s[x][y])));
    }
    out
}

fn titans(c: &Case) -> Vec<f64> {
    let (d, e) = (c.len("d"), c.len("e"));
    let (mut m, mut s) = (vec![vec![0.0; e]; d], vec![vec![0.0; e]; d]);
    let mut start = m.clone();
    let mut out = Vec::new();
    for t in 0..c.len("t") {
        if t % 3 == 0 {
            start = m.clone();
        }
        for x in 0..d {
            for y in 0..e {
                let error = dot(d, |z| c.at("k", &[t, z]), |z| start[z][y]) - c.at("v", &[t, y]);
                let gradient = 2.0 * error * c.at("k", &[t, x]);
                s[x][y] = c.at("eta", &[t]) * s[x][y] - c.at("theta", &[t]) * gradient;
                m[x][y] = (1.0 - c.at("alpha", &[t])) * m[x][y] + s[x][y];
            }
        }
        out.extend((0..e).map(|y| dot(d, |x| c.at("q", &[t, x]), |x| m[x][y])));
    }
    out
}

fn agent(c: &Case) -> Vec<f64> {
    let (n, d, e) = (c.len("i"), c.len("d"), c.len("e"));
    let scale = 1.0 / (d as f64).sqrt();
    let agent = |a: usize, x: usize| (0..4).map(|r| c.at("q", &[a * 4 + r, x])).sum::<f64>() / 4.0;
    let values: Vec<Vec<f64>> = (0..n / 4)
        .map(|a| {
            let scores: Vec<f64> = (0..n)
                .map(|j| scale * dot(d, |x| agent(a, x), |x| c.at("k", &[j, x])) + c.at("b1", &[a, j]))
                .collect();
            let p = softmax(&scores);
            (0..e).map(|y| dot(n, |j| p[j], |j| c.at("v", &[j, y]))).collect()
        })
        .collect();
    let mut out = Vec::new();
    for i in 0..n {
        let scores: Vec<f64> = (0..n / 4)
            .map(|a| scale * dot(d, |x| c.at("q", &[i, x]), |x| agent(a, x)) + c.at("b2", &[i, a]))
            .collect();
        let p = softmax(&scores);
        out.extend((0..e).map(|y| {
            let near: f64 = (0..3)
                .filter(|&w| i + w >= 1 && i + w - 1 < n)
                .map(|w| c.at("conv", &[w, y]) * c.at("v", &[i + w - 1, y]))
                .sum();
            dot(n / 4, |a| p[a], |a| values[a][y]) + near
        }));
    }
    out
}

fn hip(c: &Case) -> Vec<f64> {
    let mut out = Vec::new();
    for i in 0..c.len("i") {
        // Chunks as (start, length); the better of two by the score at the middle, the earlier of equals.
        let mut chunks: Vec<(usize, usize)> = (0..4).map(|n| (n * 4, 4)).collect();
        loop {
            let value = |&(start, len): &(usize, usize)| {
                let middle = start + len / 2;
                if middle <= i { score(c, i, middle) } else { -1e9 }
            };
            let mut order: Vec<usize> = (0..4).collect();
            order.sort_by(|&a, &b| value(&chunks[b]).partial_cmp(&value(&chunks[a])).expect("numbers"));
            let best: Vec<(usize, usize)> = order[..2].iter().map(|&n| chunks[n]).collect();
            if best[0].1 == 1 {
                chunks = best;
                break;
            }
            chunks = best
                .iter()
                .flat_map(|&(s, l)| [(s, l / 2), (s + l / 2, l / 2)])
                .collect();
        }
        let seen: Vec<usize> = (0..=i)
            .filter(|&j| i - j <= 2 || chunks.iter().any(|x| x.0 == j))
            .collect();
        let p = softmax(&seen.iter().map(|&j| score(c, i, j)).collect::<Vec<_>>());
        out.extend((0..c.len("e")).map(|e| dot(seen.len(), |x| p[x], |x| c.at("v", &[seen[x], e]))));
    }
    out
}
