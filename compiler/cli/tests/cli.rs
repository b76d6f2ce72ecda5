//! The `drawloom` command as a person meets it: what it prints, and how it exits.

mod common;

use common::{drawloom, spec, specs, text, with_input};
use serde_json::Value;

#[test]
fn check_reports_every_spec() {
    let output = drawloom(&["check", &specs().display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for name in [
        "alibi",
        "causal",
        "dense",
        "document",
        "gqa_causal",
        "softcap",
        "streaming",
    ] {
        assert!(printed.contains(&format!("{name}: 12 bindings")), "{printed}");
    }
}

#[test]
fn a_wrong_spec_is_an_error_at_its_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.attn");
    let right = std::fs::read_to_string(spec("causal.attn")).expect("the spec is there");
    std::fs::write(&file, right.replace("dot(q, k)", "dot(q, kk)")).expect("a file");
    let output = drawloom(&["check", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(printed.contains("kk") && printed.contains('^'), "{printed}");
}

#[test]
fn every_level_prints() {
    let spec = spec("streaming.attn");
    for (level, word) in [
        ("spec", "attention streaming"),
        ("graph", "fold"),
        ("ranges", "possible"),
        ("kernel", "stream"),
        ("passes", "wait_group"),
        ("llvm", "define ptx_kernel"),
        ("ptx", "mma.sync"),
    ] {
        let output = drawloom(&["compile", &spec, "--emit", level, "--type", "bf16", "--size", "d=64"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(word), "{level} holds no `{word}`");
    }
}

#[test]
fn the_same_spec_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let compile = |to: &str| -> Vec<(String, Vec<u8>)> {
        let out = folder.path().join(to);
        let out_text = out.display().to_string();
        let output = drawloom(&["compile", &spec("document.attn"), "--size", "d=64", "--out", &out_text]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut files: Vec<(String, Vec<u8>)> = (out.read_dir().expect("artifacts"))
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path
                    .file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default();
                (name, std::fs::read(path).expect("a file"))
            })
            .collect();
        files.sort();
        files
    };
    let first = compile("first");
    assert_eq!(first.len(), 2);
    assert!(first == compile("second"), "two compilations differ");
}

#[test]
fn explain_gives_json_and_keeps_a_budget() {
    let spec = spec("causal.attn");
    let sized = [
        "explain",
        &spec,
        "--type",
        "bf16",
        "--size",
        "d=64,h=2,i=512,j=512",
        "--target",
        "sm_80",
        "--format",
        "json",
    ];
    let output = drawloom(&sized);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let report = &report["result"][0];
    assert_eq!(report["spec"], "causal");
    assert!(report["bound_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    // A budget is kept, or exceeded with an exit code of its own; a file has limits of its own for each spec.
    let budget = |given: &str| drawloom(&[&sized[..], &["--budget", given]].concat());
    assert_eq!(budget("bytes=100000000000").status.code(), Some(0));
    let tight = budget("registers=1");
    assert_eq!(tight.status.code(), Some(4));
    let tight: Value = serde_json::from_slice(&tight.stdout).expect("JSON");
    let message = tight["errors"][0]["message"].as_str().expect("a message");
    assert!(
        message.contains("more than the budget of 1") && tight["result"][0]["spec"] == "causal",
        "{message}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("budget.toml");
    let given = file.display().to_string();
    std::fs::write(
        &file,
        "bytes = 1\n[causal]\nbytes = 100_000_000_000\ntime_us = 1000.0\n[dense]\nbytes = 2\n",
    )
    .expect("a file");
    assert_eq!(budget(&given).status.code(), Some(0));
    std::fs::write(&file, "byts = 1\n").expect("a file");
    let wrong = budget(&given);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stdout).contains("byts"), "{}", text(&wrong.stdout));
}

#[test]
fn run_agrees_with_the_oracle() {
    let output = drawloom(&[
        "run",
        &spec("alibi.attn"),
        "--type",
        "bf16",
        "--size",
        "d=32,h=2,i=40,j=70",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    // The graph's interpreter, the CPU form, and at least one variant.
    assert!(
        printed.contains("[the CPU form]") && printed.contains("[sm_80 block_m="),
        "{printed}"
    );
    let allowed = |line: &str| line.rsplit("naive").next()?.split(' ').nth(2)?.parse::<f64>().ok();
    let used: Vec<f64> = printed.lines().filter_map(allowed).collect();
    assert!(
        used.len() >= 3 && used.iter().all(|percent| *percent <= 100.0),
        "{printed}"
    );
}

#[test]
fn targets_are_chosen_by_name_and_the_first_must_have_kernels() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let spec = spec("dense.attn");
    let compile = |targets: &str| {
        let choice = ["--type", "bf16", "--size", "d=64", "--target", targets];
        drawloom(&[&["compile", &spec, "--out", &out], &choice[..]].concat())
    };
    let portable = compile("sm_80");
    assert!(portable.status.success(), "{}", text(&portable.stderr));
    let both = compile("sm_80,sm_90a");
    assert!(both.status.success(), "{}", text(&both.stderr));
    let manifest = (folder.path().read_dir().expect("artifacts"))
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|end| end == "json"))
        .expect("a manifest");
    let text_of = std::fs::read_to_string(manifest).expect("a file");
    let manifest: serde_json::Value = serde_json::from_str(&text_of).expect("JSON");
    // Portable variants come first; every launch's module is for its variant's target.
    let variants = manifest["instances"][0]["variants"].as_array().expect("variants");
    let targets: Vec<&str> = variants.iter().filter_map(|v| v["target"].as_str()).collect();
    assert_eq!(targets[0], "sm_80");
    assert!(targets.is_sorted(), "{targets:?}");
    for variant in variants {
        for launch in variant["launches"].as_array().expect("launches") {
            let module = launch["module"].as_u64().expect("a number") as usize;
            assert_eq!(manifest["modules"][module]["target"], variant["target"]);
        }
    }
    // A target without kernels of its own is named with the reason.
    assert!(targets.contains(&"sm_90a") || text(&both.stdout).contains("none for sm_90a in 1 bindings: "));
    let unknown = compile("sm_7");
    assert!(!unknown.status.success());
    assert!(text(&unknown.stderr).contains("no target is called `sm_7`: sm_80, sm_90a"));
}

#[test]
fn every_command_has_an_example() {
    let help = text(&drawloom(&["--help"]).stdout);
    let (_, rest) = help.split_once("Commands:").expect("commands");
    let commands: Vec<&str> = rest.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    let names = commands
        .iter()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|n| *n != "help")
        .collect();
    assert_eq!(names.len(), 13, "{help}");
    for name in names {
        let help = text(&drawloom(&[name, "--help"]).stdout);
        let (_, examples) = help
            .split_once("Examples:")
            .unwrap_or_else(|| panic!("{name} has no examples"));
        assert!(examples.contains(&format!("drawloom {name}")), "{help}");
    }
}

#[test]
fn wrong_calls_end_with_the_code_for_them() {
    for call in [
        &["chekc"][..],
        &["check"],
        &["check", "missing.attn"],
        &["explain", &spec("causal.attn"), "--device", "abacus"],
        &["explain", &spec("causal.attn"), "--size", "x=1"],
        &["mask", &spec("causal.attn"), "--tile", "0x4"],
        &["mask", &spec("causal.attn"), "--at", "i=4"],
        &["explain-error", "A9999"],
        &["inspect", &spec("causal.attn")],
    ] {
        let output = drawloom(call);
        assert_eq!(output.status.code(), Some(1), "{call:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{call:?}");
    }
    let near = drawloom(&["explain-error", "A0150"]);
    assert!(
        text(&near.stderr).contains("did you mean A0105?"),
        "{}",
        text(&near.stderr)
    );
}

#[test]
fn without_a_gpu_bench_says_so() {
    let doctor = drawloom(&["doctor", "--format", "json"]);
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let mut findings = doctor["result"].as_array().expect("findings").iter();
    let gpu = findings
        .find(|finding| finding["what"] == "GPU")
        .expect("the GPU is looked for");
    let small = [
        "--type",
        "bf16",
        "--size",
        "d=64,h=1,i=64,j=64",
        "--rounds",
        "1",
        "--launches",
        "1",
    ];
    let output = drawloom(&[&["bench", &spec("dense.attn")][..], &small].concat());
    if gpu["found"].is_null() {
        assert_eq!(output.status.code(), Some(5));
        assert!(
            text(&output.stderr).starts_with("no GPU to time on: "),
            "{}",
            text(&output.stderr)
        );
    } else {
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains(" chosen"), "{}", text(&output.stdout));
    }
}

#[test]
fn specs_come_from_standard_input_too() {
    let right = std::fs::read_to_string(spec("causal.attn")).expect("the spec is there");
    let output = with_input(&["check", "-"], &right);
    assert!(
        output.status.success() && text(&output.stdout).starts_with("causal: "),
        "{}",
        text(&output.stderr)
    );
    let wrong = with_input(&["check", "-"], &right.replace("softmax", "sofmax"));
    let said = text(&wrong.stderr);
    assert!(
        said.contains("<stdin>:11:16") && said.contains("did you mean `softmax`?"),
        "{said}"
    );
}

#[test]
fn fmt_checks_writes_and_settles() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.attn");
    let path = file.display().to_string();
    std::fs::write(&file, "attention a{axis b;}// end\n").expect("a file");
    assert_eq!(drawloom(&["fmt", &path, "--check"]).status.code(), Some(3));
    assert!(drawloom(&["fmt", &path]).status.success());
    let once = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(once, "attention a {\n    axis b;\n} // end\n");
    assert!(drawloom(&["fmt", &path, "--check"]).status.success());
    std::fs::write(&file, "attention a {").expect("a file");
    assert_eq!(drawloom(&["fmt", &path]).status.code(), Some(1));
}

#[test]
fn masks_are_drawn_and_compared() {
    let (causal, streaming) = (spec("causal.attn"), spec("streaming.attn"));
    let picture = drawloom(&["mask", &streaming, "--size", "i=4096,j=4096", "--tile", "128x128"]);
    let picture = text(&picture.stdout);
    // 32 tiles in a row, of which the sink is one, the diagonal one, and the window at most nine.
    assert!(
        picture.contains("tiles of 128 x 128: 196 full, 79 cut, 749 skipped"),
        "{picture}"
    );
    let diff = drawloom(&["mask", &causal, "--diff", &streaming, "--size", "i=2048,j=2048"]);
    assert_eq!(diff.status.code(), Some(3));
    // The window keeps 1024 keys to the left, the sink keys 0 to 63: key 64 is the first to be lost, for query 1089.
    let said = text(&diff.stderr);
    assert!(
        said.starts_with("query 1089 sees key 64 in `causal`, not in `streaming`"),
        "{said}"
    );
    assert!(
        drawloom(&["mask", &causal, "--diff", &causal, "--size", "i=64,j=80"])
            .status
            .success()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let draw = |name: &str| {
        let path = folder.path().join(name);
        let drawn = drawloom(&[
            "mask",
            &causal,
            "--size",
            "i=100,j=100",
            "--out",
            &path.display().to_string(),
        ]);
        assert!(drawn.status.success(), "{}", text(&drawn.stderr));
        std::fs::read(path).expect("a picture")
    };
    assert!(draw("a.svg").starts_with(b"<svg "));
    let bytes = draw("a.png");
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .expect("a PNG");
    let mut points = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut points).expect("a frame");
    assert_eq!((info.width, info.height), (600, 600));
    let dark = points.chunks(3).filter(|point| *point == [0x2f, 0x5d, 0x8a]).count();
    assert_eq!(dark, 36 * 100 * 101 / 2);
}

#[test]
fn an_artifact_shows_what_it_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().display().to_string();
    let choice = ["--type", "bf16", "--size", "d=64", "--target", "sm_80"];
    let compiled = drawloom(&[&["compile", &spec("dense.attn"), "--out", &out], &choice[..]].concat());
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    let files: Vec<_> = folder
        .path()
        .read_dir()
        .expect("artifacts")
        .map(|e| e.expect("an entry").path())
        .collect();
    let manifest = files
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "json"))
        .expect("a manifest");
    let path = manifest.display().to_string();
    let all = text(&drawloom(&["inspect", &path]).stdout);
    for part in [
        "dense, ABI 1, key ",
        "attention dense {",
        "instance 0: bf16, 64",
        "variant 0: sm_80 block_m=",
        "threads",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
    let ptx = text(&drawloom(&["inspect", &path, "--variant", "0", "--show", "ptx"]).stdout);
    assert!(ptx.contains(".target sm_80"), "{ptx}");
    let kernel = drawloom(&["inspect", &path, "--variant", "0", "--show", "kernel"]);
    assert!(
        text(&kernel.stdout).contains("kernel dense_bf16_d64"),
        "{}{}",
        text(&kernel.stdout),
        text(&kernel.stderr)
    );
    assert_eq!(drawloom(&["inspect", &path, "--instance", "7"]).status.code(), Some(1));
    // A payload that was cut is refused as a launcher refuses it.
    let payload = manifest.with_extension("bin");
    let bytes = std::fs::read(&payload).expect("a payload");
    std::fs::write(&payload, &bytes[..bytes.len() - 1]).expect("a payload");
    let refused = drawloom(&["inspect", &path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("SHA-256"), "{}", text(&refused.stderr));
}

#[test]
fn verify_tries_random_shapes() {
    let choice = ["--type", "f16", "--size", "d=32", "--target", "sm_80", "--cases", "2"];
    let output = drawloom(&[&["verify", &spec("gqa_causal.attn")], &choice[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("gqa_causal: 2 cases, "),
        "{}",
        text(&output.stdout)
    );
}
