//! Tensors of more than 2^31 elements: every offset that planning hands to a kernel is exact, with no such memory here.

use crate::portfolio::{AMPLE, artifact, case, device, h200, with};

/// The variant of this number in the portfolio, alone.
fn only(number: usize) -> drawloom::Artifact {
    artifact().retain(|_, variant| variant == number)
}

const SPLIT: usize = 3;
const HOPPER: usize = 4;

#[test]
fn offsets_beyond_32_bits_stay_exact() {
    let a100 = device("A100", (8, 0), 108, 166_912);
    // A billion keys of 128 features: 2^37 elements in each head.
    let long = case(1, 8, 2, 1, 1 << 30, 128);
    with(&only(SPLIT), &a100, &long, AMPLE, |plan| {
        let plan = plan.unwrap().unwrap();
        let first = plan.kernels().next().unwrap();
        assert_eq!(first.params[4] as u32, 1 << 30, "the length");
        assert_eq!(first.params[6], 1 << 37, "length times features");
    });
    // Very many sequences: 2^34 queries and their results.
    let many = case(1 << 20, 16, 4, 8, 64, 128);
    with(&artifact(), &a100, &many, AMPLE, |plan| {
        let plan = plan.unwrap().unwrap();
        assert_eq!(plan.kernels().next().unwrap().grid, 1 << 24);
    });
}

#[test]
fn outer_strides_beyond_32_bits_stay_exact() {
    let mut wide = case(2, 8, 2, 3, 5000, 64);
    wide.tensors[0].strides[2] = 1 << 33;
    wide.tensors[0].len = 1 << 36;
    // Far from the others, which it would reach over.
    wide.tensors[0].address = 1 << 45;
    wide.tensors[0].strides[1] = 64;
    wide.tensors[0].strides[0] = 8 * 64;
    with(&only(SPLIT), &h200(), &wide, AMPLE, |plan| {
        let plan = plan.unwrap().unwrap();
        assert_eq!(plan.kernels().next().unwrap().params[1], 1 << 33);
    });
    with(&only(HOPPER), &h200(), &wide, AMPLE, |plan| {
        let plan = plan.unwrap().unwrap();
        assert!(plan.maps()[0].strides.contains(&(1 << 34)), "{:?}", plan.maps()[0]);
    });
    // Bulk copies step by less than 2^40 bytes; other kernels by anything.
    wide.tensors[0].strides[2] = 1 << 39;
    wide.tensors[0].len = 1 << 42;
    with(&only(HOPPER), &h200(), &wide, AMPLE, |plan| {
        let error = plan.err().unwrap().to_string();
        assert!(error.contains("a stride of 1099511627776 bytes"), "{error}");
    });
    with(&artifact(), &h200(), &wide, AMPLE, |plan| {
        assert_ne!(plan.unwrap().unwrap().choice.variant.name, "hopper");
    });
}

#[test]
fn extents_beyond_memory_are_refused_and_not_wrapped() {
    for stride in [1 << 62, usize::MAX / 2, usize::MAX] {
        let mut wrapped = case(2, 8, 2, 3, 5, 64);
        wrapped.tensors[1].strides[0] = stride;
        with(&artifact(), &h200(), &wrapped, AMPLE, |plan| {
            let error = plan.err().unwrap();
            assert!(matches!(error, drawloom::Error::OutOfBounds { .. }), "{error}");
        });
    }
}
