//! The vocabulary in which instructions are built: LLVM's builder with the noise taken off.
//!
//! Nothing here knows of tile programs. Every function appends at the builder's position; LLVM folds constants.

use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::intrinsics::Intrinsic;
use inkwell::module::Module;
use inkwell::types::{BasicType, BasicTypeEnum, FloatType, IntType, PointerType};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FloatValue, FunctionValue, IntValue, PointerValue,
};
use inkwell::{AddressSpace, FloatPredicate, IntPredicate};

/// An integer or predicate.
pub(crate) type Int<'c> = IntValue<'c>;
/// A float.
pub(crate) type Float<'c> = FloatValue<'c>;
/// An address.
pub(crate) type Ptr<'c> = PointerValue<'c>;
/// Anything a register holds.
pub(crate) type Any<'c> = BasicValueEnum<'c>;

/// Address space of global memory.
pub(crate) const GLOBAL: u16 = 1;
/// Address space of shared memory.
pub(crate) const SHARED: u16 = 3;
/// Address space of the shared memory of a cluster, which that of its CTAs is part of.
pub(crate) const SHARED_OF_CLUSTER: u16 = 7;
/// Address space of kernel arguments.
pub(crate) const TENSOR_MAP: u16 = 101;

/// Builds instructions of one function.
pub(crate) struct Build<'c> {
    pub ctx: &'c Context,
    pub module: Module<'c>,
    pub function: FunctionValue<'c>,
    builder: Builder<'c>,
}

/// Takes the result of a builder call.
fn ok<T>(result: Result<T, BuilderError>) -> T {
    result.expect("invariant: the builder has a position and its operands agree in type")
}

impl<'c> Build<'c> {
    /// A builder at the end of nothing: call [`Build::at_end`] first.
    pub fn new(ctx: &'c Context, module: Module<'c>, function: FunctionValue<'c>) -> Self {
        Build {
            ctx,
            module,
            function,
            builder: ctx.create_builder(),
        }
    }

    // Types.

    pub fn i1(&self) -> IntType<'c> {
        self.ctx.bool_type()
    }
    pub fn i16(&self) -> IntType<'c> {
        self.ctx.i16_type()
    }
    pub fn i32(&self) -> IntType<'c> {
        self.ctx.i32_type()
    }
    pub fn i64(&self) -> IntType<'c> {
        self.ctx.i64_type()
    }
    pub fn f32(&self) -> FloatType<'c> {
        self.ctx.f32_type()
    }
    pub fn ptr(&self, space: u16) -> PointerType<'c> {
        self.ctx.ptr_type(AddressSpace::from(space))
    }

    // Constants.

    pub fn c32(&self, v: i64) -> Int<'c> {
        self.i32().const_int(v as u64, true)
    }
    pub fn c64(&self, v: i64) -> Int<'c> {
        self.i64().const_int(v as u64, true)
    }
    pub fn c1(&self, v: bool) -> Int<'c> {
        self.i1().const_int(u64::from(v), false)
    }
    pub fn cf(&self, v: f32) -> Float<'c> {
        self.f32().const_float(f64::from(v))
    }

    // Blocks.

    pub fn block(&self, name: &str) -> BasicBlock<'c> {
        self.ctx.append_basic_block(self.function, name)
    }
    pub fn at_end(&self, block: BasicBlock<'c>) {
        self.builder.position_at_end(block);
    }
    pub fn here(&self) -> BasicBlock<'c> {
        self.builder
            .get_insert_block()
            .expect("invariant: the builder has a position")
    }
    pub fn jump(&self, to: BasicBlock<'c>) {
        ok(self.builder.build_unconditional_branch(to));
    }
    pub fn branch(&self, cond: Int<'c>, then: BasicBlock<'c>, otherwise: BasicBlock<'c>) {
        ok(self.builder.build_conditional_branch(cond, then, otherwise));
    }
    pub fn ret(&self) {
        ok(self.builder.build_return(None));
    }
    /// A phi without its incoming values.
    pub fn phi(&self, ty: BasicTypeEnum<'c>) -> inkwell::values::PhiValue<'c> {
        ok(self.builder.build_phi(ty, ""))
    }

    // Integers.

    pub fn add(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_add(a, b, ""))
    }
    pub fn sub(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_sub(a, b, ""))
    }
    pub fn mul(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_mul(a, b, ""))
    }
    pub fn and(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_and(a, b, ""))
    }
    pub fn or(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_or(a, b, ""))
    }
    pub fn xor(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_xor(a, b, ""))
    }
    pub fn not(&self, a: Int<'c>) -> Int<'c> {
        ok(self.builder.build_not(a, ""))
    }
    pub fn shl(&self, a: Int<'c>, by: u32) -> Int<'c> {
        ok(self
            .builder
            .build_left_shift(a, a.get_type().const_int(u64::from(by), false), ""))
    }
    /// Logical shift right.
    pub fn lshr(&self, a: Int<'c>, by: u32) -> Int<'c> {
        ok(self
            .builder
            .build_right_shift(a, a.get_type().const_int(u64::from(by), false), false, ""))
    }
    /// Arithmetic shift right.
    pub fn ashr(&self, a: Int<'c>, by: u32) -> Int<'c> {
        ok(self
            .builder
            .build_right_shift(a, a.get_type().const_int(u64::from(by), false), true, ""))
    }
    pub fn sdiv(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_signed_div(a, b, ""))
    }
    pub fn srem(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_signed_rem(a, b, ""))
    }
    pub fn udiv(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_unsigned_div(a, b, ""))
    }
    pub fn urem(&self, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_unsigned_rem(a, b, ""))
    }
    pub fn icmp(&self, p: IntPredicate, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        ok(self.builder.build_int_compare(p, a, b, ""))
    }
    pub fn sext(&self, a: Int<'c>, ty: IntType<'c>) -> Int<'c> {
        if a.get_type() == ty {
            a
        } else {
            ok(self.builder.build_int_s_extend(a, ty, ""))
        }
    }
    pub fn zext(&self, a: Int<'c>, ty: IntType<'c>) -> Int<'c> {
        if a.get_type() == ty {
            a
        } else {
            ok(self.builder.build_int_z_extend(a, ty, ""))
        }
    }
    pub fn trunc(&self, a: Int<'c>, ty: IntType<'c>) -> Int<'c> {
        if a.get_type() == ty {
            a
        } else {
            ok(self.builder.build_int_truncate(a, ty, ""))
        }
    }
    pub fn int_to_float(&self, a: Int<'c>) -> Float<'c> {
        ok(self.builder.build_signed_int_to_float(a, self.f32(), ""))
    }

    // Floats.

    pub fn fadd(&self, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        ok(self.builder.build_float_add(a, b, ""))
    }
    pub fn fsub(&self, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        ok(self.builder.build_float_sub(a, b, ""))
    }
    pub fn fmul(&self, a: Float<'c>, b: Float<'c>) -> Float<'c> {
        ok(self.builder.build_float_mul(a, b, ""))
    }
    pub fn fneg(&self, a: Float<'c>) -> Float<'c> {
        ok(self.builder.build_float_neg(a, ""))
    }
    pub fn fcmp(&self, p: FloatPredicate, a: Float<'c>, b: Float<'c>) -> Int<'c> {
        ok(self.builder.build_float_compare(p, a, b, ""))
    }
    pub fn fext(&self, a: Float<'c>) -> Float<'c> {
        ok(self.builder.build_float_ext(a, self.f32(), ""))
    }
    pub fn ftrunc(&self, a: Float<'c>, ty: FloatType<'c>) -> Float<'c> {
        ok(self.builder.build_float_trunc(a, ty, ""))
    }

    // Anything.

    pub fn select(&self, cond: Int<'c>, a: Any<'c>, b: Any<'c>) -> Any<'c> {
        ok(self.builder.build_select(cond, a, b, ""))
    }
    pub fn select_int(&self, cond: Int<'c>, a: Int<'c>, b: Int<'c>) -> Int<'c> {
        self.select(cond, a.into(), b.into()).into_int_value()
    }
    pub fn bitcast(&self, v: Any<'c>, ty: BasicTypeEnum<'c>) -> Any<'c> {
        if v.get_type() == ty {
            v
        } else {
            ok(self.builder.build_bit_cast(v, ty, ""))
        }
    }
    /// Field `i` of a struct.
    pub fn field(&self, v: Any<'c>, i: u32) -> Any<'c> {
        ok(self.builder.build_extract_value(v.into_struct_value(), i, ""))
    }
    /// Element `i` of a vector.
    pub fn lane(&self, v: Any<'c>, i: u32) -> Any<'c> {
        ok(self
            .builder
            .build_extract_element(v.into_vector_value(), self.c32(i64::from(i)), ""))
    }
    /// The vector of `parts`, which have one type.
    pub fn vector(&self, parts: &[Any<'c>]) -> Any<'c> {
        let n = parts.len() as u32;
        let ty = match parts[0].get_type() {
            BasicTypeEnum::FloatType(t) => t.vec_type(n),
            BasicTypeEnum::IntType(t) => t.vec_type(n),
            BasicTypeEnum::ArrayType(_)
            | BasicTypeEnum::PointerType(_)
            | BasicTypeEnum::StructType(_)
            | BasicTypeEnum::VectorType(_)
            | BasicTypeEnum::ScalableVectorType(_) => unreachable!("vectors are built of numbers"),
        };
        let mut v = ty.get_undef();
        for (i, p) in parts.iter().enumerate() {
            v = ok(self.builder.build_insert_element(v, *p, self.c32(i as i64), ""));
        }
        v.into()
    }

    // Memory.

    /// `p` plus `bytes`.
    pub fn offset(&self, p: Ptr<'c>, bytes: Int<'c>) -> Ptr<'c> {
        // SAFETY: the address is only formed here; in bounds it is not claimed to be (a plain `getelementptr`).
        unsafe { ok(self.builder.build_gep(self.ctx.i8_type(), p, &[bytes], "")) }
    }
    /// `p` plus a constant number of bytes.
    pub fn offset_by(&self, p: Ptr<'c>, bytes: u32) -> Ptr<'c> {
        if bytes == 0 {
            p
        } else {
            self.offset(p, self.c64(i64::from(bytes)))
        }
    }
    /// The address in shared memory with this 32-bit number.
    pub fn shared_ptr(&self, address: Int<'c>) -> Ptr<'c> {
        ok(self.builder.build_int_to_ptr(address, self.ptr(SHARED), ""))
    }
    /// The same address in another address space.
    pub fn cast_space(&self, p: Ptr<'c>, space: u16) -> Ptr<'c> {
        ok(self.builder.build_address_space_cast(p, self.ptr(space), ""))
    }
    /// The number of an address, 64 bits.
    pub fn address(&self, p: Ptr<'c>) -> Int<'c> {
        ok(self.builder.build_ptr_to_int(p, self.i64(), ""))
    }
    pub fn load(&self, ty: BasicTypeEnum<'c>, p: Ptr<'c>, align: u32) -> Any<'c> {
        let v = ok(self.builder.build_load(ty, p, ""));
        let inst = v.as_instruction_value().expect("invariant: a load is an instruction");
        inst.set_alignment(align)
            .expect("invariant: the alignment is a power of two");
        v
    }
    /// A load of memory that no one writes while the kernel runs (`ld.global.nc`).
    pub fn load_constant(&self, ty: BasicTypeEnum<'c>, p: Ptr<'c>, align: u32) -> Any<'c> {
        let v = self.load(ty, p, align);
        let inst = v.as_instruction_value().expect("invariant: a load is an instruction");
        let kind = self.ctx.get_kind_id("invariant.load");
        inst.set_metadata(self.ctx.metadata_node(&[]), kind)
            .expect("invariant: loads take metadata");
        v
    }
    pub fn store(&self, p: Ptr<'c>, v: Any<'c>, align: u32) {
        let inst = ok(self.builder.build_store(p, v));
        inst.set_alignment(align)
            .expect("invariant: the alignment is a power of two");
    }

    // Calls.

    /// Calls an intrinsic with a result; `overload` are its overloaded types.
    pub fn call(&self, name: &str, overload: &[BasicTypeEnum<'c>], args: &[Any<'c>]) -> Any<'c> {
        let site = self.call_site(name, overload, args);
        site.try_as_basic_value()
            .basic()
            .expect("invariant: the intrinsic has a result")
    }
    /// Calls an intrinsic without a result.
    pub fn call_void(&self, name: &str, overload: &[BasicTypeEnum<'c>], args: &[Any<'c>]) {
        self.call_site(name, overload, args);
    }
    fn call_site(
        &self,
        name: &str,
        overload: &[BasicTypeEnum<'c>],
        args: &[Any<'c>],
    ) -> inkwell::values::CallSiteValue<'c> {
        let f = Intrinsic::find(name)
            .and_then(|i| i.get_declaration(&self.module, overload))
            .unwrap_or_else(|| panic!("invariant: LLVM 22 has the intrinsic {name}"));
        let args: Vec<BasicMetadataValueEnum<'c>> = args.iter().map(|a| (*a).into()).collect();
        ok(self.builder.build_call(f, &args, ""))
    }
    /// Calls inline assembly; `None` if it has no result. What has effects is done by all lanes of a warp that come here
    /// together, and is neither moved nor doubled.
    pub fn call_asm(
        &self,
        text: &str,
        constraints: &str,
        result: Option<BasicTypeEnum<'c>>,
        args: &[Any<'c>],
        effects: bool,
    ) -> Option<Any<'c>> {
        let params: Vec<_> = args.iter().map(|a| a.get_type().into()).collect();
        let ty = match result {
            Some(t) => t.fn_type(&params, false),
            None => self.ctx.void_type().fn_type(&params, false),
        };
        let asm = self
            .ctx
            .create_inline_asm(ty, text.into(), constraints.into(), effects, false, None, false);
        let args: Vec<BasicMetadataValueEnum<'c>> = args.iter().map(|a| (*a).into()).collect();
        let site = ok(self.builder.build_indirect_call(ty, asm, &args, ""));
        if effects {
            let kind = Attribute::get_named_enum_kind_id("convergent");
            site.add_attribute(AttributeLoc::Function, self.ctx.create_enum_attribute(kind, 0));
        }
        site.try_as_basic_value().basic()
    }
}
