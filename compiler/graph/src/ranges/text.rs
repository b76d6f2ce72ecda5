//! Expressions as text, for reports.

use super::Sym;
use std::fmt;

impl fmt::Display for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = |at: &[Sym]| at.iter().map(Sym::to_string).collect::<Vec<_>>();
        match self {
            Sym::Const(c) => write!(f, "{c}"),
            Sym::RowLo => f.write_str("row.first"),
            Sym::RowHi => f.write_str("row.last"),
            Sym::Len(name) => write!(f, "len({name})"),
            Sym::Scalar(name) | Sym::Fixed(name) => f.write_str(name),
            Sym::Add(a, b) => match **b {
                Sym::Const(c) if c < 0 => write!(f, "{a} - {}", c.unsigned_abs()),
                _ => write!(f, "{a} + {b}"),
            },
            Sym::Sub(a, b) => write!(f, "{a} - {}", Factor(b)),
            Sym::Mul(a, b) => write!(f, "{} * {}", Factor(a), Factor(b)),
            Sym::FloorDiv(a, b) => write!(f, "{} / {}", Factor(a), Factor(b)),
            Sym::Rem(a, b) => write!(f, "{} % {}", Factor(a), Factor(b)),
            Sym::Min(..) => write!(
                f,
                "min({})",
                arms(self, |s| if let Sym::Min(a, b) = s { Some((a, b)) } else { None })
            ),
            Sym::Max(..) => write!(
                f,
                "max({})",
                arms(self, |s| if let Sym::Max(a, b) = s { Some((a, b)) } else { None })
            ),
            Sym::IfLe(a, b, t, e) => write!(f, "if {a} <= {b} {{ {t} }} else {{ {e} }}"),
            Sym::Load { table, at } => write!(f, "{table}[{}]", index(at).join(", ")),
            Sym::Search {
                table,
                at,
                value,
                upper,
            } => {
                let order = if *upper { "<=" } else { "<" };
                let mut at = index(at);
                at.push("..".into());
                write!(f, "count({table}[{}] {order} {value})", at.join(", "))
            }
        }
    }
}

/// The operands of nested minima (maxima), which `two` takes apart.
fn arms(s: &Sym, two: fn(&Sym) -> Option<(&Sym, &Sym)>) -> String {
    match two(s) {
        Some((a, b)) => format!("{}, {}", arms(a, two), arms(b, two)),
        None => s.to_string(),
    }
}

/// An operand of something that binds tighter than a sum.
struct Factor<'a>(&'a Sym);

impl fmt::Display for Factor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Sym::Add(..) | Sym::Sub(..) | Sym::Mul(..) | Sym::FloorDiv(..) | Sym::Rem(..) | Sym::IfLe(..) => {
                write!(f, "({})", self.0)
            }
            s => write!(f, "{s}"),
        }
    }
}
