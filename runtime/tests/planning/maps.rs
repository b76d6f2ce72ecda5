//! Tensor maps: planned from the views of a call, refused where the copy engine cannot read a tensor, checked when an
//! artifact is opened.

use crate::portfolio::{AMPLE, Case, artifact, artifact_of, case, chosen, h200, map, variants, with};
use drawloom::manifest::{Arg, Variant};
use drawloom::planning::TensorMap;
use drawloom::{Dtype, Error};

/// The one variant with tensor maps.
fn hopper() -> Variant {
    variants(0, 1).remove(4)
}

/// Why Hopper's variant, alone in its artifact, cannot run.
fn reason(case: &Case) -> String {
    let alone = artifact_of(vec![hopper()]).expect("the artifact opens");
    with(&alone, &h200(), case, AMPLE, |plan| match plan.err() {
        Some(Error::NoVariant { reasons, .. }) => reasons,
        other => panic!("{other:?}"),
    })
}

#[test]
fn maps_are_planned_from_the_views() {
    let mut case = case(2, 32, 8, 4096, 2048, 128);
    // Queries are stored as [b, i, h, d].
    case.tensors[0].strides[..3].copy_from_slice(&[4096 * 32 * 128, 128, 32 * 128]);
    with(&artifact(), &h200(), &case, AMPLE, |plan| {
        let plan = plan.expect("the call is right").expect("there is something to do");
        assert_eq!(plan.choice.variant.name, "hopper");
        let (q, k) = (plan.maps()[0], plan.maps()[1]);
        let expected = TensorMap {
            dtype: Dtype::Bf16,
            rank: 4,
            address: case.tensors[0].address,
            dims: [128, 4096, 32, 2, 1],
            strides: [8192, 256, 4096 * 32 * 256, 16],
            window: [64, 64, 1, 1, 1],
            panel_bytes: 128,
        };
        assert_eq!(q, expected);
        assert_eq!((k.address, k.dims), (case.tensors[1].address, [128, 2048, 8, 2, 1]));
        let kernel = plan.kernels().next().expect("one kernel");
        // Five pointers, then the maps' numbers.
        assert_eq!(kernel.params[4], case.tensors[5].address);
        assert_eq!(kernel.params[5..], [0, 1, 2]);
        assert_eq!(plan.maps().len(), 3);
    });
}

#[test]
fn a_variant_without_maps_plans_none() {
    let decode = case(1, 8, 2, 1, 65_536, 128);
    with(&artifact(), &h200(), &decode, AMPLE, |plan| {
        let plan = plan.expect("the call is right").expect("there is something to do");
        assert_eq!((plan.choice.variant.name.as_str(), plan.maps().len()), ("split", 0));
    });
}

#[test]
fn what_the_copy_engine_cannot_read_goes_to_a_portable_variant() {
    let good = || case(4, 32, 8, 4096, 4096, 128);
    assert_eq!(chosen(&h200(), &good()), "hopper");
    // No keys: the portable kernel writes the zeros.
    let no_keys = case(4, 32, 8, 4096, 0, 128);
    assert_ne!(chosen(&h200(), &no_keys), "hopper");
    assert_eq!(
        reason(&no_keys),
        "`hopper` reads or writes `k` through the copy engine, but its axis 2 has 0 elements"
    );
    // One row of keys for all heads, repeated by a stride of 0.
    let mut repeated = good();
    repeated.tensors[2].strides[1] = 0;
    assert_eq!(chosen(&h200(), &repeated), "large");
    assert!(reason(&repeated).contains("`v` through the copy engine, but its axis 1 has a stride of 0 bytes"));
    // A stride of a tebibyte.
    let mut far = good();
    far.tensors[0].strides[0] = 1 << 39;
    far.tensors[0].len = usize::MAX;
    far.tensors[0].address = 1 << 50;
    assert!(reason(&far).contains("`q` through the copy engine, but its axis 0 has a stride of 1099511627776 bytes"));
    // Alignment is asked for first.
    let mut shifted = good();
    shifted.tensors[1].address += 2;
    assert!(reason(&shifted).contains("needs addresses and strides aligned to 16 bytes, but 2 is given"));
    // A stride along an axis of one element is nobody's concern.
    let mut one = case(1, 32, 8, 4096, 4096, 128);
    one.tensors[0].strides[0] = 3;
    assert_eq!(chosen(&h200(), &one), "hopper");
}

#[test]
fn maps_that_the_engine_cannot_have_are_refused_when_opened() {
    let refused = |arg: Arg| {
        let mut variant = hopper();
        variant.launches[0].args = vec![arg];
        artifact_of(vec![variant])
            .map(|_| ())
            .expect_err("it is refused")
            .to_string()
    };
    let with = |tensor: &str, row_axis, rows, cols, panel_bytes| Arg::TensorMap {
        tensor: tensor.to_owned(),
        row_axis,
        rows,
        cols,
        panel_bytes,
    };
    for (arg, words) in [
        (with("x", 2, 64, 64, 128), "a tensor of the spec"),
        (
            with("slope", 0, 64, 32, 128),
            "the number of axes of the tensor map of `slope`",
        ),
        (with("q", 3, 64, 64, 128), "the row axis of the tensor map of `q`"),
        (with("q", 2, 0, 64, 128), "is 0, but 1 to 256"),
        (with("q", 2, 257, 64, 128), "is 257, but 1 to 256"),
        (with("q", 2, 64, 64, 256), "32, 64 or 128"),
        (
            with("q", 2, 64, 32, 128),
            "the number of columns of the tensor map of `q`",
        ),
        // Four bytes an element.
        (with("lse", 1, 64, 64, 128), "32, the f32 of a panel"),
    ] {
        let error = refused(arg);
        assert!(error.contains(words), "{error}");
    }
    let mut many = hopper();
    many.launches[0].args = vec![map("q"); 17];
    let error = artifact_of(vec![many])
        .map(|_| ())
        .expect_err("it is refused")
        .to_string();
    assert!(
        error.contains("the number of tensor maps of `hopper` is 17, but at most 16"),
        "{error}"
    );
    let mut most = hopper();
    most.launches[0].args = vec![map("q"); 16];
    assert!(artifact_of(vec![most]).is_ok());
}
