//! What has gone wrong in other implementations of attention, and what would notice it here.
//!
//! A [`Covered::Case`] runs on every engine: the naive ones, the graph's interpreter, the kernel interpreter through every
//! form of schedule and the portfolios of both targets, the CPU form, and the GPU. A [`Covered::Test`] is of a part that
//! has no engine: the launcher's arithmetic, artifacts, the selector. The list is checked against the suite and the
//! sources by a test.

use Covered::{Cannot, Case, Test};

/// A bug of the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bug {
    /// Its number in this list.
    pub number: u32,
    /// What went wrong.
    pub what: &'static str,
    /// Where it was reported: repository and issue, or pull request.
    pub reported: &'static str,
    /// What covers it.
    pub covered: Covered,
}

/// What would notice a bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covered {
    /// A case of the suite, by name.
    Case(&'static str),
    /// A test, by its file from the workspace's root and its name.
    Test(&'static str, &'static str),
    /// It cannot happen here; why.
    Cannot(&'static str),
}

const fn bug(number: u32, what: &'static str, reported: &'static str, covered: Covered) -> Bug {
    Bug {
        number,
        what,
        reported,
        covered,
    }
}

/// The list.
pub const BUGS: [Bug; 42] = [
    bug(
        1,
        "a row that sees nothing gives NaN",
        "pytorch#41508, mlx PR 2608",
        Case("rows between islands see nothing"),
    ),
    bug(
        2,
        "a row that sees nothing gives garbage",
        "cuEquivariance#204",
        Case("a window before the first key: most rows see nothing"),
    ),
    bug(
        3,
        "a skipped tile leaves its results unwritten",
        "flashinfer PR 1533",
        Case("one query short of all masked"),
    ),
    bug(
        4,
        "no keys: an illegal instruction, or a division by zero on the host",
        "flash-attention PR 2470",
        Case("no keys under a causal mask"),
    ),
    bug(
        5,
        "no queries: an error or a hang",
        "flash-attention#2562",
        Case("no queries"),
    ),
    bug(
        6,
        "no keys: writes out of bounds",
        "flash-attention PR 1155",
        Case("no keys: every row is 0"),
    ),
    bug(
        7,
        "one query and empty sequences: a wrong shape",
        "flash-attention#1537",
        Case("no sequences"),
    ),
    bug(
        8,
        "causal aligned at the wrong end",
        "flash-attention#282, onnxruntime PR 28958",
        Case("aligned at the start, more queries than keys"),
    ),
    bug(
        9,
        "many more queries than keys: NaN",
        "flash-attention#443",
        Case("more queries than keys: the first rows see nothing"),
    ),
    bug(
        10,
        "a window off by one",
        "transformers#39408, vllm#3385",
        Case("both edges of a window are seen"),
    ),
    bug(
        11,
        "a window's bounds wrong over packed heads",
        "flashinfer PR 563, PR 714",
        Case("a window over packed heads"),
    ),
    bug(
        12,
        "a window wrong in its first tile with fewer queries than keys",
        "flashinfer#4972",
        Case("a window both ways with fewer queries than keys"),
    ),
    bug(
        13,
        "the mask left out because two calls disagree about flags",
        "sglang PR 31501",
        Cannot("the mask is part of the kernel, and there is one call"),
    ),
    bug(
        14,
        "a window wrong for queries and keys of two types",
        "flashinfer#3864",
        Cannot("a product of two types is an error of the spec: `operands_of_two_types`"),
    ),
    bug(
        15,
        "0 times NaN from keys and values that are not used",
        "flash-attention#1745, vllm PR 936",
        Case("garbage in keys that nobody sees"),
    ),
    bug(
        16,
        "results that a tail leaves unwritten",
        "tilelang PR 2461",
        Case("lengths that divide nothing"),
    ),
    bug(
        17,
        "32-bit overflow of an offset with a large batch",
        "flash-attention PR 1500",
        Test("runtime/tests/planning/large.rs", "offsets_beyond_32_bits_stay_exact"),
    ),
    bug(
        18,
        "32-bit overflow through a large outer stride",
        "flash-attention#2611",
        Test(
            "runtime/tests/planning/large.rs",
            "outer_strides_beyond_32_bits_stay_exact",
        ),
    ),
    bug(
        19,
        "32-bit overflow of a tensor of more than 2^31 elements",
        "flash-attention#1311, pytorch#162362",
        Test("compiler/core/tests/large.rs", "bases_are_computed_in_64_bits"),
    ),
    bug(
        20,
        "a grid beyond 65 535, and the error swallowed",
        "flashinfer#3125, pytorch#142228",
        Test(
            "runtime/tests/planning/main.rs",
            "grids_beyond_the_limit_are_refused_and_large_ones_are_not",
        ),
    ),
    bug(
        21,
        "softcap: a wrong formula",
        "flash-attention PR 2402",
        Case("a tight cap"),
    ),
    bug(
        22,
        "softcap behind the mask shows masked keys",
        "burn, test_attention_softcap_preserves_causal_mask",
        Case("capped outliers"),
    ),
    bug(
        23,
        "strides of keys and values swapped",
        "FlagAttention#45",
        Case("keys and values in different orders, values wider"),
    ),
    bug(
        24,
        "strides of values ignored",
        "FlagGems#5896, llama.cpp PR 11281",
        Case("every tensor another way"),
    ),
    bug(
        25,
        "a repeated or unaligned tensor takes the kernel of a dense one",
        "flash-attention, test_flash_attn_cache_separates_broadcast_layouts",
        Test(
            "runtime/tests/planning/main.rs",
            "misaligned_memory_gets_the_variant_that_takes_it",
        ),
    ),
    bug(
        26,
        "a group ratio that was not compiled ends the process",
        "flashinfer#996, mistral.rs#2340",
        Test(
            "runtime/tests/planning/main.rs",
            "sizes_that_were_not_compiled_are_listed",
        ),
    ),
    bug(
        27,
        "values of another size than keys: a wrong index",
        "pytorch PR 133495",
        Case("keys and values in different orders, values wider"),
    ),
    bug(
        28,
        "head sizes that are no powers of two, or beyond shared memory",
        "pytorch#133321, #180278",
        Test(
            "tests/device/tests/selector.rs",
            "every_spec_has_a_variant_that_fits_on_every_device",
        ),
    ),
    bug(
        29,
        "a missing wait that only some compilers show",
        "flash-attention#359, llama.cpp PR 13438",
        Test(
            "compiler/kernel/tests/kernel/mutants.rs",
            "every_synchronisation_is_needed",
        ),
    ),
    bug(
        30,
        "the next launch reads before the last has written",
        "flash-attention PR 2481",
        Cannot("launches of one stream do not overlap: nothing asks for it"),
    ),
    bug(
        31,
        "the log-sum-exp in another base; merging with an empty part",
        "attention-gym PR 205, tokenspeed PR 571",
        Case("fewer keys than parts"),
    ),
    bug(
        32,
        "a stale kernel under a key that is too short",
        "flash-attention PR 2402, flashinfer#3229",
        Test(
            "runtime/tests/artifact.rs",
            "altered_manifests_are_refused_sealed_or_not",
        ),
    ),
    bug(
        33,
        "lengths beyond those of the first run",
        "pytorch#136232",
        Test("runtime/tests/planning/main.rs", "workspaces_are_held_to_their_limits"),
    ),
    bug(
        34,
        "wrong gradients of masks",
        "pytorch#158212",
        Cannot("there is no backward kernel yet; the derivative has its own tests on the graph"),
    ),
    bug(
        35,
        "wrong gradients from the second batch entry on",
        "TransformerEngine#3216",
        Cannot("as above; the forward has `outliers`, with two entries and heads"),
    ),
    bug(
        36,
        "linear attention: reads beyond the length",
        "fla#1142",
        Cannot("folds over sequences have no kernels yet"),
    ),
    bug(
        37,
        "linear attention: chunks shorter than a convolution",
        "fla#1140",
        Cannot("as above"),
    ),
    bug(
        38,
        "linear attention: chunked and recurrent differ",
        "fla#104, #494",
        Cannot("as above"),
    ),
    bug(
        39,
        "linear attention: gates overflow",
        "fla#99, #122",
        Cannot("as above"),
    ),
    bug(
        40,
        "an address that only a new architecture calls misaligned",
        "fla#913",
        Test("compiler/kernel/tests/kernel/filetests.rs", "filetests"),
    ),
    bug(
        41,
        "NaN plus negative infinity: masking by addition",
        "Wan2GP PR 1628",
        Case("garbage in keys that nobody sees"),
    ),
    bug(
        42,
        "wrong beyond some ten thousand positions",
        "pytorch#162362",
        Case("a window at the end of a long sequence"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite;

    #[test]
    fn what_covers_a_bug_is_there() {
        let cases = suite::cases().expect("the suite's files are right");
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (n, bug) in BUGS.iter().enumerate() {
            assert_eq!(bug.number as usize, n + 1);
            match bug.covered {
                Case(name) => assert!(cases.iter().any(|case| case.name == name), "no case `{name}`"),
                Test(file, name) => {
                    let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
                    assert!(text.contains(&format!("fn {name}(")), "no test `{name}` in {file}");
                }
                Cannot(why) => assert!(!why.is_empty()),
            }
        }
    }
}
