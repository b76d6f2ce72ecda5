//! Names: what each one stands for, and which have been used.

use crate::ast;
use crate::diag::{Reported, Sink, Span, limits, names, shapes};
use crate::spec::{AxisId, AxisSize, InputId, ScalarId, Spec, TypeId};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entity {
    Type(TypeId),
    Axis(AxisId),
    Input(InputId),
    Scalar(ScalarId),
    Stage(usize),
}

impl Entity {
    /// The kind, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Entity::Type(_) => "a type set",
            Entity::Axis(_) => "an axis",
            Entity::Input(_) => "an input",
            Entity::Scalar(_) => "a scalar",
            Entity::Stage(_) => "a stage",
        }
    }
}

struct Declared {
    name: String,
    entity: Entity,
    span: Span,
    used: bool,
}

/// The names of a spec, in declaration order.
pub struct Scope {
    declared: Vec<Declared>,
    /// Names that stand for nothing and have been reported.
    missing: Vec<String>,
}

/// The most declarations of one kind: names are found by search.
const MOST: usize = 64;

/// Words that expressions use.
const WORDS: [&str; 18] = [
    "causal", "window", "sink", "same", "prefix", "dilated", "dot", "len", "tanh", "exp", "log", "abs", "min", "max",
    "sqrt", "rsqrt", "additive", "rel",
];

/// Keywords of Rust, which cannot name the fields of the launcher, and words that name others of its parts.
const KEYWORDS: [&str; 53] = [
    "_", "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "false", "fn",
    "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self", "Self",
    "static", "struct", "super", "trait", "true", "type", "unsafe", "use", "where", "while", "abstract", "become",
    "box", "do", "final", "gen", "macro", "override", "priv", "try", "typeof", "unsized", "virtual", "yield",
];

/// Reports a name that cannot be declared; names that expressions use (`in_expressions`) differ from their words.
pub fn free_name(name: &ast::Name, in_expressions: bool, sink: &mut Sink) {
    let text = name.text.as_str();
    let ascii = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if KEYWORDS.contains(&text) {
        sink.report(names::reserved(name.span, text, "a keyword of Rust"));
    } else if in_expressions && WORDS.contains(&text) {
        sink.report(names::reserved(name.span, text, "a word of the language"));
    } else if in_expressions && super::decl::dtype(text).is_some() {
        sink.report(names::reserved(name.span, text, "an element type"));
    } else if !ascii {
        sink.report(names::reserved(
            name.span,
            text,
            "which is not made of ASCII letters, digits and `_`",
        ));
    } else if text.len() > 64 {
        sink.report(names::reserved(name.span, text, "which is longer than 64 characters"));
    }
}

impl Scope {
    /// Declares everything of a spec. `None` if it has more declarations than a spec can need.
    pub fn new(tree: &ast::Attention, sink: &mut Sink) -> Option<Scope> {
        let counts = [
            ("type sets", tree.types.len()),
            ("axes", tree.axes.len()),
            ("inputs", tree.inputs.len()),
            ("scalars", tree.scalars.len()),
            ("stages", tree.attends.len()),
            ("outputs", tree.outputs.len()),
            ("pins", tree.pins.len()),
        ];
        for (what, count) in counts {
            if count > MOST {
                sink.report(limits::too_many(tree.name.span, what, MOST, count));
                return None;
            }
        }
        let mut scope = Scope {
            declared: Vec::new(),
            missing: Vec::new(),
        };
        let id = |n: usize| n as u32;
        for (n, set) in tree.types.iter().enumerate() {
            scope.declare(&set.name, Entity::Type(TypeId(id(n))), sink);
        }
        for (n, axis) in tree.axes.iter().enumerate() {
            scope.declare(&axis.name, Entity::Axis(AxisId(id(n))), sink);
        }
        for (n, input) in tree.inputs.iter().enumerate() {
            scope.declare(&input.name, Entity::Input(InputId(id(n))), sink);
        }
        for (n, scalar) in tree.scalars.iter().enumerate() {
            scope.declare(&scalar.name, Entity::Scalar(ScalarId(id(n))), sink);
        }
        for (n, attend) in tree.attends.iter().enumerate() {
            scope.declare(&attend.name, Entity::Stage(n), sink);
        }
        Some(scope)
    }

    fn declare(&mut self, name: &ast::Name, entity: Entity, sink: &mut Sink) {
        free_name(name, true, sink);
        match self.declared.iter().find(|d| d.name == name.text) {
            Some(first) => {
                sink.report(names::duplicate(name.span, &name.text, first.span));
            }
            None => {
                self.declared.push(Declared {
                    name: name.text.clone(),
                    entity,
                    span: name.span,
                    used: false,
                });
            }
        }
    }

    /// What a name stands for, and where it was declared; counts as a use.
    pub fn get(&mut self, name: &str) -> Option<(Entity, Span)> {
        let found = self.declared.iter_mut().find(|d| d.name == name)?;
        found.used = true;
        Some((found.entity, found.span))
    }

    /// The place of a declaration.
    pub fn place(&self, entity: Entity) -> Span {
        self.declared
            .iter()
            .find(|d| d.entity == entity)
            .map_or(Span::default(), |d| d.span)
    }

    /// Reports a name that stands for nothing, with near ones of the kinds that `wanted` accepts.
    /// Each name is reported once.
    pub fn unknown(
        &mut self,
        name: &str,
        span: Span,
        what: &str,
        wanted: fn(Entity) -> bool,
        sink: &mut Sink,
    ) -> Reported {
        if self.missing.iter().any(|m| m == name) {
            return Reported;
        }
        self.missing.push(name.to_owned());
        let known: Vec<&str> = self
            .declared
            .iter()
            .filter(|d| wanted(d.entity))
            .map(|d| d.name.as_str())
            .collect();
        let words = if what == "a value" { &WORDS[..] } else { &[] };
        sink.report(names::unknown(span, what, name, &known, words))
    }

    /// The axis of this name.
    pub fn axis(&mut self, name: &ast::Name, sink: &mut Sink) -> Result<AxisId, Reported> {
        match self.get(&name.text) {
            Some((Entity::Axis(axis), _)) => Ok(axis),
            Some((other, at)) => Err(sink.report(names::wrong_kind(
                name.span,
                "an axis",
                &name.text,
                other.describe(),
                Some(at),
            ))),
            None => Err(self.unknown(&name.text, name.span, "an axis", |e| matches!(e, Entity::Axis(_)), sink)),
        }
    }

    /// The input of this name.
    pub fn input(&mut self, name: &ast::Name, sink: &mut Sink) -> Result<InputId, Reported> {
        match self.get(&name.text) {
            Some((Entity::Input(input), _)) => Ok(input),
            Some((other, at)) => Err(sink.report(names::wrong_kind(
                name.span,
                "an input",
                &name.text,
                other.describe(),
                Some(at),
            ))),
            None => Err(self.unknown(
                &name.text,
                name.span,
                "an input",
                |e| matches!(e, Entity::Input(_)),
                sink,
            )),
        }
    }

    /// Reports declarations without a use, and axes without a size.
    pub fn report_unused(&self, spec: &Spec, sink: &mut Sink) {
        for declared in &self.declared {
            let (name, span) = (&declared.name, declared.span);
            match declared.entity {
                Entity::Axis(axis) => {
                    let constant = matches!(spec.axes[axis.index()].size, AxisSize::OneOf(_));
                    let sized = spec.inputs.iter().any(|i| i.axes.contains(&axis)) || constant && declared.used;
                    if !sized {
                        sink.report(shapes::sizeless(span, name));
                    }
                }
                Entity::Type(_) if !declared.used => {
                    sink.report(names::unused(span, "type set", name));
                }
                Entity::Input(_) if !declared.used => {
                    sink.report(names::unused(span, "input", name));
                }
                Entity::Scalar(_) if !declared.used => {
                    sink.report(names::unused(span, "scalar", name));
                }
                Entity::Type(_) | Entity::Input(_) | Entity::Scalar(_) | Entity::Stage(_) => {}
            }
        }
    }
}
