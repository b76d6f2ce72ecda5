//! Calls: functions, `len`, `dot`, and the named mask patterns, which are expanded here.
//!
//! With `i` the query's position and `j` the key: `causal` is `j <= i`; `window(left = W)` is `i - j <= W && j <= i`;
//! `window(left = W, right = R)` is `i - j <= W && j - i <= R`; `sink(n)` is `j < n`; `same(doc)` is
//! `doc[…, i] == doc[…, j]`, the other axes of the table indexed by themselves.

use super::expr::{Checked, Exprs, Place};
use super::scope::Entity;
use crate::ast::{Argument, ExprKind as Syntax, Name};
use crate::diag::{Reported, Span, names, shapes, types};
use crate::spec::{BinaryOp, Dtype, ElemType, ExprId, ExprKind, Ty, UnaryOp};

const FUNCTIONS: [&str; 13] = [
    "tanh", "exp", "log", "abs", "sqrt", "rsqrt", "min", "max", "len", "dot", "window", "sink", "same",
];

impl Exprs<'_> {
    /// Whether a word is a function or pattern that takes arguments.
    pub fn is_function(name: &str) -> bool {
        FUNCTIONS.contains(&name)
    }

    pub fn call(&mut self, name: &Name, arguments: &[Argument], span: Span) -> Checked {
        let function = name.text.as_str();

        if function == "causal" {
            return Err(self.sink.report(types::no_call(span, function)));
        }
        if function == "window" {
            return self.window(arguments, span);
        }
        if let Some(argument) = arguments.iter().find_map(|a| a.name.as_ref())
            && Self::is_function(function)
        {
            let found = format!("`{}`", argument.text.chars().take(40).collect::<String>());
            let error = types::argument_name(argument.span, function, "arguments without names", &found);
            return Err(self.sink.report(error));
        }
        match function {
            "len" => self.len(arguments, span),
            "dot" => self.dot(arguments, span),
            "sink" => self.sinks(arguments, span),
            "same" => self.same(arguments, span),
            "min" | "max" => {
                let [a, b] = arguments else {
                    let error = types::argument_count(span, function, "2 arguments", arguments.len());
                    return Err(self.sink.report(error));
                };
                let (a, b) = (self.expr(a.value), self.expr(b.value));
                let op = if function == "min" {
                    BinaryOp::Min
                } else {
                    BinaryOp::Max
                };
                self.binary(op, a?, b?, span)
            }
            _ => match unary(function) {
                Some(op) => {
                    let [a] = arguments else {
                        let error = types::argument_count(span, function, "1 argument", arguments.len());
                        return Err(self.sink.report(error));
                    };
                    let a = self.expr(a.value)?;
                    self.unary(op, a, span)
                }
                None => Err(self.sink.report(types::not_callable(name.span, function, &FUNCTIONS))),
            },
        }
    }

    /// The names that stand as arguments of `len`, `dot` and `same`.
    fn names<const N: usize>(
        &mut self,
        function: &str,
        what: &str,
        arguments: &[Argument],
        span: Span,
    ) -> Result<[Name; N], Reported> {
        if arguments.len() != N {
            let expected = format!("{N} argument{}", if N == 1 { "" } else { "s" });
            return Err(self
                .sink
                .report(types::argument_count(span, function, &expected, arguments.len())));
        }
        let mut found = Vec::new();
        for argument in arguments {
            let expr = self.tree.expr(argument.value);
            match &expr.kind {
                Syntax::Name(text) => found.push(Name {
                    text: text.clone(),
                    span: expr.span,
                }),
                _ => {
                    let error = types::misplaced(
                        expr.span,
                        "an expression",
                        &format!("{what} as argument of `{function}`"),
                    );
                    return Err(self.sink.report(error));
                }
            }
        }
        found.try_into().map_err(|_| Reported)
    }

    fn len(&mut self, arguments: &[Argument], span: Span) -> Checked {
        let [axis] = self.names("len", "an axis", arguments, span)?;
        let axis = self.scope.axis(&axis, self.sink)?;
        Ok(self.push(ExprKind::Len(axis), Ty::Int, span))
    }

    fn dot(&mut self, arguments: &[Argument], span: Span) -> Checked {
        if self.place == Place::Mask {
            let expected = "positions, tables and scalars in a mask";
            return Err(self.sink.report(types::misplaced(span, "`dot`", expected)));
        }
        let [a, b] = self.names("dot", "an input", arguments, span)?;
        let (a, b) = (self.scope.input(&a, self.sink), self.scope.input(&b, self.sink));
        let (a, b) = (a?, b?);
        let Place::Score(Some(product)) = self.place else {
            return Err(Reported);
        };
        let name = |input: crate::spec::InputId| self.spec.inputs[input.index()].name.as_str();
        let (q, k) = (name(product.q), name(product.k));
        if (a, b) == (product.q, product.k) {
            return Ok(self.push(
                ExprKind::Dot {
                    a,
                    b,
                    over: product.over,
                },
                Ty::Real,
                span,
            ));
        }
        let error = match (a, b) == (product.k, product.q) {
            true => shapes::swapped_dot(span, q, k),
            false => shapes::other_dot(
                span,
                &format!("dot({q}, {k})"),
                &format!("dot({}, {})", name(a), name(b)),
            ),
        };
        Err(self.sink.report(error))
    }

    fn position(&mut self, span: Span) -> ExprId {
        self.push(ExprKind::Index(self.query), Ty::Int, span)
    }

    fn key(&mut self, span: Span) -> ExprId {
        self.push(ExprKind::Index(self.key), Ty::Int, span)
    }

    fn truth(&mut self, op: BinaryOp, a: ExprId, b: ExprId, span: Span) -> ExprId {
        self.push(ExprKind::Binary(op, a, b), Ty::Bool, span)
    }

    /// `j <= i`.
    pub fn causal(&mut self, span: Span) -> ExprId {
        let key = self.key(span);
        let position = self.position(span);
        self.truth(BinaryOp::Le, key, position, span)
    }

    /// An integer argument of a pattern; literals are not negative.
    fn extent(&mut self, argument: &Argument, what: &str) -> Checked {
        let value = self.expr(argument.value)?;
        let value = self.expect(value, Ty::Int, &format!("as {what}"))?;
        match self.get(value).kind {
            ExprKind::Int(found) if found < 0 => {
                let at = self.tree.expr(argument.value).span;
                Err(self.sink.report(types::negative(at, what, found)))
            }
            _ => Ok(value),
        }
    }

    fn window(&mut self, arguments: &[Argument], span: Span) -> Checked {
        let (mut left, mut right) = (None, None);
        for argument in arguments {
            let (slot, at) = match &argument.name {
                Some(name) if name.text == "left" => (&mut left, name.span),
                Some(name) if name.text == "right" => (&mut right, name.span),
                other => {
                    let at = other.as_ref().map_or(self.tree.expr(argument.value).span, |n| n.span);
                    let found = other
                        .as_ref()
                        .map_or("an argument without a name".to_owned(), |n| format!("`{}`", n.text));
                    let error = types::argument_name(at, "window", "`left = …` and perhaps `right = …`", &found);
                    return Err(self.sink.report(error.help("write `window(left = 1024)`")));
                }
            };
            if slot.replace(argument).is_some() {
                return Err(self
                    .sink
                    .report(types::argument_name(at, "window", "each argument once", "one twice")));
            }
        }
        let Some(left) = left else {
            let error = types::argument_name(span, "window", "`left = …`", "none");
            return Err(self.sink.report(error.help("write `window(left = 1024)`")));
        };
        let position = self.position(span);
        let key = self.key(span);
        let back = self.push(ExprKind::Binary(BinaryOp::Sub, position, key), Ty::Int, span);
        let left = self.extent(left, "the left side of a window");
        let near = left.map(|left| self.truth(BinaryOp::Le, back, left, span));
        let ahead = match right {
            None => Ok(self.causal(span)),
            Some(right) => {
                let key = self.key(span);
                let position = self.position(span);
                let ahead = self.push(ExprKind::Binary(BinaryOp::Sub, key, position), Ty::Int, span);
                let right = self.extent(right, "the right side of a window");
                right.map(|right| self.truth(BinaryOp::Le, ahead, right, span))
            }
        };
        let (near, ahead) = (near?, ahead?);
        Ok(self.truth(BinaryOp::And, near, ahead, span))
    }

    /// `j < n`.
    fn sinks(&mut self, arguments: &[Argument], span: Span) -> Checked {
        let [count] = arguments else {
            return Err(self
                .sink
                .report(types::argument_count(span, "sink", "1 argument", arguments.len())));
        };
        let key = self.key(span);
        let count = self.extent(count, "a number of sinks")?;
        Ok(self.truth(BinaryOp::Lt, key, count, span))
    }

    /// `doc[…, i] == doc[…, j]`.
    fn same(&mut self, arguments: &[Argument], span: Span) -> Checked {
        let [name] = self.names("same", "an input", arguments, span)?;
        let input = match self.scope.get(&name.text) {
            Some((Entity::Input(input), _)) => input,
            Some((other, at)) => {
                let error = names::wrong_kind(name.span, "an input", &name.text, other.describe(), Some(at));
                return Err(self.sink.report(error));
            }
            None => {
                let wanted = |e| matches!(e, Entity::Input(_));
                return Err(self.scope.unknown(&name.text, name.span, "an input", wanted, self.sink));
            }
        };
        let decl = &self.spec.inputs[input.index()];
        let found = match decl.ty {
            ElemType::Fixed(Dtype::I32) if !decl.axes.contains(&self.key) => Some("which does not have it"),
            ElemType::Fixed(Dtype::I32) if decl.axes.contains(&self.query) => Some("which has the query axis"),
            ElemType::Fixed(Dtype::I32) => None,
            ElemType::Fixed(Dtype::F16 | Dtype::Bf16 | Dtype::F32) | ElemType::Set(_) => Some("which is not `i32`"),
        };
        if let Some(found) = found {
            return Err(self.sink.report(shapes::bad_same(name.span, &name.text, found)));
        }
        let axes = decl.axes.clone();
        if let Some(missing) = axes.iter().find(|a| !self.available.contains(a)) {
            let missing = &self.spec.axes[missing.index()].name;
            let error = shapes::no_index(name.span, missing, &self.axis_names(&self.available));
            return Err(self.sink.report(error));
        }
        let sides = [self.query, self.key].map(|side| {
            let at: Vec<ExprId> = axes
                .iter()
                .map(|&axis| {
                    self.push(
                        ExprKind::Index(if axis == self.key { side } else { axis }),
                        Ty::Int,
                        span,
                    )
                })
                .collect();
            self.push(ExprKind::Load { input, at }, Ty::Int, span)
        });
        Ok(self.truth(BinaryOp::Eq, sides[0], sides[1], span))
    }
}

fn unary(name: &str) -> Option<UnaryOp> {
    Some(match name {
        "tanh" => UnaryOp::Tanh,
        "exp" => UnaryOp::Exp,
        "log" => UnaryOp::Log,
        "abs" => UnaryOp::Abs,
        "sqrt" => UnaryOp::Sqrt,
        "rsqrt" => UnaryOp::Rsqrt,
        _ => return None,
    })
}
