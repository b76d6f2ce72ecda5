//! What the ranges of the named masks look like.

use crate::mask::*;
use drawloom_graph::ranges::{Ranges, Sym};
use drawloom_lang::spec::Align;

fn text(r: &Ranges) -> Vec<[String; 4]> {
    let text = |p: &drawloom_graph::ranges::Piece| {
        [&p.possible.lo, &p.possible.hi, &p.certain.lo, &p.certain.hi].map(Sym::to_string)
    };
    r.pieces.iter().map(text).collect()
}

#[test]
fn dense_sees_every_key() {
    assert_eq!(
        text(&ranges(&C::Bool(true), Align::End)),
        [["0", "len(j)", "0", "len(j)"]]
    );
}

#[test]
fn nothing_visible_has_no_piece() {
    assert_eq!(ranges(&C::Bool(false), Align::End).pieces, []);
    assert_eq!(
        ranges(&and(lt(E::Key, E::Int(3)), lt(E::Int(5), E::Key)), Align::End).pieces,
        []
    );
}

#[test]
fn alignment_cancels_in_causal() {
    for align in [Align::End, Align::Start] {
        assert_eq!(
            text(&ranges(&causal(), align)),
            [["0", "min(len(j), row.last + 1)", "0", "min(len(j), row.first + 1)"]],
        );
    }
}

#[test]
fn a_prefix_joins_the_causal_part() {
    let prefix = or(causal(), lt(E::Key, E::Scalar("n")));
    let [[lo, hi, certain_lo, certain_hi]] = &text(&ranges(&prefix, Align::End))[..] else {
        panic!("one piece")
    };
    assert_eq!(
        [lo, hi, certain_lo, certain_hi],
        [
            "0",
            "max(min(len(j), n), min(len(j), row.last + 1))",
            "0",
            "max(min(len(j), n), min(len(j), row.first + 1))"
        ],
    );
}

#[test]
fn documents_are_searched() {
    let same = eq(load("doc", E::Pos), load("doc", E::Key));
    assert_eq!(
        text(&ranges(&same, Align::Start)),
        [[
            "count(doc[b, ..] < doc[b, row.first])",
            "min(len(j), count(doc[b, ..] <= doc[b, row.last]))",
            "count(doc[b, ..] < doc[b, row.last])",
            "min(len(j), count(doc[b, ..] <= doc[b, row.first]))",
        ]],
    );
}
