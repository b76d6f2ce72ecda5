//! Builds kernels statement by statement: fresh values, nested blocks, and integer arithmetic that folds constants.

use drawloom_kernel::code::Code;
use drawloom_kernel::ir::{
    Access, Block, BufId, Buffer, BufferLayout, Dtype, Extent, Frag, If, Kernel, Layout, MapOp, Op, Param, ParamId,
    ParamKind, ReduceOp, Role, SharedView, Stmt, Val,
};
use drawloom_kernel::target;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

/// A kernel under construction: its code, whose only role is added by [`Builder::finish`], and what is known of its values.
pub struct Builder {
    code: Code<Kernel>,
    /// Known values of integer scalars.
    constants: HashMap<Val, i64>,
    params: HashMap<ParamId, Val>,
    /// Vectors that are a scalar times another.
    multiples: HashMap<Val, (Val, Val)>,
}

impl Deref for Builder {
    type Target = Code<Kernel>;

    fn deref(&self) -> &Code<Kernel> {
        &self.code
    }
}

impl DerefMut for Builder {
    fn deref_mut(&mut self) -> &mut Code<Kernel> {
        &mut self.code
    }
}

impl Builder {
    /// An empty kernel with one open block.
    pub fn new(name: &str, target: &str) -> Builder {
        Builder {
            code: Code::new(Kernel {
                name: name.to_owned(),
                target: target.to_owned(),
                params: Vec::new(),
                buffers: Vec::new(),
                mbarriers: Vec::new(),
                roles: Vec::new(),
                min_ctas: 1,
                types: Vec::new(),
            }),
            constants: HashMap::new(),
            params: HashMap::new(),
            multiples: HashMap::new(),
        }
    }

    /// Closes the outermost block as the body of the only role.
    pub fn finish(mut self, warps: u32, min_ctas: u32) -> Kernel {
        let body = self.close();
        self.kernel.roles.push(Role {
            name: "main".to_owned(),
            warps,
            registers: None,
            body,
        });
        self.kernel.min_ctas = min_ctas;
        self.code.kernel
    }

    /// Adds a tensor parameter.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, axes: Vec<Extent>, access: Access) -> ParamId {
        self.param(name, ParamKind::Tensor { dtype, axes, access })
    }

    /// Adds a scalar parameter.
    pub fn scalar_param(&mut self, name: &str, dtype: Dtype) -> ParamId {
        self.param(name, ParamKind::Scalar { dtype })
    }

    fn param(&mut self, name: &str, kind: ParamKind) -> ParamId {
        self.kernel.params.push(Param {
            name: name.to_owned(),
            kind,
        });
        ParamId(self.kernel.params.len() as u32 - 1)
    }

    /// The value of a scalar parameter; read once, at its first use (which must be in the outermost block).
    pub fn read_param(&mut self, param: ParamId) -> Val {
        if let Some(&v) = self.params.get(&param) {
            return v;
        }
        let ParamKind::Scalar { dtype } = self.kernel.params[param.index()].kind else {
            unreachable!("invariant: only scalar parameters are read")
        };
        let v = self.def(Frag::scalar(dtype), Op::Param(param));
        self.params.insert(param, v);
        v
    }

    /// Adds a shared buffer.
    pub fn buffer(
        &mut self,
        name: &str,
        dtype: Dtype,
        slots: u32,
        rows: u32,
        cols: u32,
        alias: Option<BufId>,
    ) -> BufId {
        // What bulk copies write and asynchronous products read.
        let layout = if target::target(&self.kernel.target).is_some_and(|t| t.tma) {
            BufferLayout::Panels
        } else {
            BufferLayout::Swizzled
        };
        self.kernel.buffers.push(Buffer {
            name: name.to_owned(),
            dtype,
            slots,
            rows,
            cols,
            layout,
            alias,
        });
        BufId(self.kernel.buffers.len() as u32 - 1)
    }

    /// `if cond { then() }`.
    ///
    /// # Errors
    /// Those of `then`.
    pub fn when<E>(&mut self, cond: Val, then: impl FnOnce(&mut Builder) -> Result<(), E>) -> Result<(), E> {
        self.open();
        then(self)?;
        let then = self.close();
        self.push(Stmt::If(If {
            cond,
            then,
            otherwise: Block::default(),
            results: Vec::new(),
        }));
        Ok(())
    }

    /// The type of a value.
    pub fn ty(&self, v: Val) -> Frag {
        self.kernel.ty(v)
    }

    /// An `i32` constant.
    pub fn int(&mut self, value: i64) -> Val {
        let v = self.code.int(value);
        self.constants.insert(v, value);
        v
    }

    /// The constant value of an integer scalar, where known.
    pub fn known(&self, v: Val) -> Option<i64> {
        self.constants.get(&v).copied()
    }

    /// An elementwise operation; the shape is the broadcast of the operands', the dtype is given.
    pub fn map(&mut self, op: MapOp, dtype: Dtype, args: &[Val]) -> Val {
        let mut ty = Frag::scalar(dtype);
        for &a in args {
            let t = self.ty(a);
            ty.rows = ty.rows.max(t.rows);
            ty.cols = ty.cols.max(t.cols);
            if t.layout != Layout::Uniform {
                ty.layout = t.layout;
            }
        }
        let v = self.def(ty, Op::Map(op, args.to_vec()));
        if let (MapOp::Mul, &[x, y]) = (op, args)
            && ty.dtype == Dtype::F32
            && (ty.rows == 1) != (ty.cols == 1)
        {
            for (factor, numbers) in [(x, y), (y, x)] {
                if self.ty(factor).is_scalar() {
                    self.multiples.insert(v, (factor, numbers));
                }
            }
        }
        v
    }

    /// `(factor, numbers)` of a vector that is a scalar times another.
    pub fn factors(&self, v: Val) -> Option<(Val, Val)> {
        self.multiples.get(&v).copied()
    }

    /// An `f32` operation.
    pub fn mapf(&mut self, op: MapOp, args: &[Val]) -> Val {
        self.map(op, Dtype::F32, args)
    }

    /// A comparison or Boolean operation.
    pub fn test(&mut self, op: MapOp, args: &[Val]) -> Val {
        self.map(op, Dtype::Bool, args)
    }

    /// `a + b` of integers of one dtype.
    pub fn add(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) => self.int(x + y),
            (Some(0), None) => b,
            (None, Some(0)) => a,
            (None, None) | (Some(_), None) | (None, Some(_)) => self.arith(MapOp::Add, a, b),
        }
    }

    /// `a - b` of integers.
    pub fn sub(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) => self.int(x - y),
            (None, Some(0)) => a,
            (None, None) | (Some(_), None) | (None, Some(_)) => {
                if a == b && self.ty(a).is_scalar() {
                    return self.int(0);
                }
                self.arith(MapOp::Sub, a, b)
            }
        }
    }

    /// `a * b` of integers.
    pub fn mul(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) => self.int(x * y),
            (Some(1), None) => b,
            (None, Some(1)) => a,
            (Some(0), None) | (None, Some(0)) => self.int(0),
            (None, None) | (Some(_), None) | (None, Some(_)) => self.arith(MapOp::Mul, a, b),
        }
    }

    /// `floor(a / b)` of integers, `b > 0`.
    pub fn div(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) if y > 0 => self.int(x.div_euclid(y)),
            (None, Some(1)) => a,
            (None, None) | (Some(_), None) | (None, Some(_)) | (Some(_), Some(_)) => self.arith(MapOp::Div, a, b),
        }
    }

    /// `a - floor(a / b) * b` of integers, `b > 0`.
    pub fn rem(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) if y > 0 => self.int(x.rem_euclid(y)),
            (None, Some(1)) => self.int(0),
            (None, None) | (Some(_), None) | (None, Some(_)) | (Some(_), Some(_)) => self.arith(MapOp::Rem, a, b),
        }
    }

    /// The smaller of two integers.
    pub fn min(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) => self.int(x.min(y)),
            (None, None) | (Some(_), None) | (None, Some(_)) => {
                if a == b {
                    a
                } else {
                    self.arith(MapOp::Min, a, b)
                }
            }
        }
    }

    /// The larger of two integers.
    pub fn max(&mut self, a: Val, b: Val) -> Val {
        match (self.known(a), self.known(b)) {
            (Some(x), Some(y)) => self.int(x.max(y)),
            (None, None) | (Some(_), None) | (None, Some(_)) => {
                if a == b {
                    a
                } else {
                    self.arith(MapOp::Max, a, b)
                }
            }
        }
    }

    /// `ceil(a / b)` for a positive constant `b`.
    pub fn ceil_div(&mut self, a: Val, b: u32) -> Val {
        let up = self.int(i64::from(b) - 1);
        let by = self.int(i64::from(b));
        let sum = self.add(a, up);
        self.div(sum, by)
    }

    /// `cond ? a : b`.
    pub fn select(&mut self, cond: Val, a: Val, b: Val) -> Val {
        let dtype = self.ty(a).dtype;
        self.map(MapOp::Select, dtype, &[cond, a, b])
    }

    fn arith(&mut self, op: MapOp, a: Val, b: Val) -> Val {
        let dtype = self.ty(a).dtype;
        self.map(op, dtype, &[a, b])
    }

    /// Row maximum or sum of a fragment, to `cols` = 4 (quad partials) or 1.
    pub fn reduce(&mut self, op: ReduceOp, v: Val, cols: u32) -> Val {
        let t = self.ty(v);
        let layout = if t.rows == 1 && cols == 1 {
            Layout::Uniform
        } else {
            t.layout
        };
        self.def(Frag { cols, layout, ..t }, Op::Reduce(op, v))
    }
}

/// A whole slot of a buffer.
pub fn whole(kernel: &Kernel, buf: BufId, slot: Option<Val>) -> SharedView {
    let b = &kernel.buffers[buf.index()];
    SharedView {
        buf,
        slot,
        row: None,
        col: 0,
        rows: b.rows,
        cols: b.cols,
    }
}
