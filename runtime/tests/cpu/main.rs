//! The CPU form against a plain loop in f64, for every published spec and for specs made to be awkward.

mod compare;
mod naive;

use compare::{compare, parse};
use drawloom::half::f16;
use drawloom::{Arguments, Embedded, Error, HostMut, HostRef, Input, Operator, Output, Scalar, Tensor, TensorMut};
use drawloom_lang::spec::{AxisRole, AxisSize, Dtype};
use naive::Random;
use std::collections::BTreeMap;

#[test]
fn every_published_spec_agrees_with_the_plain_loop() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "attn"))
        .collect();
    files.sort();
    assert!(files.len() >= 7, "the published specs are there");
    // Queries and keys: one, equal, tails beyond blocks of 128 keys and 32 rows, decode, more queries than keys, none.
    let lengths = [(1, 1), (33, 33), (1, 140), (7, 130), (9, 4), (5, 0), (0, 5)];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let specs = drawloom_lang::parse_str("spec", &text).unwrap_or_else(|errors| panic!("{errors}"));
        for spec in specs {
            for (number, (queries, keys)) in lengths.into_iter().enumerate() {
                let mut sizes = BTreeMap::new();
                for axis in &spec.axes {
                    let size = match (&axis.size, axis.role) {
                        (AxisSize::OneOf(sizes), _) => sizes[number % sizes.len()] as usize,
                        (AxisSize::Grouped { .. }, _) => 2,
                        (AxisSize::Runtime, AxisRole::Query(_)) => queries,
                        (AxisSize::Runtime, AxisRole::Key) => keys,
                        (AxisSize::Runtime, AxisRole::Plain) => 2,
                    };
                    sizes.insert(axis.name.as_str(), size);
                }
                for axis in &spec.axes {
                    if let AxisSize::Grouped { of, ratios } = &axis.size {
                        let ratio = ratios[number % ratios.len()] as usize;
                        sizes.insert(spec.axes[of.index()].name.as_str(), 2 * ratio);
                    }
                }
                let scalars: Vec<f64> = spec.scalars.iter().map(|_| 3.0).collect();
                let types: Vec<Dtype> = spec
                    .types
                    .iter()
                    .map(|set| set.members[number % set.members.len()])
                    .collect();
                compare(&spec, &types, &sizes, &scalars, number as u64 + 1);
            }
        }
    }
}

#[test]
fn expressions_of_every_kind_agree_with_the_plain_loop() {
    let text = "attention awkward {
        axis b, h, i: query(start), j: key, d = 8, e = 24, n = 7;
        input q: f16[b, h, i, d], k: f16[h, j, b, d], v: f16[j, b, h, e], table: f32[h, n], doc: i32[b, j];
        scalar cap: f32, w: i32;
        attend o over j in (k, v) {
            score = if (i - j) % 3 == 0 { cap * tanh(dot(q, k) / cap) } else {
                    abs(dot(q, k)) - sqrt(exp(table[h, (j - i) / 2])) * min(2.0, log(1.5 + max(i, j)))
                };
            mask = !(i / 2 == j && i > 3) || doc[b, j] != 1 || j - i <= w;
            norm = softmax;
        }
        output o: f32[i, b, h, e], lse(o, bits): f32[i, h, b];
    }";
    let spec = parse(text);
    for (seed, (queries, keys)) in [(1, 1), (40, 150), (13, 300)].into_iter().enumerate() {
        let sizes = BTreeMap::from([
            ("b", 2),
            ("h", 3),
            ("i", queries),
            ("j", keys),
            ("d", 8),
            ("e", 24),
            ("n", 7),
        ]);
        compare(&spec, &[], &sizes, &[1.5, -2.0], seed as u64 + 1);
    }
}

const CAUSAL: &str = "attention causal {
    axis h, i: query(end), j: key, d = 8;
    input q: f16[h, i, d], k: f16[h, j, d], v: f16[h, j, d];
    attend o over j in (k, v) { score = dot(q, k); mask = causal; norm = softmax; }
    output o: f32[h, i, d], lse(o, nats): f32[h, i];
}";

fn causal<'r>(
    q: &'r dyn Input,
    k: &'r dyn Input,
    v: &'r dyn Input,
    o: &'r mut dyn Output,
    lse: &'r mut dyn Output,
) -> Result<(), Error> {
    let embedded = Embedded::new(
        "causal",
        Box::leak(drawloom_lang::canonical(&parse(CAUSAL)).into_boxed_str()),
        None,
        "",
    );
    embedded.cpu(Arguments::positional(embedded.operator()?, &[q, k, v], &[], [o, lse])?)
}

fn random(count: usize, seed: u64) -> Vec<f16> {
    let mut random = Random(seed);
    (0..count).map(|_| f16::from_f64(random.unit())).collect()
}

#[test]
fn strides_do_not_change_results() {
    let (heads, queries, keys) = (3, 40, 50);
    let (q, k, v) = (
        random(heads * queries * 8, 1),
        random(heads * keys * 8, 2),
        random(heads * keys * 8, 3),
    );
    let (mut o, mut lse) = (vec![0.0f32; q.len()], vec![0.0; heads * queries]);
    causal(
        &Tensor::host(&q, [heads, queries, 8]).unwrap(),
        &Tensor::host(&k, [heads, keys, 8]).unwrap(),
        &Tensor::host(&v, [heads, keys, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [heads, queries, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [heads, queries]).unwrap(),
    )
    .unwrap();
    // The same with heads inside: [length, heads, 8].
    fn inside<T: Copy>(from: &[T], heads: usize) -> Vec<T> {
        let length = from.len() / heads / 8;
        let at = |row: usize, head: usize| &from[(head * length + row) * 8..][..8];
        (0..length)
            .flat_map(|row| (0..heads).flat_map(move |head| at(row, head).to_vec()))
            .collect()
    }
    let (q, k, v) = (inside(&q, heads), inside(&k, heads), inside(&v, heads));
    let (mut o2, mut lse2) = (vec![0.0; q.len()], vec![0.0; heads * queries]);
    causal(
        &Tensor::host(&q, [queries, heads, 8]).unwrap().transpose(0, 1),
        &Tensor::host(&k, [keys, heads, 8]).unwrap().transpose(0, 1),
        &Tensor::host(&v, [keys, heads, 8]).unwrap().transpose(0, 1),
        &mut TensorMut::host(&mut o2, [queries, heads, 8]).unwrap().transpose(0, 1),
        &mut TensorMut::host(&mut lse2, [heads, queries]).unwrap(),
    )
    .unwrap();
    assert_eq!(inside(&o, heads), o2);
    assert_eq!(lse, lse2);
}

#[test]
fn masked_keys_have_no_influence_whatever_they_hold() {
    let q = random(4 * 8, 1);
    let (mut k, mut v) = (random(200 * 8, 2), random(200 * 8, 3));
    let run = |k: &[f16], v: &[f16]| {
        let (mut o, mut lse) = (vec![0.0; 4 * 8], vec![0.0; 4]);
        causal(
            &Tensor::host(&q, [1, 4, 8]).unwrap(),
            &Tensor::host(k, [1, 200, 8]).unwrap(),
            &Tensor::host(v, [1, 200, 8]).unwrap(),
            &mut TensorMut::host(&mut o, [1, 4, 8]).unwrap(),
            &mut TensorMut::host(&mut lse, [1, 4]).unwrap(),
        )
        .unwrap();
        (o, lse)
    };
    let before = run(&k, &v);
    // The last three keys are invisible to the first query.
    for index in 197 * 8..200 * 8 {
        (k[index], v[index]) = (f16::NAN, f16::INFINITY);
    }
    let after = run(&k, &v);
    assert_eq!(before.0[..8], after.0[..8]);
    assert_eq!(before.1[0], after.1[0]);
    assert!(
        after.0[24..].iter().all(|value| value.is_nan()),
        "the last query sees them"
    );
}

#[test]
fn rows_without_a_visible_key_are_zero() {
    // Six queries and two keys: the first four queries stand before every key.
    let (q, k, v) = (random(6 * 8, 1), random(2 * 8, 2), random(2 * 8, 3));
    let (mut o, mut lse) = (vec![f32::NAN; 6 * 8], vec![f32::NAN; 6]);
    causal(
        &Tensor::host(&q, [1, 6, 8]).unwrap(),
        &Tensor::host(&k, [1, 2, 8]).unwrap(),
        &Tensor::host(&v, [1, 2, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 6, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 6]).unwrap(),
    )
    .unwrap();
    assert!(o[..32].iter().all(|value| *value == 0.0 && value.is_sign_positive()));
    assert_eq!(lse[..4], [f32::NEG_INFINITY; 4]);
    assert_eq!(o[32..40], v[..8].iter().map(|value| value.to_f32()).collect::<Vec<_>>());
}

#[test]
fn large_scores_do_not_overflow() {
    let high = f16::from_f32(100.0);
    let q = vec![high; 8];
    let k = [vec![-high; 8 * 130], vec![high; 8]].concat();
    let v = random(131 * 8, 3);
    let (mut o, mut lse) = (vec![0.0; 8], vec![0.0; 1]);
    causal(
        &Tensor::host(&q, [1, 1, 8]).unwrap(),
        &Tensor::host(&k, [1, 131, 8]).unwrap(),
        &Tensor::host(&v, [1, 131, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 1, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 1]).unwrap(),
    )
    .unwrap();
    assert_eq!(o, v[130 * 8..].iter().map(|value| value.to_f32()).collect::<Vec<_>>());
    assert_eq!(lse, [80_000.0]);
}

#[test]
fn the_same_bytes_come_out_of_one_thread_and_many() {
    // Large enough for several threads; each result must not depend on which thread made it.
    let (q, k, v) = (random(4 * 128 * 8, 1), random(4 * 256 * 8, 2), random(4 * 256 * 8, 3));
    let run = || {
        let (mut o, mut lse) = (vec![0.0f32; q.len()], vec![0.0; 4 * 128]);
        causal(
            &Tensor::host(&q, [4, 128, 8]).unwrap(),
            &Tensor::host(&k, [4, 256, 8]).unwrap(),
            &Tensor::host(&v, [4, 256, 8]).unwrap(),
            &mut TensorMut::host(&mut o, [4, 128, 8]).unwrap(),
            &mut TensorMut::host(&mut lse, [4, 128]).unwrap(),
        )
        .unwrap();
        (o, lse)
    };
    let first = run();
    for _ in 0..5 {
        assert!(first == run());
    }
    let (mut o, mut lse) = (vec![0.0; 8], vec![0.0; 1]);
    // Row 77 of head 2 alone, in one thread: the keys that it sees, up to its position.
    let visible = 77 + 128 + 1;
    causal(
        &Tensor::host(&q[(2 * 128 + 77) * 8..][..8], [1, 1, 8]).unwrap(),
        &Tensor::host(&k[2 * 256 * 8..][..visible * 8], [1, visible, 8]).unwrap(),
        &Tensor::host(&v[2 * 256 * 8..][..visible * 8], [1, visible, 8]).unwrap(),
        &mut TensorMut::host(&mut o, [1, 1, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 1]).unwrap(),
    )
    .unwrap();
    assert_eq!(o, first.0[(2 * 128 + 77) * 8..][..8]);
}

#[test]
fn arguments_by_name_come_in_any_order_and_are_checked() {
    let operator = Operator::new(parse(CAUSAL)).unwrap();
    let memory = random(16, 1);
    let tensor = Tensor::host(&memory, [1, 2, 8]).unwrap();
    let mut out = vec![0.0; 16];
    let mut lse = vec![0.0; 2];
    let mut o = TensorMut::host(&mut out, [1, 2, 8]).unwrap();
    let mut l = TensorMut::host(&mut lse, [1, 2]).unwrap();
    let mut refuse = |inputs: &[(&str, &dyn Input)], scalars: &[(&str, Scalar)]| {
        Arguments::named(&operator, inputs, scalars, &mut [("o", &mut o), ("lse", &mut l)])
            .err()
            .unwrap()
            .to_string()
    };
    let t: &dyn Input = &tensor;
    assert_eq!(refuse(&[("q", t), ("k", t)], &[]), "argument `v` is missing");
    assert_eq!(refuse(&[("q", t), ("q", t)], &[]), "argument `q` was given twice");
    assert_eq!(refuse(&[("x", t)], &[]), "there is no input `x`; there are q, k or v");
    let all = [("v", t), ("q", t), ("k", t)];
    assert_eq!(
        refuse(&all, &[("w", Scalar::I32(1))]),
        "there is no scalar `w`; there are none"
    );
    assert!(Arguments::named(&operator, &all, &[], &mut [("lse", &mut l), ("o", &mut o)]).is_ok());
}

#[test]
fn device_memory_is_refused() {
    // SAFETY: the CPU form refuses the tensor; nobody reads the address.
    let raw = unsafe { Tensor::<f16, 3>::from_raw(4096, 16, [1, 2, 8], [16, 8, 1]) }.unwrap();
    let memory = random(16, 1);
    let t = Tensor::host(&memory, [1, 2, 8]).unwrap();
    let (mut o, mut lse) = (vec![0.0; 16], vec![0.0; 2]);
    let given = causal(
        &t,
        &raw,
        &t,
        &mut TensorMut::host(&mut o, [1, 2, 8]).unwrap(),
        &mut TensorMut::host(&mut lse, [1, 2]).unwrap(),
    );
    assert_eq!(
        given,
        Err(Error::Place {
            argument: "k".into(),
            expected: "host",
            given: "device"
        })
    );
}

/// Adapters can be written outside of the crate.
#[test]
fn views_are_open_to_other_crates() {
    fn takes(memory: Option<HostRef<'_>>, output: Option<HostMut<'_>>) -> bool {
        matches!((memory, output), (Some(HostRef::F16(_)), Some(HostMut::F32(_))))
    }
    let (memory, mut out) = (random(8, 1), vec![0.0f32; 8]);
    let input = Tensor::host(&memory, [8]).unwrap();
    let mut output = TensorMut::host(&mut out, [8]).unwrap();
    assert!(takes(input.host(), Output::host(&mut output)));
}
