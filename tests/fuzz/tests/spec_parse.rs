//! Damaged specs: reading never panics, what is refused is refused with a reason, and the canonical form of what is
//! accepted is itself a spec with that canonical form. Formatting keeps that form, and settles.

use drawloom_fuzz::{fuzz, seeds};
use drawloom_lang::{canonical, format, parse_str};

#[test]
fn spec_parse() {
    fuzz(&seeds(&["specs"], ".attn"), |text| {
        match parse_str("damaged.attn", text) {
            Ok(specs) => {
                let formatted = format("damaged.attn", text).expect("a spec has tokens");
                assert_eq!(format("formatted.attn", &formatted).ok().as_ref(), Some(&formatted));
                assert_eq!(parse_str("formatted.attn", &formatted).expect("the same spec"), specs);
                for spec in specs {
                    let form = canonical(&spec);
                    let again = parse_str("canonical.attn", &form).expect("a canonical form is a spec");
                    assert_eq!(again.iter().map(canonical).collect::<Vec<_>>(), [form]);
                }
            }
            Err(errors) => {
                assert!(!errors.diagnostics.is_empty(), "a refusal says why");
                assert!(!errors.to_string().is_empty(), "a refusal can be shown");
            }
        }
    });
}
