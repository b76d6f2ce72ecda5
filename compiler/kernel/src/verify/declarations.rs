//! Parameters, buffers, mbarriers and roles.

use super::Checker;
use crate::ir::*;

/// Checks everything that stands before the statements.
pub(super) fn check(c: &mut Checker) {
    let k = c.kernel;
    c.require(is_identifier(&k.name), || {
        format!("kernel name `{}` is not an identifier", k.name)
    });
    unique(c, "parameter", k.params.iter().map(|p| p.name.as_str()));
    unique(c, "buffer", k.buffers.iter().map(|b| b.name.as_str()));
    unique(c, "mbarrier", k.mbarriers.iter().map(|m| m.name.as_str()));
    unique(c, "role", k.roles.iter().map(|r| r.name.as_str()));
    for (i, p) in k.params.iter().enumerate() {
        param(c, ParamId(i as u32), p);
    }
    buffers(c);
    for (i, m) in k.mbarriers.iter().enumerate() {
        let id = MbarId(i as u32);
        c.require(m.slots > 0 && m.arrivals > 0, || {
            format!("{id} has no slots or no arrivals")
        });
    }
    roles(c);
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn unique<'n>(c: &mut Checker, what: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        c.require(is_identifier(name), || {
            format!("{what} name `{name}` is not an identifier")
        });
        c.require(seen.insert(name), || format!("{what} name `{name}` is used twice"));
    }
}

fn param(c: &mut Checker, id: ParamId, p: &Param) {
    match &p.kind {
        ParamKind::Scalar { dtype } => {
            let allowed = matches!(dtype, Dtype::I32 | Dtype::I64 | Dtype::F32);
            c.require(allowed, || {
                format!("scalar {id} is {}, but must be i32, i64 or f32", dtype.name())
            });
        }
        ParamKind::Tensor { dtype, axes, .. } => {
            c.require(*dtype != Dtype::Bool, || {
                format!("tensor {id} is bool, which is not a memory type")
            });
            c.require(!axes.is_empty(), || format!("tensor {id} has no axes"));
            for axis in axes {
                if let Extent::Param(e) = axis {
                    let kind = c.kernel.params.get(e.index()).map(|p| &p.kind);
                    let fits = matches!(kind, Some(ParamKind::Scalar { dtype: Dtype::I32 }));
                    c.require(fits, || {
                        format!("the extent {e} of tensor {id} is not an i32 scalar parameter")
                    });
                }
            }
        }
    }
}

fn buffers(c: &mut Checker) {
    let k = c.kernel;
    // Storage sizes, computed wide: a hostile size must not wrap.
    let bytes =
        |b: &Buffer| u128::from(b.slots) * u128::from(b.rows) * u128::from(b.cols) * u128::from(b.dtype.bytes().max(1));
    let mut storage: Vec<u128> = Vec::new();
    let mut end = 0u128;
    for (i, b) in k.buffers.iter().enumerate() {
        let id = BufId(i as u32);
        c.require(b.dtype != Dtype::Bool, || {
            format!("{id} is bool, which is not a memory type")
        });
        c.require(b.slots > 0 && b.rows > 0 && b.cols > 0, || format!("{id} is empty"));
        let row_bytes = u64::from(b.cols) * u64::from(b.dtype.bytes());
        match b.layout {
            BufferLayout::Rows => {}
            BufferLayout::Swizzled => c.require(row_bytes % 16 == 0, || {
                format!("{id} is swizzled, but its rows of {row_bytes} bytes are not whole 16-byte chunks")
            }),
            BufferLayout::Panels => {
                c.require(b.panel_bytes().is_some(), || {
                    format!(
                        "{id} lies in panels, but no panel of 128, 64 or 32 bytes divides its rows of {row_bytes} bytes"
                    )
                });
                c.require(b.rows % 8 == 0, || {
                    format!("{id} lies in panels, but its {} rows are no multiple of 8", b.rows)
                });
            }
        }
        let own = bytes(b);
        match b.alias {
            None => {
                end = end.next_multiple_of(1024) + own;
                storage.push(own);
            }
            Some(a) if a.index() >= i => {
                c.error(format!("{id} aliases {a}, which is not an earlier buffer"));
                storage.push(own);
            }
            Some(a) => {
                let shared = storage[a.index()];
                c.require(own <= shared, || {
                    format!("{id} has {own} bytes, but aliases the {shared} bytes of {a}")
                });
                storage.push(shared);
            }
        }
    }
    let slots: u128 = k.mbarriers.iter().map(|m| u128::from(m.slots)).sum();
    let total = u64::try_from(end.next_multiple_of(8) + 8 * slots).unwrap_or(u64::MAX);
    let t = c.target;
    c.limit("shared memory of a CTA", "bytes", total, u64::from(t.cta_shared_bytes));
}

fn roles(c: &mut Checker) {
    let (k, t) = (c.kernel, c.target);
    c.require(k.min_ctas > 0, || "min_ctas is 0, but must be at least 1".to_string());
    c.require(!k.roles.is_empty(), || "the kernel has no role".to_string());
    let warps: u64 = k.roles.iter().map(|r| u64::from(r.warps)).sum();
    c.limit("warps of a CTA", "warps", warps, u64::from(t.cta_warps));
    let (mut registers, mut budgeted, mut first) = (0u64, false, 0u64);
    for r in &k.roles {
        let name = &r.name;
        c.require(r.warps > 0, || format!("role `{name}` has no warps"));
        if let Some(n) = r.registers {
            budgeted = true;
            c.require(t.set_registers, || {
                format!("role `{name}` has a register budget, which {} has not", t.name)
            });
            check_registers(c, n);
            c.require(r.warps % 4 == 0 && first % 4 == 0, || {
                format!("role `{name}` has a register budget, but is not made of whole warpgroups of 4 warps")
            });
        }
        registers += u64::from(r.warps) * 32 * u64::from(r.registers.unwrap_or(0));
        first += u64::from(r.warps);
    }
    if budgeted {
        let together = registers.saturating_mul(u64::from(k.min_ctas));
        c.limit(
            "register budgets of `min_ctas` CTAs",
            "registers",
            together,
            u64::from(t.sm_registers),
        );
    }
}

/// Checks a register budget per thread.
pub(super) fn check_registers(c: &mut Checker, n: u32) {
    c.require(n.is_multiple_of(8) && (24..=256).contains(&n), || {
        format!("a register budget is a multiple of 8 in 24..=256, not {n}")
    });
}
