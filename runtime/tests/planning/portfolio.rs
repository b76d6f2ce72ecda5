//! An operator with a portfolio as the compiler makes it, devices, and calls in an imagined memory.

use drawloom::manifest::{Arg, DeviceFact, Formula, Instance, Launch, Provenance, Report, Requires, Variant};
use drawloom::planning::{Plan, Setting, Sizes, Wanted, WorkspaceView, plan_launch};
use drawloom::{Artifact, Device, Dtype, Error, Place, Scalar, View};
use drawloom_lang::artifact::{Code, pack};
use drawloom_lang::spec::Binding;

pub const SPEC: &str = "attention gqa {
    type T in [f16, bf16];
    axis b, h, g = h / [4, 8], i: query(end), j: key, d in [64, 128];
    input q: T[b, h, i, d], k: T[b, g, j, d], v: T[b, g, j, d], slope: f32[h];
    scalar cap: f32, w: i32;
    attend o over j in (k, v) {
        score = cap * tanh(dot(q, k) / cap) + slope[h] * (j - i);
        mask = causal && i - j <= w;
        norm = softmax;
    }
    output o: T[b, h, i, d], lse(o, nats): f32[b, h, i];
}";

pub fn constant(value: i64) -> Formula {
    Formula::Const(value)
}
pub fn size(name: &str) -> Formula {
    Formula::Size(name.to_owned())
}
pub fn mul(a: Formula, b: Formula) -> Formula {
    Formula::Mul(Box::new(a), Box::new(b))
}
pub fn ceil_div(a: Formula, b: Formula) -> Formula {
    Formula::CeilDiv(Box::new(a), Box::new(b))
}
pub fn min(a: Formula, b: Formula) -> Formula {
    Formula::Min(Box::new(a), Box::new(b))
}
pub fn add(a: Formula, b: Formula) -> Formula {
    Formula::Add(Box::new(a), Box::new(b))
}

pub fn report() -> Report {
    Report {
        schedule: vec![],
        registers: None,
        shared: 0,
        issued_bytes: 0,
        bound_bytes: 0,
        at: vec![],
        limit: "tensor".to_owned(),
    }
}

pub fn launch(module: usize, kernel: &str, grid: Formula, shared: u32, args: Vec<Arg>) -> Launch {
    Launch {
        module,
        kernel: kernel.to_owned(),
        grid,
        threads: 128,
        shared,
        args,
    }
}

/// The map of a bf16 or f16 tensor whose rows lie along its third axis: 64 rows of 128 bytes.
pub fn map(tensor: &str) -> Arg {
    Arg::TensorMap {
        tensor: tensor.to_owned(),
        row_axis: 2,
        rows: 64,
        cols: 64,
        panel_bytes: 128,
    }
}

/// Row tiles times heads.
pub fn tiles(rows: i64) -> Formula {
    mul(mul(size("b"), size("h")), ceil_div(size("i"), constant(rows)))
}

/// A portfolio as the compiler makes it: a large tile, one of at most 99 KiB, one for any alignment, and split keys.
pub fn variants(module: usize, hopper: usize) -> Vec<Variant> {
    let pointers = || {
        ["q", "k", "v", "o", "lse"]
            .map(|name| Arg::Pointer(name.to_owned()))
            .to_vec()
    };
    let plain = |name: &str, rows: i64, shared: u32, align: u32, time: Formula| Variant {
        name: name.to_owned(),
        target: "sm_80".to_owned(),
        requires: Requires {
            align,
            shared,
            when: constant(1),
        },
        splits: constant(1),
        workspace: vec![],
        launches: vec![launch(module, "main", tiles(rows), shared, pointers())],
        time,
        report: report(),
    };
    // Waves of tiles over the device's multiprocessors.
    let waves = |rows: i64| ceil_div(tiles(rows), Formula::Device(DeviceFact::Sms));
    let mut split = plain("split", 16, 40_000, 16, add(constant(500), mul(waves(16), size("j"))));
    // Splits fill the device.
    split.splits = min(constant(64), ceil_div(Formula::Device(DeviceFact::Sms), tiles(16)));
    split.time = add(constant(500), ceil_div(mul(waves(16), size("j")), Formula::Splits));
    let partial = || mul(mul(mul(size("b"), size("h")), size("i")), Formula::Splits);
    split.workspace = vec![mul(partial(), mul(size("d"), constant(4))), mul(partial(), constant(4))];
    split.launches = vec![
        launch(
            module,
            "split",
            mul(tiles(16), Formula::Splits),
            40_000,
            vec![
                Arg::Pointer("q".into()),
                Arg::Stride("q".into(), 2),
                Arg::Workspace(0),
                Arg::Workspace(1),
                Arg::Size(size("j")),
                Arg::Size(Formula::Splits),
                Arg::Long(mul(size("j"), size("d"))),
                Arg::Scalar("cap".into()),
                Arg::Scalar("w".into()),
            ],
        ),
        launch(
            module,
            "combine",
            mul(mul(size("b"), size("h")), size("i")),
            0,
            vec![Arg::Workspace(1)],
        ),
    ];
    let mut hopper_only = plain("hopper", 192, 200_000, 16, mul(waves(192), size("j")));
    hopper_only.target = "sm_90a".to_owned();
    hopper_only.launches[0].module = hopper;
    hopper_only.launches[0].args.extend(["q", "k", "v"].map(map));
    vec![
        plain("large", 128, 160_000, 16, mul(waves(128), mul(constant(2), size("j")))),
        plain("small", 64, 90_000, 16, mul(waves(64), mul(constant(3), size("j")))),
        plain("unaligned", 64, 50_000, 2, mul(waves(64), mul(constant(9), size("j")))),
        split,
        hopper_only,
    ]
}

pub fn artifact() -> Artifact {
    artifact_of(variants(0, 1)).unwrap_or_else(|error| panic!("{error}"))
}

/// The artifact whose instances all have these variants.
pub fn artifact_of(variants: Vec<Variant>) -> Result<Artifact, Error> {
    let spec = drawloom_lang::parse_str("gqa", SPEC)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .remove(0);
    let text = drawloom_lang::canonical(&spec);
    let code = |target: &str| Code {
        target: target.into(),
        form: "ptx".into(),
        bytes: format!("// {target}").into(),
        of: None,
    };
    let cubin = |target: &str, of| Code {
        target: target.into(),
        form: "cubin".into(),
        bytes: format!("cubin for {target}").into(),
        of: Some(of),
    };
    let instance = |dtype, d| Instance {
        binding: Binding {
            types: vec![dtype],
            sizes: vec![None, None, None, None, None, Some(d)],
        },
        variants: variants.clone(),
    };
    let (manifest, payload) = pack(
        "gqa",
        &text,
        &drawloom_lang::key(&spec),
        Provenance {
            compiler: "0".into(),
            llvm: "0".into(),
            ptxas: None,
        },
        &[
            code("sm_80"),
            code("sm_90a"),
            cubin("sm_86", 0),
            cubin("sm_90", 0),
            cubin("sm_90a", 1),
        ],
        vec![
            instance(Dtype::Bf16, 64),
            instance(Dtype::Bf16, 128),
            instance(Dtype::F16, 64),
        ],
    )?;
    Artifact::from_bytes(&manifest, &payload)
}

pub fn device(name: &str, capability: (u32, u32), sms: i64, shared: u32) -> Device {
    Device {
        name: name.to_owned(),
        capability,
        sms,
        shared,
        bytes_per_microsecond: 1_000_000,
        clock_mhz: 1_500,
        tensor_per_clock: 1024,
        wgmma_per_clock: 1024,
    }
}

pub fn h200() -> Device {
    device("H200", (9, 0), 132, 232_448)
}

pub const CONTEXT: Wanted = Wanted::Device { context: 7, ordinal: 0 };
pub const HERE: Place = Place::Device { context: 7, ordinal: 0 };

/// Dense tensors of a call, one after the other in an imagined memory.
pub struct Case {
    pub tensors: Vec<View>,
    pub scalars: Vec<Scalar>,
}

pub fn case(b: usize, h: usize, g: usize, i: usize, j: usize, d: usize) -> Case {
    let shapes: [&[usize]; 6] = [
        &[b, h, i, d],
        &[b, g, j, d],
        &[b, g, j, d],
        &[h],
        &[b, h, i, d],
        &[b, h, i],
    ];
    let mut address = 1 << 20;
    let mut tensors = Vec::new();
    for (index, shape) in shapes.into_iter().enumerate() {
        let dtype = if index == 3 || index == 5 {
            Dtype::F32
        } else {
            Dtype::Bf16
        };
        let mut view = View {
            dtype,
            rank: shape.len(),
            shape: [0; 8],
            strides: [0; 8],
            address,
            len: shape.iter().product(),
            place: HERE,
        };
        let mut stride = 1;
        for axis in (0..shape.len()).rev() {
            (view.shape[axis], view.strides[axis]) = (shape[axis], stride);
            stride *= shape[axis].max(1);
        }
        address += (view.len as u64 * 4).next_multiple_of(256);
        tensors.push(view);
    }
    Case {
        tensors,
        scalars: vec![Scalar::F32(1.5), Scalar::I32(-3)],
    }
}

pub const ANY: Sizes = [i64::MAX; 32];
pub const AMPLE: WorkspaceView = WorkspaceView {
    address: 1 << 40,
    bytes: u64::MAX / 2,
    limits: ANY,
};

pub fn with<R>(
    artifact: &Artifact,
    device: &Device,
    case: &Case,
    workspace: WorkspaceView,
    look: impl FnOnce(Result<Option<Plan<'_>>, Error>) -> R,
) -> R {
    let setting = Setting {
        operator: artifact.operator(),
        manifest: artifact.manifest(),
        types: &[Dtype::Bf16],
        device,
        wanted: CONTEXT,
    };
    look(plan_launch(&setting, &case.tensors, &case.scalars, workspace))
}

pub fn chosen(device: &Device, case: &Case) -> String {
    with(&artifact(), device, case, AMPLE, |plan| {
        plan.unwrap().unwrap().choice.variant.name.clone()
    })
}

pub fn refused(case: &Case) -> Error {
    with(&artifact(), &h200(), case, AMPLE, |plan| {
        plan.err().expect("the call is refused")
    })
}
