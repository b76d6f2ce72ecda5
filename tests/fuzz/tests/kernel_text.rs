//! Damaged tile programs: reading and verifying never panic, and what is read prints to a fixed point.

use drawloom_fuzz::{fuzz, seeds};
use drawloom_kernel::text::{parse, print};
use drawloom_kernel::verify::verify;

#[test]
fn kernel_text() {
    fuzz(&seeds(&["tests/filetests"], ".kir"), |text| {
        if let Ok(kernel) = parse(text) {
            let printed = print(&kernel);
            let again = parse(&printed).expect("printed text is read");
            assert_eq!(print(&again), printed);
            verify(&kernel);
        }
    });
}
