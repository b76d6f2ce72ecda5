//! Inline assembly: one function per instruction that LLVM has no intrinsic for.

use inkwell::types::BasicTypeEnum;

use crate::build::{Any, Build, Int, Ptr};

/// A predicated load of read-only global memory: `@cond ld.global.nc`, else `fill`.
///
/// `fill` has one integer per register: one of 16, 32 or 64 bits, or two or four of 32. Unlike a branch around a load,
/// this leaves loads of one tile in one basic block, so that all of them are in flight together.
pub(crate) fn load_global_if<'c>(b: &Build<'c>, cond: Int<'c>, p: Ptr<'c>, fill: &[Any<'c>]) -> Vec<Any<'c>> {
    let ty = fill[0].get_type();
    let bits = ty.into_int_type().get_bit_width();
    let register = match bits {
        16 => "h",
        32 => "r",
        _ => "l",
    };
    let (text, constraints) = match (fill.len(), bits) {
        (4, _) => (
            "@$5 ld.global.nc.v4.b32 {$0, $1, $2, $3}, [$4];",
            "=r,=r,=r,=r,l,b,0,1,2,3".to_owned(),
        ),
        (2, _) => ("@$3 ld.global.nc.v2.b32 {$0, $1}, [$2];", "=r,=r,l,b,0,1".to_owned()),
        (_, 16) => ("@$2 ld.global.nc.b16 $0, [$1];", format!("={register},l,b,0")),
        (_, 32) => ("@$2 ld.global.nc.b32 $0, [$1];", format!("={register},l,b,0")),
        (_, _) => ("@$2 ld.global.nc.b64 $0, [$1];", format!("={register},l,b,0")),
    };
    let mut args: Vec<Any<'c>> = vec![p.into(), cond.into()];
    args.extend_from_slice(fill);
    let result: BasicTypeEnum<'c> = if fill.len() == 1 {
        ty
    } else {
        b.ctx.struct_type(&vec![ty; fill.len()], false).into()
    };
    let v = b
        .call_asm(text, &constraints, Some(result), &args, false)
        .expect("invariant: the load has a result");
    if fill.len() == 1 {
        vec![v]
    } else {
        (0..fill.len() as u32).map(|i| b.field(v, i)).collect()
    }
}

/// `and.pred`: LLVM would take a selection by a conjunction apart into two selections, of floats.
pub(crate) fn and<'c>(b: &Build<'c>, x: Int<'c>, y: Int<'c>) -> Int<'c> {
    if x.is_const() || y.is_const() {
        return b.and(x, y);
    }
    let v = b.call_asm(
        "and.pred $0, $1, $2;",
        "=b,b,b",
        Some(b.i1().into()),
        &[x.into(), y.into()],
        false,
    );
    v.expect("invariant: the conjunction has a result").into_int_value()
}

/// `trap`, as an instruction that control flow passes: `llvm.trap` would end its block, and with it every later barrier.
pub(crate) fn trap(b: &Build<'_>) {
    b.call_asm("trap;", "~{memory}", None, &[], true);
}

/// The same number, of which LLVM knows nothing: no instruction.
///
/// Addresses that advance with a loop would otherwise be turned into a carried register each ("loop strength
/// reduction"), where one addition of a common step is cheaper than a register that lives through the loop.
pub(crate) fn opaque<'c>(b: &Build<'c>, v: Int<'c>) -> Int<'c> {
    if v.is_const() {
        return v;
    }
    let ty = v.get_type();
    let constraints = if ty.get_bit_width() == 64 { "=l,0" } else { "=r,0" };
    let same = b.call_asm("", constraints, Some(ty.into()), &[v.into()], false);
    same.expect("invariant: the identity has a result").into_int_value()
}

/// The thread's number in the CTA, read here and nowhere earlier.
pub(crate) fn thread_number<'c>(b: &Build<'c>) -> Int<'c> {
    let tid = b.call_asm("mov.u32 $0, %tid.x;", "=r", Some(b.i32().into()), &[], true);
    tid.expect("invariant: the move has a result").into_int_value()
}
