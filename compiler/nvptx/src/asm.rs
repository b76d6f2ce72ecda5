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

/// Constraints of `count` registers of floats that an instruction changes in place.
fn in_place(count: usize) -> String {
    let ties: Vec<String> = (0..count).map(|i| i.to_string()).collect();
    format!("{},{}", vec!["=f"; count].join(","), ties.join(","))
}

/// The fields of a struct of floats, or the float that stands for a struct of one.
fn unpack<'c>(b: &Build<'c>, v: Any<'c>, count: usize) -> Vec<Any<'c>> {
    if count == 1 {
        return vec![v];
    }
    (0..count as u32).map(|i| b.field(v, i)).collect()
}

/// Several floats as the result of an instruction.
fn floats<'c>(b: &Build<'c>, count: usize) -> BasicTypeEnum<'c> {
    match count {
        1 => b.f32().into(),
        _ => b.ctx.struct_type(&vec![b.f32().into(); count], false).into(),
    }
}

/// The left operand of a `wgmma`.
pub(crate) enum Left<'c> {
    /// Four registers of pairs.
    Registers([Any<'c>; 4]),
    /// A matrix descriptor.
    Shared(Int<'c>),
}

/// `wgmma.mma_async.m64nNk16`: `acc + left * right`, or the product alone, as accumulators in flight. `right` is a matrix
/// descriptor; `transposed`: columns of the product lie along its rows.
pub(crate) fn wgmma<'c>(
    b: &Build<'c>,
    bf16: bool,
    cols: u32,
    acc: Option<&[Any<'c>]>,
    left: Left<'c>,
    right: Int<'c>,
    transposed: bool,
) -> Vec<Any<'c>> {
    let count = cols as usize / 2;
    let sums: Vec<String> = (0..count).map(|i| format!("${i}")).collect();
    let mut args = acc.unwrap_or(&[]).to_vec();
    let mut constraints = match acc {
        Some(_) => in_place(count),
        None => vec!["=f"; count].join(","),
    };
    let at = count + args.len();
    // Whether to add to the accumulators; then signs, and which operands in shared memory are transposed.
    let (adds, transposed) = (u32::from(acc.is_some()), u32::from(transposed));
    let operands = match left {
        Left::Registers(registers) => {
            args.extend(registers);
            constraints += ",r,r,r,r,l";
            let pairs = format!("{{${},${},${},${}}}", at, at + 1, at + 2, at + 3);
            format!("{pairs}, ${}, {adds}, 1, 1, {transposed}", at + 4)
        }
        Left::Shared(descriptor) => {
            args.push(descriptor.into());
            constraints += ",l,l";
            format!("${at}, ${}, {adds}, 1, 1, 0, {transposed}", at + 1)
        }
    };
    args.push(right.into());
    let element = if bf16 { "bf16" } else { "f16" };
    let text = format!(
        "wgmma.mma_async.sync.aligned.m64n{cols}k16.f32.{element}.{element} {{{}}}, {operands};",
        sums.join(",")
    );
    let v = b.call_asm(&text, &constraints, Some(floats(b, count)), &args, true);
    unpack(b, v.expect("invariant: the product has a result"), count)
}

/// `wgmma.wait_group`: returns the accumulators of a product whose group is complete when `pending` groups remain. They
/// pass through the instruction, so that no use of them can stand before it.
pub(crate) fn wgmma_wait<'c>(b: &Build<'c>, pending: u32, sums: &[Any<'c>]) -> Vec<Any<'c>> {
    let text = format!("wgmma.wait_group.sync.aligned {pending};");
    through(b, &text, sums)
}

/// The same floats, computed here and not later: no instruction. ptxas would move what computes them behind a wait that
/// does not need them, where nothing is left to overlap with.
pub(crate) fn pin<'c>(b: &Build<'c>, values: &[Any<'c>]) -> Vec<Any<'c>> {
    through(b, "", values)
}

/// Floats that pass through an instruction unchanged.
fn through<'c>(b: &Build<'c>, text: &str, values: &[Any<'c>]) -> Vec<Any<'c>> {
    let count = values.len();
    let v = b.call_asm(text, &in_place(count), Some(floats(b, count)), values, true);
    unpack(b, v.expect("invariant: the instruction has a result"), count)
}

/// `@cond mbarrier.arrive` at the address `base + offset`: a predicated instruction makes no basic block. Its semantics
/// are the default ones; a cluster's would flush far more than the CTA's own memory.
pub(crate) fn mbarrier_arrive_if<'c>(b: &Build<'c>, cond: Int<'c>, base: Int<'c>, offset: u32) {
    let text = format!("@$1 mbarrier.arrive.shared::cta.b64 _, [$0+{offset}];");
    b.call_asm(&text, "r,b,~{memory}", None, &[base.into(), cond.into()], true);
}
