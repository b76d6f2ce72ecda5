//! Declarations: `attention` and what stands in it, expressions excepted.

use super::{LATER_MEMBERS, MEMBERS, Parsed, Parser};
use crate::ast;
use crate::diag::{Reported, Span, limits, syntax};
use crate::spec::{Align, LseBase, Norm};
use crate::token::Kind;

impl Parser<'_> {
    /// Doc comments, visibility, `attention name { … }`.
    pub(super) fn attention(&mut self) -> Parsed<ast::Attention> {
        let doc = self.doc();
        if !doc.is_empty() && matches!(self.peek(), Kind::End | Kind::Close(_)) {
            let span = self.last_span();
            return Err(self.sink.report(syntax::stray_doc(span)));
        }
        let visibility = self.visibility()?;
        self.word("attention")?;
        let name = self.name("the name of the operator")?;
        let mut spec = ast::Attention {
            doc,
            visibility,
            name,
            types: Vec::new(),
            axes: Vec::new(),
            inputs: Vec::new(),
            scalars: Vec::new(),
            attends: Vec::new(),
            outputs: Vec::new(),
            pins: Vec::new(),
            exprs: Vec::new(),
            broken: false,
        };
        self.exprs.clear();
        self.group('{', |p| {
            while !matches!(p.peek(), Kind::Close(_)) {
                let start = p.at;
                let braces = p.is_word("attend") || p.is_word("tile") || p.is_later_member();
                if p.member(&mut spec).is_err() {
                    spec.broken = true;
                    p.recover(start, &MEMBERS, braces);
                }
            }
            Ok(())
        })?;
        spec.exprs = std::mem::take(&mut self.exprs);
        Ok(spec)
    }

    /// Doc comments as one text; a blank after the marks is not part of it.
    fn doc(&mut self) -> String {
        let mut lines = Vec::new();
        while let Kind::Doc(line) = self.peek() {
            lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
            self.advance();
        }
        lines.join("\n")
    }

    /// Nothing, `pub`, `pub(crate)`, `pub(super)`, `pub(self)` or `pub(in path)`.
    fn visibility(&mut self) -> Parsed<String> {
        if !self.take_word("pub") {
            return Ok(String::new());
        }
        if *self.peek() != Kind::Open('(') {
            return Ok("pub".to_owned());
        }
        let path = self.group('(', |p| {
            let mut path = String::new();
            if p.take_word("in") {
                path.push_str("in ");
            }
            loop {
                path.push_str(&p.name("a path")?.text);
                if !p.take_mark("::") {
                    return Ok(path);
                }
                path.push_str("::");
            }
        })?;
        Ok(format!("pub({path})"))
    }

    fn is_later_member(&self) -> bool {
        matches!(self.peek(), Kind::Word(word) if LATER_MEMBERS.contains(&word.as_str()))
    }

    fn member(&mut self, spec: &mut ast::Attention) -> Parsed<()> {
        let Kind::Word(word) = self.peek() else {
            if matches!(self.peek(), Kind::Doc(_)) {
                let span = self.span();
                return Err(self.sink.report(syntax::stray_doc(span)));
            }
            return self.unexpected("a declaration");
        };
        let (word, span) = (word.clone(), self.span());
        if self.is_later_member() {
            return self.not_yet(&format!("`{word}`"));
        }
        self.advance();
        match word.as_str() {
            "type" => self.declarations(&mut spec.types, Self::type_set),
            "axis" => self.declarations(&mut spec.axes, Self::axis),
            "input" => self.declarations(&mut spec.inputs, Self::input),
            "scalar" => self.declarations(&mut spec.scalars, Self::scalar),
            "output" => self.declarations(&mut spec.outputs, Self::output),
            "attend" => {
                let attend = self.attend(span)?;
                spec.attends.push(attend);
                Ok(())
            }
            "tile" => self.tile(&mut spec.pins),
            _ => Err(self
                .sink
                .report(syntax::unknown_word(span, "a declaration", &word, &MEMBERS))),
        }
    }

    fn type_set(&mut self) -> Parsed<ast::TypeSet> {
        let name = self.name("the name of a type set")?;
        self.word("in")?;
        let members = self.group('[', |p| p.list(|p| p.name("an element type")))?;
        Ok(ast::TypeSet { name, members })
    }

    fn axis(&mut self) -> Parsed<ast::Axis> {
        let name = self.name("the name of an axis")?;
        if self.take_mark(":") {
            let role = self.role()?;
            return Ok(ast::Axis {
                name,
                role: Some(role),
                size: ast::Size::Runtime,
            });
        }
        let size = if self.take_mark("=") {
            if matches!(self.peek(), Kind::Word(_)) {
                let of = self.name("an axis")?;
                self.mark("/")?;
                ast::Size::Grouped {
                    of,
                    ratios: self.numbers("a ratio")?,
                }
            } else {
                ast::Size::OneOf(vec![self.number("a size, or `axis / ratio`")?])
            }
        } else if self.take_word("in") {
            ast::Size::OneOf(self.numbers("a size")?)
        } else {
            ast::Size::Runtime
        };
        Ok(ast::Axis { name, role: None, size })
    }

    /// A number, or a list of them in brackets.
    fn numbers(&mut self, what: &str) -> Parsed<Vec<ast::Number>> {
        match self.peek() {
            Kind::Open('[') => self.group('[', |p| p.list(|p| p.number(what))),
            _ => Ok(vec![self.number(what)?]),
        }
    }

    fn role(&mut self) -> Parsed<ast::Role> {
        let word = self.name("`query(end)`, `query(start)` or `key`")?;
        match word.text.as_str() {
            "key" => Ok(ast::Role::Key),
            "query" => {
                let align = self.group('(', |p| p.name("`end` or `start`"))?;
                match align.text.as_str() {
                    "end" => Ok(ast::Role::Query(Align::End)),
                    "start" => Ok(ast::Role::Query(Align::Start)),
                    _ => {
                        let words = ["end", "start"];
                        Err(self
                            .sink
                            .report(syntax::unknown_word(align.span, "an alignment", &align.text, &words)))
                    }
                }
            }
            "sequence" | "ragged" | "segmented" | "grid" | "landmark" => Err(self
                .sink
                .report(limits::not_yet(word.span, &format!("`{}`", word.text)))),
            _ => {
                let words = ["query", "key"];
                Err(self.sink.report(syntax::unknown_word(
                    word.span,
                    "the role of an axis",
                    &word.text,
                    &words,
                )))
            }
        }
    }

    /// `T[b, h, i, d]`.
    fn shape(&mut self) -> Parsed<(ast::Name, Vec<ast::Name>)> {
        let ty = self.name("an element type")?;
        let axes = self.group('[', |p| p.list(|p| p.name("an axis")))?;
        Ok((ty, axes))
    }

    fn input(&mut self) -> Parsed<ast::Tensor> {
        let name = self.name("the name of an input")?;
        self.mark(":")?;
        let (ty, axes) = self.shape()?;
        let sorted = self.is_word("sorted").then(|| self.span());
        self.take_word("sorted");
        Ok(ast::Tensor { name, ty, axes, sorted })
    }

    fn scalar(&mut self) -> Parsed<ast::Scalar> {
        let name = self.name("the name of a scalar")?;
        self.mark(":")?;
        let ty = self.name("`f32` or `i32`")?;
        Ok(ast::Scalar { name, ty })
    }

    fn output(&mut self) -> Parsed<ast::Output> {
        let name = self.name("the name of a stage, or `lse(stage)`")?;
        let (stage, lse) = match self.peek() {
            Kind::Open('(') if name.text == "lse" => {
                let (stage, base) = self.group('(', |p| {
                    let stage = p.name("the name of a stage")?;
                    let base = if p.take_mark(",") {
                        p.name("`nats` or `bits`")?
                    } else {
                        nats(stage.span)
                    };
                    Ok((stage, base))
                })?;
                let span = name.span.to(self.last_span());
                let base = match base.text.as_str() {
                    "nats" => LseBase::Nats,
                    "bits" => LseBase::Bits,
                    _ => {
                        let words = ["nats", "bits"];
                        let error = syntax::unknown_word(base.span, "the base of a logarithm", &base.text, &words);
                        return Err(self.sink.report(error));
                    }
                };
                (stage, Some((base, span)))
            }
            Kind::Open('(') => {
                let later = ["mass", "colsum", "rows", "topk", "argmax", "grad"];
                if later.contains(&name.text.as_str()) {
                    return Err(self
                        .sink
                        .report(limits::not_yet(name.span, &format!("`{}`", name.text))));
                }
                return Err(self
                    .sink
                    .report(syntax::unknown_word(name.span, "what is emitted", &name.text, &["lse"])));
            }
            _ => (name, None),
        };
        self.mark(":")?;
        let (ty, axes) = self.shape()?;
        Ok(ast::Output { stage, lse, ty, axes })
    }

    /// `attend o over j in (k, v) { … }`; the keyword is taken.
    fn attend(&mut self, start: Span) -> Parsed<ast::Attend> {
        let name = self.name("the name of the stage")?;
        self.word("over")?;
        let key = self.name("the key axis")?;
        self.word("in")?;
        let (k, v) = self.group('(', |p| {
            let k = p.name("the keys")?;
            p.mark(",")?;
            let v = p.name("the values")?;
            match p.peek() {
                Kind::Word(word) if ["at", "pos", "logw"].contains(&word.as_str()) => {
                    let word = format!("`{word}`");
                    p.not_yet(&word)
                }
                _ => Ok((k, v)),
            }
        })?;
        if self.is_mark(",") {
            return self.not_yet("several key groups");
        }

        let span = start.to(self.last_span());
        let mut attend = ast::Attend {
            name,
            key,
            k,
            v,
            score: None,
            mask: None,
            norm: None,
            span,
        };
        let mut broken = false;
        self.group('{', |p| {
            let mut seen: Vec<(String, Span)> = Vec::new();
            while !matches!(p.peek(), Kind::Close(_)) {
                let start = p.at;
                if p.field(&mut attend, &mut seen).is_err() {
                    broken = true;
                    p.recover(start, &FIELDS, false);
                }
            }
            Ok(())
        })?;
        // The spec is then marked as broken; recovery goes on behind these braces.
        if broken { Err(Reported) } else { Ok(attend) }
    }

    fn field(&mut self, attend: &mut ast::Attend, seen: &mut Vec<(String, Span)>) -> Parsed<()> {
        let field = self.name("a field of the stage")?;
        match field.text.as_str() {
            "post" | "drop" => {
                return Err(self
                    .sink
                    .report(limits::not_yet(field.span, &format!("`{}`", field.text))));
            }
            word if FIELDS.contains(&word) => {}
            word => {
                let error = syntax::unknown_word(field.span, "a field of the stage", word, &FIELDS);
                return Err(self.sink.report(error));
            }
        }
        match seen.iter().find(|(name, _)| *name == field.text) {
            Some((_, first)) => {
                let what = format!("`{}`", field.text);
                self.sink.report(syntax::repeated(field.span, &what, *first));
            }
            None => seen.push((field.text.clone(), field.span)),
        }
        self.mark("=")?;
        match field.text.as_str() {
            "score" => attend.score = Some(self.expr()?),
            "mask" => attend.mask = Some(self.expr()?),
            _ => attend.norm = Some(self.norm()?),
        }
        if self.is_mark("=") {
            let span = self.span();
            return Err(self.sink.report(syntax::assignment(span)));
        }
        if self.take_mark(";") {
            Ok(())
        } else {
            self.unexpected("an operator or `;`")
        }
    }

    fn norm(&mut self) -> Parsed<Norm> {
        let word = self.name("a normaliser")?;
        match word.text.as_str() {
            "softmax" if *self.peek() != Kind::Open('(') => Ok(Norm::Softmax),
            "softmax" => self.not_yet("softmax with arguments"),
            "none" | "sum" | "sigmoid" | "relu" | "nested" => Err(self
                .sink
                .report(limits::not_yet(word.span, &format!("`{}`", word.text)))),
            _ => Err(self.sink.report(syntax::unknown_word(
                word.span,
                "a normaliser",
                &word.text,
                &["softmax"],
            ))),
        }
    }

    /// `tile { block_m = 128; sm_80.stages = 2; }`; the keyword is taken.
    fn tile(&mut self, pins: &mut Vec<ast::Pin>) -> Parsed<()> {
        self.group('{', |p| {
            while !matches!(p.peek(), Kind::Close(_)) {
                let first = p.name("a field of the schedule")?;
                let (target, field) = match p.take_mark(".") {
                    true => (Some(first), p.name("a field of the schedule")?),
                    false => (None, first),
                };
                p.mark("=")?;
                let value = p.number("a whole number")?;
                p.mark(";")?;
                pins.push(ast::Pin { target, field, value });
            }
            Ok(())
        })
    }
}

const FIELDS: [&str; 3] = ["score", "mask", "norm"];

/// The base of `lse(o)`.
fn nats(span: Span) -> ast::Name {
    ast::Name {
        text: "nats".to_owned(),
        span,
    }
}
