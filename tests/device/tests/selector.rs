//! The selector on the published specs' own portfolios and on devices that are not here, as numbers.

use drawloom::manifest::Manifest;
use drawloom::planning::{Choice, Env, Offered, Sizes, choose};
use drawloom::{Artifact, Device};
use drawloom_lang::spec::{AxisRole, AxisSize};
use std::path::Path;

fn device(name: &str, capability: (u32, u32), sms: i64, kibibytes: u32, numbers: [i64; 4]) -> Device {
    let [gigabytes_per_second, clock_mhz, tensor_per_clock, wgmma_per_clock] = numbers;
    Device {
        name: name.to_owned(),
        capability,
        sms,
        shared: kibibytes << 10,
        bytes_per_microsecond: gigabytes_per_second * 1000,
        clock_mhz,
        tensor_per_clock,
        wgmma_per_clock,
    }
}

/// Multiprocessors, shared memory of a CTA, bandwidth, boost clock, tensor operations per clock.
///
/// Source: NVIDIA's architecture white papers (GA100, GA102, AD102, GH100) and data sheets (L4, H200, B200); as in the
/// compiler's table, where each is explained.
fn devices() -> [Device; 7] {
    [
        device("NVIDIA GeForce RTX 3090", (8, 6), 82, 99, [936, 1695, 512, 512]),
        device("NVIDIA GeForce RTX 4090", (8, 9), 128, 99, [1008, 2520, 512, 512]),
        device("NVIDIA L4", (8, 9), 58, 99, [300, 2040, 1024, 1024]),
        device("NVIDIA A100-SXM4-80GB", (8, 0), 108, 163, [2039, 1410, 2048, 2048]),
        device("NVIDIA H100 80GB HBM3", (9, 0), 132, 227, [3352, 1830, 2576, 4096]),
        device("NVIDIA H200", (9, 0), 132, 227, [4800, 1830, 2576, 4096]),
        device("NVIDIA B200", (10, 0), 148, 227, [8000, 1850, 2048, 2048]),
    ]
}

/// Batch, query heads, queries, keys.
const PREFILL: [(i64, i64, i64, i64); 4] = [
    (8, 16, 1024, 1024),
    (2, 32, 4096, 4096),
    (1, 32, 16_384, 16_384),
    (1, 8, 77, 101),
];
const DECODE: [(i64, i64, i64, i64); 3] = [(1, 32, 1, 8192), (16, 32, 1, 8192), (1, 8, 1, 65_536)];

/// Specs whose last query sees every key.
const WHOLE: [&str; 5] = ["alibi", "causal", "dense", "gqa_causal", "softcap"];

/// The artifacts that `cargo xtask prepare` has put beside this crate.
fn artifacts() -> Vec<Artifact> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".drawloom");
    let entries = folder.read_dir().expect("run `cargo xtask prepare`");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    assert!(paths.len() >= 7, "the published specs are there");
    let open = |path| Artifact::open(path).unwrap_or_else(|error| panic!("{error}"));
    paths.iter().map(open).collect()
}

/// Sizes of all axes, where the compiled ones are those of an instance.
fn sizes(artifact: &Artifact, instance: usize, (b, h, i, j): (i64, i64, i64, i64)) -> Sizes {
    let spec = artifact.operator().spec();
    let compiled = &artifact.manifest().instances[instance].binding.sizes;
    let mut sizes = [0; drawloom::MAX_AXES];
    for (number, axis) in spec.axes.iter().enumerate() {
        sizes[number] = match (&axis.size, axis.role, compiled[number]) {
            (_, _, Some(size)) => size.into(),
            (AxisSize::Grouped { ratios, .. }, ..) => {
                let ratio = ratios
                    .iter()
                    .map(|ratio| i64::from(*ratio))
                    .filter(|ratio| h % ratio == 0)
                    .max();
                h / ratio.unwrap_or(1)
            }
            (_, AxisRole::Query(_), None) => i,
            (_, AxisRole::Key, None) => j,
            (_, AxisRole::Plain, None) if axis.name == "h" => h,
            (_, AxisRole::Plain, None) => b,
        };
    }
    sizes
}

fn chosen<'m>(
    artifact: &Artifact,
    manifest: &'m Manifest,
    instance: usize,
    device: &Device,
    shape: (i64, i64, i64, i64),
    align: u32,
) -> Result<Choice<'m>, drawloom::Error> {
    let sizes = sizes(artifact, instance, shape);
    let env = Env {
        axes: &artifact.operator().spec().axes,
        sizes: &sizes,
        splits: 1,
        device,
    };
    let variants = &manifest.instances[instance].variants;
    choose(manifest, variants, env, Offered::any(align), u64::MAX)
}

/// Calls `look` with every artifact and the number of each of its instances.
fn everywhere(mut look: impl FnMut(&Artifact, usize, &str)) {
    for artifact in artifacts() {
        for instance in 0..artifact.manifest().instances.len() {
            let binding = &artifact.manifest().instances[instance].binding;
            let name = format!("{} {:?} {:?}", artifact.manifest().name, binding.types, binding.sizes);
            look(&artifact, instance, &name);
        }
    }
}

#[test]
fn every_spec_has_a_variant_that_fits_on_every_device() {
    let devices = devices();
    everywhere(|artifact, instance, name| {
        for device in &devices {
            for shape in PREFILL.into_iter().chain(DECODE) {
                // Aligned as allocations are, and as little as an element is.
                for align in [256, 2] {
                    let found = chosen(artifact, artifact.manifest(), instance, device, shape, align);
                    let at = || format!("{name} on {} at {shape:?}, aligned to {align}", device.name);
                    let found = found.unwrap_or_else(|error| panic!("{}: {error}", at()));
                    assert!(found.variant.requires.shared <= device.shared, "{}", at());
                    assert!(found.time > 0 && (1..=4096).contains(&found.splits), "{}", at());
                    for launch in &found.variant.launches {
                        assert!(
                            device.runs_module(&artifact.manifest().modules[launch.module]),
                            "{}",
                            at()
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn hopper_runs_its_own_kernels_and_others_the_portable_ones() {
    let devices = devices();
    everywhere(|artifact, instance, name| {
        let variants = &artifact.manifest().instances[instance].variants;
        let has_own = variants.iter().any(|variant| variant.target == "sm_90a");
        for device in &devices {
            let long = chosen(artifact, artifact.manifest(), instance, device, PREFILL[2], 256).expect("it runs");
            let expected = if device.capability == (9, 0) && has_own {
                "sm_90a"
            } else {
                "sm_80"
            };
            assert_eq!(long.variant.target, expected, "{name} on {}", device.name);
            // Bulk copies need 16 bytes.
            let odd = chosen(artifact, artifact.manifest(), instance, device, PREFILL[2], 2).expect("it runs");
            assert_eq!(odd.variant.target, "sm_80", "{name} on {}", device.name);
        }
    });
}

#[test]
fn one_query_and_many_keys_are_split_where_few_heads_leave_the_device_idle() {
    let devices = devices();
    everywhere(|artifact, instance, name| {
        // A window, or a document that may be short, leaves few keys, and splitting those need not pay.
        if !WHOLE.contains(&artifact.manifest().name.as_str()) {
            return;
        }
        for device in &devices {
            let idle = chosen(artifact, artifact.manifest(), instance, device, DECODE[2], 256).expect("it runs");
            assert!(idle.splits > 1, "{name} on {}: {}", device.name, idle.variant.name);
            let full = chosen(artifact, artifact.manifest(), instance, device, PREFILL[1], 256).expect("it runs");
            assert_eq!(full.splits, 1, "{name} on {}: {}", device.name, full.variant.name);
        }
    });
}

#[test]
fn predictions_rise_with_the_work_and_fall_with_the_device() {
    let [_, _, l4, a100, _, h200, _] = devices();
    everywhere(|artifact, instance, name| {
        let time = |device, shape| {
            let found = chosen(artifact, artifact.manifest(), instance, device, shape, 256);
            found.expect("it runs").time
        };
        for device in [&l4, &a100, &h200] {
            let [short, long] = [PREFILL[0], PREFILL[2]].map(|shape| time(device, shape));
            assert!(short < long, "{name} on {}: {short} ns and {long} ns", device.name);
        }
        let [slow, middle, fast] = [&l4, &a100, &h200].map(|device| time(device, PREFILL[1]));
        assert!(fast < middle && middle < slow, "{name}: {fast}, {middle} and {slow} ns");
    });
}

#[test]
fn what_fits_no_device_is_told_with_numbers() {
    everywhere(|artifact, instance, name| {
        let mut small = devices()[0].clone();
        small.shared = 4 << 10;
        let told = |device: &Device| {
            let found = chosen(artifact, artifact.manifest(), instance, device, PREFILL[0], 256);
            found
                .map(|found| found.variant.name.clone())
                .expect_err("nothing fits")
                .to_string()
        };
        let error = told(&small);
        assert!(
            error.contains("bytes of shared memory, but the device allows 4096"),
            "{name}: {error}"
        );
        let mut old = devices()[0].clone();
        old.capability = (7, 5);
        let error = told(&old);
        assert!(
            error.contains("is for sm_80, but the device has capability 7.5"),
            "{name}: {error}"
        );
    });
}
