//! Runs the cases. Those that are about something else than artifacts run in record mode, where none is missing.

#[test]
fn the_compiler_says_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("unprepared/*.rs");
    drop(cases);

    let recorded = std::env::temp_dir().join(format!("drawloom-ui-{}", std::process::id()));
    std::fs::create_dir_all(&recorded).expect("a temporary folder can be made");
    // SAFETY: this is the only test of its binary, and no thread but this one and the idle harness runs.
    unsafe { std::env::set_var("DRAWLOOM_RECORD", &recorded) };
    let cases = trybuild::TestCases::new();
    cases.compile_fail("mistakes/*.rs");
    cases.pass("uses/*.rs");
    drop(cases);
    let written = std::fs::read_dir(&recorded).expect("the folder is there");
    let names: Vec<_> = written
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("causal-") && name.ends_with(".attn")),
        "recorded {names:?}"
    );
    std::fs::remove_dir_all(&recorded).expect("the folder can be removed");
}
