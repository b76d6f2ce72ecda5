//! Every size, tile and alignment at small sizes: the named patterns are tight, all masks are sound.

use crate::mask::*;
use drawloom_graph::ir::Binary;
use drawloom_lang::spec::Align;
use std::collections::BTreeSet;
use std::rc::Rc;

const ALIGNS: [Align; 2] = [Align::End, Align::Start];

fn worlds(max: i64) -> impl Iterator<Item = World> {
    ALIGNS
        .into_iter()
        .flat_map(move |align| (0..=max).flat_map(move |q| (0..=max).map(move |k| World::new(q, k, align))))
}

fn hull(keys: &BTreeSet<i64>) -> BTreeSet<i64> {
    match (keys.first(), keys.last()) {
        (Some(a), Some(b)) => (*a..=*b).collect(),
        _ => BTreeSet::new(),
    }
}

/// The mask is the disjunction of `parts`, each an interval per row; over every tile the possible keys are the union of
/// the parts' hulls, and the certain keys the union of what all rows see through one part.
fn tight(parts: &[C], worlds: impl Iterator<Item = World>) {
    let mask = parts.iter().cloned().reduce(or).expect("a part");
    for w in worlds {
        let found = ranges(&mask, w.align);
        for rows in tiles(&w) {
            check_sound(&mask, &found, &w, &rows).unwrap_or_else(|e| panic!("{mask:?}: {e}"));
            let truths = parts
                .iter()
                .map(|p| truth_of_tile(p, &w, &rows))
                .collect::<Option<Vec<_>>>();
            let Some(truths) = truths else { continue };
            let extents = found.eval(&w.env(rows.clone()));
            let possible: BTreeSet<i64> = truths.iter().flat_map(|(some, _)| hull(some)).collect();
            let certain: BTreeSet<i64> = truths.iter().flat_map(|(_, every)| every.iter().copied()).collect();
            assert_eq!(
                keys(&extents, |e| &e.possible),
                possible,
                "possible keys of {mask:?}, rows {rows:?} of {w:?}: {found:?}"
            );
            assert!(
                keys(&extents, |e| &e.certain).is_superset(&certain),
                "certain keys of {mask:?}, rows {rows:?} of {w:?}: {found:?}"
            );
        }
    }
}

#[test]
fn intervals_are_exact() {
    tight(&[C::Bool(true)], worlds(6));
    tight(&[causal()], worlds(9));
    tight(&[lt(E::Key, E::Pos)], worlds(6));
    for w in -2..5 {
        tight(&[window(E::Int(w))], worlds(7));
        tight(&[sink(E::Int(w))], worlds(5));
        // Both sides of the diagonal.
        tight(&[le(abs(sub(E::Pos, E::Key)), E::Int(w))], worlds(7));
        // Anti-causal.
        tight(&[le(add(E::Pos, E::Int(w)), E::Key)], worlds(6));
        // Slopes other than one.
        tight(&[le(mul(E::Int(2), E::Key), add(E::Pos, E::Int(w)))], worlds(7));
        tight(&[lt(sub(E::Pos, E::Int(w)), mul(E::Int(3), E::Key))], worlds(7));
    }
}

#[test]
fn unions_are_exact_per_part() {
    for s in 0..4 {
        for w in 0..4 {
            tight(&[and(causal(), sink(E::Int(s))), window(E::Int(w))], worlds(7));
            // The same as the specs write it.
            let parts = [and(causal(), window(E::Int(w))), and(causal(), sink(E::Int(s)))];
            let spec = and(causal(), or(window(E::Int(w)), sink(E::Int(s))));
            for world in worlds(5) {
                for rows in tiles(&world) {
                    let env = world.env(rows);
                    let (a, b) = (
                        ranges(&spec, world.align),
                        ranges(&parts.iter().cloned().reduce(or).expect("parts"), world.align),
                    );
                    assert_eq!(
                        keys(&a.eval(&env), |e| &e.possible),
                        keys(&b.eval(&env), |e| &e.possible)
                    );
                }
            }
        }
    }
    for n in -1..5 {
        // Prefix: one part per row.
        tight(&[or(causal(), lt(E::Key, E::Int(n)))], worlds(7));
    }
    // Everything but the diagonal.
    tight(&[lt(E::Key, E::Pos), lt(E::Pos, E::Key)], worlds(6));
}

#[test]
fn run_time_scalars_of_any_sign() {
    for value in -3..5 {
        let with = |mut w: World| {
            w.scalars.insert("w", value);
            w
        };
        tight(&[window(E::Scalar("w"))], worlds(6).map(with));
        tight(&[le(E::Key, add(E::Pos, E::Scalar("w")))], worlds(6).map(with));
        tight(&[and(causal(), le(E::Int(1), E::Scalar("w")))], worlds(5).map(with));
        let chunk = eq(div(E::Pos, E::Scalar("w")), div(E::Key, E::Scalar("w")));
        if value > 0 {
            tight(&[chunk], worlds(6).map(with));
        } else {
            sound(&chunk, worlds(6).map(with));
        }
        sound(&le(mul(E::Key, E::Scalar("w")), E::Pos), worlds(6).map(with));
        sound(&le(E::Pos, mul(E::Key, E::Scalar("w"))), worlds(6).map(with));
        sound(
            &eq(rem(sub(E::Pos, E::Key), E::Scalar("w")), E::Int(0)),
            worlds(6).map(with),
        );
    }
}

#[test]
fn divisions_are_exact() {
    for n in 1..5 {
        for c in -2..3 {
            let part = |e: E| div(add(e, E::Int(c)), E::Int(n));
            tight(&[eq(part(E::Pos), part(E::Key))], worlds(8));
            tight(&[le(part(E::Key), part(E::Pos))], worlds(8));
            tight(&[lt(part(E::Key), part(E::Pos))], worlds(8));
            tight(&[le(sub(part(E::Pos), part(E::Key)), E::Int(1))], worlds(7));
            tight(&[le(mul(part(E::Key), E::Int(n)), E::Pos)], worlds(7));
        }
        // Rows of a picture: sizes as divisors, distances of quotients.
        let row = |e: E| div(e, E::Int(n));
        tight(&[le(abs(sub(row(E::Pos), row(E::Key))), E::Int(1))], worlds(8));
    }
    let part = |e: E| div(e, E::LenQuery);
    tight(&[eq(part(E::Pos), part(E::Key))], worlds(7));
}

#[test]
fn documents_are_exact() {
    let same = eq(load("doc", E::Pos), load("doc", E::Key));
    let earlier = lt(load("doc", E::Key), load("doc", E::Pos));
    for doc in [
        &[0, 0, 0, 1, 1, 4][..],
        &[0, 1, 2, 3, 4, 5],
        &[7, 7, 7, 7, 7, 7],
        &[0, 0, 5, 5, 5, 5],
    ] {
        let with = |mut w: World| {
            w.tables
                .insert("doc", doc[..usize::try_from(w.keys).expect("size")].to_vec());
            w
        };
        tight(std::slice::from_ref(&same), worlds(6).map(with));
        tight(&[and(causal(), same.clone())], worlds(6).map(with));
        tight(std::slice::from_ref(&earlier), worlds(6).map(with));
        tight(&[and(same.clone(), window(E::Int(1)))], worlds(6).map(with));
        tight(&[le(load("doc", E::Key), E::Int(3))], worlds(6).map(with));
        sound(&or(same.clone(), sink(E::Int(1))), worlds(6).map(with));
        sound(&not(same.clone()), worlds(6).map(with));
        sound(
            &eq(load("doc", sub(E::LenKey, add(E::Int(1), E::Key))), E::Int(1)),
            worlds(6).map(with),
        );
    }
}

fn sound(mask: &C, worlds: impl Iterator<Item = World>) {
    for w in worlds {
        let found = ranges(mask, w.align);
        for rows in tiles(&w) {
            check_sound(mask, &found, &w, &rows).unwrap_or_else(|e| panic!("{mask:?}: {e}"));
        }
    }
}

#[test]
fn unsorted_tables_are_sound() {
    let with = |mut w: World| {
        w.tables.insert(
            "ids",
            [3, 1, 1, 0, 3, 2][..usize::try_from(w.keys).expect("size")].to_vec(),
        );
        w
    };
    let same = eq(load("ids", E::Pos), load("ids", E::Key));
    sound(&same, worlds(6).map(with));
    sound(&not(same.clone()), worlds(6).map(with));
    sound(&and(causal(), same.clone()), worlds(6).map(with));
    // Keys bounded by a table that the row indexes.
    sound(&le(E::Key, load("ids", E::Pos)), worlds(6).map(with));
    // A table that is constant in the tile bounds keys exactly.
    let first = load("ids", E::Int(0));
    tight(&[le(E::Key, first)], worlds(6).map(with));
}

#[test]
fn remainders_and_choices_are_sound() {
    for n in 1..5 {
        let dilated = eq(rem(sub(E::Pos, E::Key), E::Int(n)), E::Int(0));
        sound(&dilated, worlds(7));
        sound(&not(dilated.clone()), worlds(7));
        sound(&and(window(E::Int(4)), dilated.clone()), worlds(7));
        sound(&or(sink(E::Int(1)), and(causal(), dilated)), worlds(7));
        for m in -1..=n {
            sound(&le(rem(E::Key, E::Int(n)), E::Int(m)), worlds(6));
            sound(&le(E::Int(m), rem(E::Pos, E::Int(n))), worlds(6));
            sound(&lt(rem(E::Key, E::Int(n)), rem(E::Pos, E::Int(n))), worlds(6));
            // Quotient and remainder of one index mixed: bounded, not solved.
            sound(
                &le(
                    add(div(E::Key, E::Int(n)), rem(E::Key, E::Int(n))),
                    add(E::Pos, E::Int(m)),
                ),
                worlds(6),
            );
            sound(
                &le(sub(E::Pos, E::Int(m)), sub(E::Key, div(E::Key, E::Int(n)))),
                worlds(6),
            );
        }
    }
    let choice = |c: C| le(E::Key, E::If(Rc::new(c), Rc::new(E::Pos), Rc::new(E::Int(2))));
    for c in [
        lt(E::Pos, E::Int(3)),
        lt(E::Key, E::Int(3)),
        eq(E::Key, E::Pos),
        eq(E::Head, E::Int(1)),
    ] {
        sound(&choice(c.clone()), worlds(7));
        sound(&not(choice(c)), worlds(7));
    }
    let least = E::Bin(Binary::Min, Rc::new(E::Key), Rc::new(E::Int(3)));
    let most = E::Bin(Binary::Max, Rc::new(E::Key), Rc::new(sub(E::Pos, E::Int(1))));
    for (a, b) in [
        (least.clone(), E::Pos),
        (E::Pos, least.clone()),
        (most.clone(), E::Int(3)),
        (E::Int(3), most.clone()),
    ] {
        sound(&le(a.clone(), b.clone()), worlds(7));
        sound(&eq(a, b), worlds(7));
    }
    let shifted = |e: E| E::Bin(Binary::Shr, Rc::new(e), Rc::new(E::Int(1)));
    tight(&[eq(shifted(E::Pos), shifted(E::Key))], worlds(7));
    let low = |e: E| E::Bin(Binary::BitAnd, Rc::new(e), Rc::new(E::Int(1)));
    sound(&eq(low(E::Pos), low(E::Key)), worlds(7));
}
