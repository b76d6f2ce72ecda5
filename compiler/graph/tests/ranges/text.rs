//! What the ranges of the named masks look like.

use crate::mask::*;
use drawloom_graph::ranges::{Context, Extent, Ranges, Sym, TileRun, analyse, plan_tiles};
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

#[test]
fn the_document_spec_reads_one_interval() {
    let text = include_str!("../../../../specs/document.attn");
    let spec = &drawloom_lang::parse_str("document.attn", text).expect("a spec of this repository")[0];
    let graph = drawloom_graph::from_spec(spec, &drawloom_lang::bindings(spec)[0]);
    let fold = drawloom_graph::monoid::classify(&graph, drawloom_graph::ir::FoldId(0)).expect("a softmax");
    let axis = |name| graph.axis(name).expect("an axis of the spec");
    let sorted = std::collections::BTreeSet::from(["doc".to_owned()]);
    let ctx = Context {
        query: axis("i"),
        key: axis("j"),
        align: Align::End,
        sorted: &sorted,
    };
    assert_eq!(
        self::text(&analyse(&graph, fold.mask, &ctx)),
        [[
            "count(doc[b, ..] < doc[b, row.first])",
            "min(len(j), row.last + 1, count(doc[b, ..] <= doc[b, row.last]))",
            "count(doc[b, ..] < doc[b, row.last])",
            "min(len(j), row.first + 1, count(doc[b, ..] <= doc[b, row.first]))",
        ]],
    );
}

#[test]
fn tiles_are_visited_once_in_order() {
    let extent = |possible, certain| Extent { possible, certain };
    let run = |first, end, full_first, full_end| TileRun {
        first,
        end,
        full_first,
        full_end,
    };
    // A window behind sinks that it reaches: tile 1 belongs to the sinks, which are listed first.
    let pieces = [extent(0..6, 0..6), extent(4..14, 7..12)];
    assert_eq!(plan_tiles(&pieces, 4), [run(0, 2, 0, 1), run(2, 4, 2, 3)]);
    // Of pieces that begin in one tile the one listed first comes first, though the other begins further left.
    let pieces = [extent(2..4, 2..2), extent(0..8, 0..8), extent(9..9, 0..0)];
    assert_eq!(plan_tiles(&pieces, 4), [run(0, 1, 1, 1), run(1, 2, 1, 2)]);
    assert_eq!(plan_tiles(&pieces, 16), [run(0, 1, 1, 1)]);
}
