//! Checks, selection and parameters of launches, on many devices and no GPU: planning is a pure function.

mod large;
mod maps;
mod portfolio;

use drawloom::planning::{MAX_SIZE, Setting, Sizes, WorkspaceView, plan_launch, workspace_for};
use drawloom::{Artifact, Dtype, Error, Input, Output, Place, Tensor, TensorMut};

use portfolio::{AMPLE, ANY, CONTEXT, artifact, case, ceil_div, chosen, constant, device, h200, mul, refused, with};

#[test]
fn each_device_gets_what_it_can_run() {
    let long = case(4, 32, 8, 4096, 4096, 128);
    // Prefill: large tiles where 163 KiB are allowed, the variant of at most 99 KiB elsewhere, Hopper's own on Hopper.
    for (device, expected) in [
        (device("GeForce RTX 3090", (8, 6), 82, 101_376), "small"),
        (device("GeForce RTX 4090", (8, 9), 128, 101_376), "small"),
        (device("L4", (8, 9), 58, 101_376), "small"),
        (device("A100", (8, 0), 108, 166_912), "large"),
        (device("H100", (9, 0), 132, 232_448), "hopper"),
        (h200(), "hopper"),
        (device("B200", (10, 0), 148, 232_448), "large"),
    ] {
        assert_eq!(chosen(&device, &long), expected, "{}", device.name);
    }
    // Decode: one query and many keys are split everywhere.
    for device in [
        device("A100", (8, 0), 108, 166_912),
        device("L4", (8, 9), 58, 101_376),
        h200(),
    ] {
        assert_eq!(
            chosen(&device, &case(1, 8, 2, 1, 65_536, 128)),
            "split",
            "{}",
            device.name
        );
    }
    let turing = device("T4", (7, 5), 40, 65_536);
    let error = with(&artifact(), &turing, &long, AMPLE, |plan| plan.err().unwrap()).to_string();
    assert!(
        error.contains("`large` is for sm_80, but the device has capability 7.5"),
        "{error}"
    );
}

#[test]
fn a_variant_can_be_forced() {
    let long = case(4, 32, 8, 4096, 4096, 128);
    for (number, name) in ["large", "small", "unaligned", "split", "hopper"]
        .into_iter()
        .enumerate()
    {
        let forced = artifact().retain(|_, variant| variant == number);
        with(&forced, &h200(), &long, AMPLE, |plan| {
            let plan = plan.unwrap().unwrap();
            assert_eq!((plan.choice.variant.name.as_str(), plan.choice.index), (name, 0));
        });
    }
    let other = artifact().retain(|instance, _| instance != 1);
    let error = with(&other, &h200(), &long, AMPLE, |plan| plan.err().unwrap());
    assert_eq!(error.to_string(), "no variant of `gqa` can run here: it has none");
}

#[test]
fn architecture_specific_code_runs_on_its_architecture_alone() {
    let at = |capability| device("", capability, 1, 0);
    assert!(at((9, 0)).runs("sm_90a", "ptx") && at((9, 0)).runs("sm_90a", "cubin"));
    assert!(!at((10, 0)).runs("sm_90a", "ptx") && !at((8, 9)).runs("sm_90a", "ptx"));
    assert!(at((12, 0)).runs("sm_80", "ptx") && !at((7, 5)).runs("sm_80", "ptx"));
    assert!(at((8, 9)).runs("sm_80", "cubin") && !at((9, 0)).runs("sm_80", "cubin"));
    assert!(at((8, 6)).runs("sm_86", "cubin") && !at((8, 0)).runs("sm_86", "cubin"));
    assert!(!at((9, 0)).runs("gfx90", "ptx") && !at((9, 0)).runs("sm_80", "text"));
}

#[test]
fn a_cubin_is_taken_on_its_own_architecture_alone() {
    let artifact = artifact();
    let taken = |capability| [0, 1].map(|ptx| device("", capability, 1, 0).code_of(artifact.manifest(), ptx));
    assert_eq!(taken((8, 6)), [2, 1]);
    assert_eq!(taken((9, 0)), [3, 4]);
    // Elsewhere the PTX, though a cubin for 8.6 would run on 8.9.
    for capability in [(8, 0), (8, 9), (10, 0), (12, 0)] {
        assert_eq!(taken(capability), [0, 1], "{capability:?}");
    }
}

#[test]
fn misaligned_memory_gets_the_variant_that_takes_it() {
    let mut case = case(4, 32, 8, 4096, 4096, 128);
    case.tensors[1].address += 2;
    assert_eq!(chosen(&h200(), &case), "unaligned");
    // A stride that is no multiple of 16 bytes counts too; one along an axis of size 1 does not.
    case.tensors[1].address -= 2;
    case.tensors[0].strides[0] += 1;
    case.tensors[0].len += 10_000;
    assert_eq!(chosen(&h200(), &case), "unaligned");
    let mut one = self::case(1, 32, 8, 4096, 4096, 128);
    one.tensors[0].strides[0] += 1;
    assert_eq!(chosen(&h200(), &one), "hopper");
}

#[test]
fn parameters_are_packed_in_order_and_width() {
    let case = case(2, 8, 2, 3, 5000, 64);
    with(
        &artifact(),
        &device("A100", (8, 0), 108, 166_912),
        &case,
        AMPLE,
        |plan| {
            let plan = plan.unwrap().unwrap();
            assert_eq!(plan.choice.variant.name, "split");
            // 16 tiles of rows on 108 multiprocessors.
            assert_eq!(plan.choice.splits, 7);
            let kernels: Vec<_> = plan.kernels().collect();
            assert_eq!(kernels.len(), 2);
            assert_eq!((kernels[0].grid, kernels[1].grid), (16 * 7, 2 * 8 * 3));
            let first = kernels[0].params;
            assert_eq!(first.len(), 9);
            assert_eq!(first[0], case.tensors[0].address);
            assert_eq!(first[1], 64);
            let buffer = (2 * 8 * 3 * 7 * 64 * 4u64).next_multiple_of(256);
            assert_eq!((first[2], first[3]), (1 << 40, (1 << 40) + buffer));
            let word = |slot: u64| -> [u8; 4] { slot.to_ne_bytes()[..4].try_into().unwrap() };
            assert_eq!(i32::from_ne_bytes(word(first[4])), 5000);
            assert_eq!(i32::from_ne_bytes(word(first[5])), 7);
            assert_eq!(first[6], 5000 * 64);
            assert_eq!(f32::from_ne_bytes(word(first[7])), 1.5);
            assert_eq!(i32::from_ne_bytes(word(first[8])), -3);
            assert_eq!(kernels[1].params, [(1 << 40) + buffer]);
        },
    );
}

#[test]
fn empty_calls_launch_nothing_and_no_keys_still_launch() {
    for case in [
        case(0, 8, 2, 3, 5, 64),
        case(2, 8, 2, 0, 5, 64),
        case(2, 0, 0, 3, 5, 64),
    ] {
        with(&artifact(), &h200(), &case, AMPLE, |plan| {
            assert!(plan.unwrap().is_none())
        });
    }
    with(&artifact(), &h200(), &case(2, 8, 2, 3, 0, 64), AMPLE, |plan| {
        assert!(
            plan.unwrap().unwrap().kernels().count() > 0,
            "the kernel writes the zeros"
        );
    });
}

#[test]
fn ranks_types_and_shapes_are_checked_by_name() {
    let good = || case(2, 8, 2, 3, 5, 64);
    let mut bad = good();
    bad.tensors[1].rank = 3;
    assert_eq!(
        refused(&bad),
        Error::Rank {
            argument: "k".into(),
            expected: 4,
            given: 3
        }
    );
    bad = good();
    bad.tensors[2].dtype = Dtype::F16;
    assert_eq!(refused(&bad).to_string(), "argument `v` must hold bf16, but holds f16");
    bad = good();
    bad.tensors[2].shape[2] = 4;
    assert_eq!(refused(&bad).to_string(), "axis `j` of `v` is 4, but 5 in `k`");
    bad = good();
    bad.tensors[5].shape[1] = 7;
    assert_eq!(refused(&bad).to_string(), "axis `h` of `lse` is 7, but 8 in `q`");
    bad = good();
    bad.tensors.truncate(5);
    assert_eq!(refused(&bad), Error::MissingArgument { argument: "lse".into() });
    bad = case(1 << 31, 8, 2, 3, 5, 64);
    assert_eq!(
        refused(&bad),
        Error::TooLarge {
            axis: "b".into(),
            given: 1 << 31,
            limit: MAX_SIZE
        }
    );
}

#[test]
fn sizes_that_were_not_compiled_are_listed() {
    assert_eq!(
        refused(&case(2, 8, 2, 3, 5, 96)).to_string(),
        "axis `d` is 96, but was compiled for 64 or 128"
    );
    assert_eq!(
        refused(&case(2, 10, 2, 3, 5, 64)).to_string(),
        "axis `h` is 10 and `g` is 2, but their ratio must be one of 4 or 8"
    );
    // In the spec, but not in this artifact.
    let artifact = artifact();
    let device = h200();
    let setting = Setting {
        operator: artifact.operator(),
        manifest: artifact.manifest(),
        types: &[Dtype::F16],
        device: &device,
        wanted: CONTEXT,
    };
    let mut case = case(2, 8, 2, 3, 5, 128);
    [0, 1, 2, 4]
        .into_iter()
        .for_each(|index| case.tensors[index].dtype = Dtype::F16);
    let error = plan_launch(&setting, &case.tensors, &case.scalars, AMPLE)
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "axis `d` is 128, but was compiled for 64");
}

#[test]
fn strides_and_bounds_are_checked() {
    let good = || case(2, 8, 2, 3, 5, 64);
    let mut bad = good();
    bad.tensors[0].strides[3] = 2;
    bad.tensors[0].len *= 2;
    assert_eq!(
        refused(&bad).to_string(),
        "the last axis `d` of `q` must have stride 1, but has stride 2"
    );
    bad = good();
    bad.tensors[1].strides[0] += 1;
    let needed = (2 * 2 * 5 * 64 + 1).to_string();
    assert_eq!(
        refused(&bad),
        Error::OutOfBounds {
            argument: "k".into(),
            needed,
            given: 2 * 2 * 5 * 64
        }
    );
    bad = good();
    bad.tensors[1].strides[0] = usize::MAX / 2 + 1;
    bad.tensors[1].shape[0] = 2;
    assert!(matches!(refused(&bad), Error::OutOfBounds { .. }));
    bad = good();
    bad.tensors[5].address += 2;
    assert!(matches!(refused(&bad), Error::Misaligned { argument, align: 4, .. } if argument == "lse"));
    // An input may repeat an element, an output may not.
    let mut repeated = good();
    repeated.tensors[1].strides[0] = 0;
    with(&artifact(), &h200(), &repeated, AMPLE, |plan| assert!(plan.is_ok()));
    bad = good();
    bad.tensors[4].strides[0] = 0;
    assert!(matches!(refused(&bad), Error::SelfOverlap { output, axis, .. } if output == "o" && axis == "b"));
    // Transposed outputs are fine: queries outside of heads.
    let mut transposed = good();
    (transposed.tensors[4].strides[1], transposed.tensors[4].strides[2]) = (64, 8 * 64);
    with(&artifact(), &h200(), &transposed, AMPLE, |plan| assert!(plan.is_ok()));
}

#[test]
fn places_and_overlaps_are_checked() {
    let good = || case(2, 8, 2, 3, 5, 64);
    let mut bad = good();
    bad.tensors[3].place = Place::Host;
    assert_eq!(
        refused(&bad).to_string(),
        "argument `slope` must be in device memory, but is in host memory"
    );
    bad = good();
    bad.tensors[3].place = Place::Device { context: 8, ordinal: 1 };
    assert_eq!(
        refused(&bad),
        Error::Context {
            argument: "slope".into(),
            expected: 0,
            given: 1
        }
    );
    bad = good();
    bad.tensors[4].address = bad.tensors[0].address + 64;
    assert_eq!(
        refused(&bad),
        Error::Overlap {
            output: "o".into(),
            other: "q".into()
        }
    );
    bad = good();
    bad.tensors[5].address = bad.tensors[4].address;
    assert_eq!(
        refused(&bad),
        Error::Overlap {
            output: "o".into(),
            other: "lse".into()
        }
    );
    // Inputs may share memory, and what is empty overlaps nothing.
    let mut shared = good();
    shared.tensors[2].address = shared.tensors[1].address;
    with(&artifact(), &h200(), &shared, AMPLE, |plan| assert!(plan.is_ok()));
}

#[test]
fn grids_beyond_the_limit_are_refused_and_large_ones_are_not() {
    // 2^31 CTAs of 64 rows: beyond the grid of every variant.
    let huge = case(1 << 20, 1 << 11, 1 << 9, 1, 0, 64);
    let error = refused(&huge);
    assert!(matches!(&error, Error::Launch { what: "the grid", .. }), "{error}");
    // More than 65 535 heads, and more than 2^31 elements.
    let many = case(70_000, 64, 16, 16, 16, 128);
    with(&artifact(), &h200(), &many, AMPLE, |plan| {
        assert!(plan.unwrap().is_some())
    });
}

#[test]
fn workspaces_are_held_to_their_limits() {
    let artifact = artifact();
    let device = h200();
    let setting = Setting {
        operator: artifact.operator(),
        manifest: artifact.manifest(),
        types: &[Dtype::Bf16],
        device: &device,
        wanted: CONTEXT,
    };
    let mut limits: Sizes = ANY;
    [2, 32, i64::MAX, 512, 65_536, 128]
        .into_iter()
        .enumerate()
        .for_each(|(axis, limit)| limits[axis] = limit);
    let bytes = workspace_for(&setting, &limits).unwrap();
    assert!(bytes > 0);
    let workspace = WorkspaceView {
        address: 1 << 40,
        bytes,
        limits,
    };
    // Everything within the limits runs, whatever the sizes.
    for (b, h, i, j) in [
        (1, 8, 1, 65_536),
        (2, 32, 512, 65_536),
        (1, 16, 17, 40_000),
        (2, 8, 3, 1),
        (1, 24, 100, 9),
    ] {
        with(&artifact, &device, &case(b, h, h / 4, i, j, 128), workspace, |plan| {
            assert!(plan.unwrap().is_some())
        });
    }
    let beyond = with(&artifact, &device, &case(1, 8, 2, 513, 10, 128), workspace, |plan| {
        plan.err().unwrap()
    });
    assert_eq!(
        beyond,
        Error::BeyondWorkspace {
            axis: "i".into(),
            given: 513,
            limit: 512
        }
    );
    // Where only the split variant can run, its want of memory is the error.
    let mut only_split = artifact.manifest().clone();
    only_split
        .instances
        .iter_mut()
        .for_each(|instance| instance.variants.retain(|variant| variant.name == "split"));
    let setting = Setting {
        manifest: &only_split,
        ..setting
    };
    let none = WorkspaceView {
        address: 0,
        bytes: 0,
        limits: ANY,
    };
    let case = case(1, 8, 2, 1, 65_536, 128);
    let error = plan_launch(&setting, &case.tensors, &case.scalars, none).err().unwrap();
    assert!(
        matches!(error, Error::WorkspaceTooSmall { needed, given: 0 } if needed > 0),
        "{error}"
    );
}

#[test]
fn formulas_that_overflow_or_divide_by_zero_are_infeasible() {
    let artifact = artifact();
    let device = h200();
    let mut manifest = artifact.manifest().clone();
    for instance in &mut manifest.instances {
        instance.variants.truncate(3);
        instance.variants[0].time = mul(constant(i64::MAX), constant(2));
        instance.variants[1].requires.when = ceil_div(constant(1), constant(0));
        instance.variants[2].splits = constant(i64::MAX);
    }
    let setting = Setting {
        operator: artifact.operator(),
        manifest: &manifest,
        types: &[Dtype::Bf16],
        device: &device,
        wanted: CONTEXT,
    };
    let case = case(2, 8, 2, 3, 5, 64);
    let plan = plan_launch(&setting, &case.tensors, &case.scalars, AMPLE)
        .unwrap()
        .unwrap();
    assert_eq!(
        (plan.choice.variant.name.as_str(), plan.choice.splits),
        ("unaligned", 4096)
    );
}

#[test]
fn views_refuse_shapes_beyond_their_memory() {
    let memory = vec![0.0f32; 24];
    assert!(Tensor::host(&memory, [2, 3, 4]).is_ok());
    assert!(matches!(
        Tensor::host(&memory, [2, 3, 5]),
        Err(Error::OutOfBounds { given: 24, .. })
    ));
    assert!(matches!(
        Tensor::host(&memory, [usize::MAX, 3, 5]),
        Err(Error::OutOfBounds { .. })
    ));
    let tensor = Tensor::host(&memory, [2, 3, 4]).unwrap().transpose(0, 2);
    assert_eq!((tensor.shape(), tensor.strides()), ([4, 3, 2], [1, 4, 12]));
    assert!(tensor.with_strides([1, 4, 13]).is_err());
    assert!(
        Tensor::host(&memory, [2, 3, 4])
            .unwrap()
            .with_strides([0, 4, 1])
            .is_ok()
    );
    let view = Tensor::host(&memory, [2, 3, 4]).unwrap().view();
    assert_eq!((view.rank, view.extent(), view.dtype), (3, 96, Dtype::F32));
    let mut out = vec![0.0f32; 24];
    let view = TensorMut::host(&mut out, [0, 3, 4]).unwrap().view();
    assert_eq!(view.extent(), 0);
}

#[test]
fn errors_can_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Error>();
    crosses::<drawloom::Loaded>();
    crosses::<Artifact>();
}
