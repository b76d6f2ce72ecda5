//! Random masks: always sound, never more than the allowed pieces, never a panic.

use crate::mask::*;
use drawloom_graph::ir::Binary;
use drawloom_graph::ranges::{MAX_PIECES, Sym};
use drawloom_lang::spec::Align;
use proptest::prelude::*;
use std::rc::Rc;

fn expr() -> impl Strategy<Value = E> {
    let leaf = prop_oneof![
        1 => (-4i64..8).prop_map(E::Int),
        3 => Just(E::Pos),
        3 => Just(E::Key),
        1 => Just(E::LenKey),
        1 => Just(E::LenQuery),
        1 => Just(E::Head),
        1 => Just(E::Scalar("w")),
        1 => Just(load("doc", E::Pos)),
        1 => Just(load("doc", E::Key)),
        1 => Just(load("ids", E::Key)),
        1 => Just(load("ids", E::Pos)),
    ];
    leaf.prop_recursive(3, 12, 3, |e| {
        let op = prop_oneof![
            3 => Just(Binary::Add),
            3 => Just(Binary::Sub),
            1 => Just(Binary::Mul),
            2 => Just(Binary::Div),
            1 => Just(Binary::Rem),
            1 => Just(Binary::Min),
            1 => Just(Binary::Max),
        ];
        let pair = (op, e.clone(), e.clone()).prop_map(|(op, a, b)| E::Bin(op, Rc::new(a), Rc::new(b)));
        let divided = (prop_oneof![Just(Binary::Div), Just(Binary::Rem)], e.clone(), 1i64..5)
            .prop_map(|(op, a, n)| E::Bin(op, Rc::new(a), Rc::new(E::Int(n))));
        let choice =
            (compare(e.clone()), e.clone(), e.clone()).prop_map(|(c, a, b)| E::If(Rc::new(c), Rc::new(a), Rc::new(b)));
        prop_oneof![4 => pair, 3 => divided, 1 => e.prop_map(abs), 1 => choice]
    })
}

fn compare(e: impl Strategy<Value = E> + Clone) -> impl Strategy<Value = C> {
    let op = prop_oneof![Just(Binary::Le), Just(Binary::Lt), Just(Binary::Eq)];
    (op, e.clone(), e).prop_map(|(op, a, b)| C::Cmp(op, Rc::new(a), Rc::new(b)))
}

fn mask() -> impl Strategy<Value = C> {
    let named = prop_oneof![
        Just(causal()),
        (-1i64..5).prop_map(|w| window(E::Int(w))),
        (0i64..4).prop_map(|n| sink(E::Int(n))),
        Just(eq(load("doc", E::Pos), load("doc", E::Key))),
        (1i64..4).prop_map(|n| eq(div(E::Pos, E::Int(n)), div(E::Key, E::Int(n)))),
        (1i64..4).prop_map(|n| eq(rem(sub(E::Pos, E::Key), E::Int(n)), E::Int(0))),
        any::<bool>().prop_map(C::Bool),
    ];
    let leaf = prop_oneof![1 => named, 1 => compare(expr().boxed())];
    leaf.prop_recursive(4, 12, 2, |c| {
        prop_oneof![
            (c.clone(), c.clone()).prop_map(|(a, b)| and(a, b)),
            (c.clone(), c.clone()).prop_map(|(a, b)| or(a, b)),
            c.prop_map(not),
        ]
    })
}

fn world() -> impl Strategy<Value = World> {
    let align = prop_oneof![Just(Align::End), Just(Align::Start)];
    (
        0i64..9,
        0i64..9,
        align,
        -2i64..4,
        0i64..3,
        prop::collection::vec(0i64..3, 9),
        prop::collection::vec(0i64..9, 9),
    )
        .prop_map(|(queries, keys, align, w, head, steps, ids)| {
            let n = usize::try_from(keys).expect("size");
            let doc = steps[..n].iter().scan(0, |acc, s| {
                *acc += s / 2;
                Some(*acc)
            });
            let mut world = World::new(queries, keys, align);
            world.head = head;
            world.scalars.insert("w", w);
            world.tables.insert("doc", doc.collect());
            world.tables.insert("ids", ids[..n].to_vec());
            world
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_masks_are_sound(mask in mask(), world in world()) {
        let found = ranges(&mask, world.align);
        prop_assert!(found.pieces.len() <= MAX_PIECES);
        for rows in tiles(&world) {
            if let Err(e) = check_sound(&mask, &found, &world, &rows) {
                return Err(TestCaseError::fail(e));
            }
        }
    }

    #[test]
    fn simplifying_keeps_the_value(s in sym(), world in world()) {
        for rows in tiles(&world) {
            let env = world.env(rows);
            let simple = s.clone().simplify();
            prop_assert_eq!(s.eval(&env), simple.eval(&env), "{} became {}", s, simple);
            prop_assert_eq!(simple.clone().simplify(), simple);
        }
    }

    #[test]
    fn proven_inequalities_hold(a in sym(), b in sym(), world in world()) {
        if a.clone().simplify().at_most(&b.clone().simplify()) {
            for rows in tiles(&world) {
                let env = world.env(rows);
                prop_assert!(a.eval(&env) <= b.eval(&env), "{a} <= {b}");
            }
        }
    }
}

fn sym() -> impl Strategy<Value = Sym> {
    let search = |value: Sym, upper| Sym::Search {
        table: "doc".into(),
        at: vec![Sym::Fixed("b".into())],
        value: Box::new(value),
        upper,
    };
    let leaf = prop_oneof![
        2 => (-9i64..9).prop_map(Sym::Const),
        1 => Just(Sym::RowLo),
        1 => Just(Sym::RowHi),
        1 => Just(Sym::Len("j".into())),
        1 => Just(Sym::Scalar("w".into())),
        1 => Just(Sym::Fixed("h".into())),
    ];
    leaf.prop_recursive(4, 24, 4, move |s| {
        let two = |f: fn(Box<Sym>, Box<Sym>) -> Sym| {
            (s.clone(), s.clone()).prop_map(move |(a, b)| f(Box::new(a), Box::new(b)))
        };
        let by = |f: fn(Box<Sym>, Box<Sym>) -> Sym| {
            (s.clone(), 1i64..5).prop_map(move |(a, n)| f(Box::new(a), Box::new(Sym::Const(n))))
        };
        prop_oneof![
            two(Sym::Add),
            two(Sym::Sub),
            two(Sym::Mul),
            two(Sym::Min),
            two(Sym::Max),
            by(Sym::FloorDiv),
            by(Sym::Rem),
            (s.clone(), s.clone(), s.clone(), s.clone()).prop_map(|(a, b, t, e)| Sym::IfLe(
                Box::new(a),
                Box::new(b),
                Box::new(t),
                Box::new(e)
            )),
            (s.clone(), any::<bool>()).prop_map(move |(v, upper)| search(v, upper)),
        ]
    })
}
