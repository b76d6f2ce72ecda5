//! Instructions of a kernel's text.

use super::super::lex::Token;
use super::super::print::MAP_NAMES;
use super::{Parser, Result};
use crate::ir::*;

impl Parser {
    /// An instruction's name: `map.fma` gives `map` and `fma`.
    fn mnemonic(&mut self) -> Result<(String, String)> {
        match self.next() {
            Token::Ident(s) => {
                let (a, b) = s.split_once('.').unwrap_or((&s, ""));
                Ok((a.to_string(), b.to_string()))
            }
            _ => self.error(1, "expected an instruction"),
        }
    }

    /// The bytes of one access in a mnemonic such as `sync.16`.
    fn width(&self, suffix: &str) -> Result<u32> {
        suffix
            .parse()
            .or_else(|_| self.error(1, "expected the bytes of one access, as in `.16`"))
    }

    pub(super) fn op(&mut self) -> Result<Op> {
        let (mnemonic, suffix) = self.mnemonic()?;
        Ok(match (mnemonic.as_str(), suffix.as_str()) {
            ("const", "f") => Op::ConstF(self.float()?),
            ("const", "i") => Op::ConstI(self.int()?),
            ("param", "") => Op::Param(self.param_id()?),
            ("cta", "") => Op::Cta,
            ("warp_in_role", "") => Op::WarpInRole,
            ("row_iota", "") => Op::RowIota,
            ("col_iota", "") => Op::ColIota,
            ("map", name) => {
                let Some((op, _)) = MAP_NAMES.into_iter().find(|(_, n)| *n == name) else {
                    return self.error(1, format!("there is no elementwise operation `{name}`"));
                };
                let mut args = vec![self.val()?];
                while self.eat(",") {
                    args.push(self.val()?);
                }
                Op::Map(op, args)
            }
            ("reduce", "sum") => Op::Reduce(ReduceOp::Sum, self.val()?),
            ("reduce", "max") => Op::Reduce(ReduceOp::Max, self.val()?),
            ("any", "") => Op::Any(self.val()?),
            ("mma", "") => {
                let acc = self.val()?;
                let (a, b) = self.operands()?;
                Op::Mma { acc, a, b }
            }
            ("mma_async", "") => {
                let acc = if self.eat_word("zero") { None } else { Some(self.val()?) };
                let (a, b) = self.operands()?;
                Op::MmaAsync { acc, a, b }
            }
            ("mma_wait", "") => {
                let of = self.val()?;
                self.word("pending")?;
                Op::MmaWait {
                    of,
                    pending: self.int()?,
                }
            }
            ("load_global", "") => {
                let (tensor, at) = self.element()?;
                let guard = self.guard()?;
                let fill = if self.eat_word("fill") { self.float()? } else { 0.0 };
                Op::LoadGlobal {
                    tensor,
                    at,
                    guard,
                    fill,
                }
            }
            ("load_shared", "") => Op::LoadShared(self.shared()?),
            _ => return self.error(1, "unknown instruction"),
        })
    }

    fn operands(&mut self) -> Result<(Operand, Operand)> {
        self.punct(",")?;
        let a = self.operand()?;
        self.punct(",")?;
        Ok((a, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.eat_word("trans") {
            return self.shared().map(Operand::SharedT);
        }
        match self.peek() {
            Token::Ident(s) if s.starts_with('s') => self.shared().map(Operand::Shared),
            _ => self.val().map(Operand::Reg),
        }
    }

    fn element(&mut self) -> Result<(ParamId, Index)> {
        let tensor = self.param_id()?;
        self.punct("[")?;
        Ok((tensor, self.list("]", Parser::val)?))
    }

    fn guard(&mut self) -> Result<Option<Val>> {
        if self.eat_word("guard") {
            self.val().map(Some)
        } else {
            Ok(None)
        }
    }

    fn shared(&mut self) -> Result<SharedView> {
        let buf = self.buf_id()?;
        self.punct("[")?;
        let slot = if self.eat_literal_zero() {
            None
        } else {
            Some(self.val()?)
        };
        self.punct(",")?;
        let row = if self.eat_literal_zero() {
            None
        } else {
            Some(self.val()?)
        };
        self.punct("+")?;
        let rows = self.int()?;
        self.punct(",")?;
        let col = self.int()?;
        self.punct("+")?;
        let cols = self.int()?;
        self.punct("]")?;
        Ok(SharedView {
            buf,
            slot,
            row,
            col,
            rows,
            cols,
        })
    }

    fn tile(&mut self) -> Result<GlobalTile> {
        let tensor = self.param_id()?;
        self.punct("[")?;
        let mut at = Vec::new();
        while !matches!(self.peek(), Token::Number(_)) {
            at.push(self.row_index()?);
            self.punct(",")?;
        }
        let col = self.int()?;
        self.punct("+")?;
        let cols = self.int()?;
        self.punct("]")?;
        self.word("rows")?;
        let first_row = self.val()?;
        self.punct("+")?;
        let rows = self.int()?;
        self.word("limit")?;
        Ok(GlobalTile {
            tensor,
            at,
            col,
            rows,
            cols,
            first_row,
            row_limit: self.val()?,
        })
    }

    fn row_index(&mut self) -> Result<RowIndex> {
        if self.eat_word("row") {
            if self.eat("/") {
                return Ok(RowIndex::RowDiv { by: self.val()? });
            }
            return Ok(RowIndex::Row);
        }
        let base = self.val()?;
        if !self.eat("+") {
            return Ok(RowIndex::Fixed(base));
        }
        self.word("row")?;
        self.punct("%")?;
        Ok(RowIndex::RowRem { by: self.val()?, base })
    }

    /// `m0[v1]`.
    fn mbar_slot(&mut self) -> Result<(MbarId, Val)> {
        let barrier = self.mbar_id()?;
        self.punct("[")?;
        let slot = self.val()?;
        self.punct("]")?;
        Ok((barrier, slot))
    }

    fn warps(&mut self) -> Result<u32> {
        self.word("warps")?;
        self.int()
    }

    pub(super) fn effect(&mut self) -> Result<Effect> {
        let (mnemonic, suffix) = self.mnemonic()?;
        let plain = suffix.is_empty();
        Ok(match mnemonic.as_str() {
            "copy" if plain => {
                let (kind, suffix) = self.mnemonic()?;
                let kind = match kind.as_str() {
                    "sync" => CopyKind::Sync {
                        bytes: self.width(&suffix)?,
                    },
                    "cp_async" => CopyKind::CpAsync {
                        bytes: self.width(&suffix)?,
                    },
                    "tma" if suffix.is_empty() => {
                        let (barrier, slot) = self.mbar_slot()?;
                        CopyKind::Tma { barrier, slot }
                    }
                    _ => return self.error(1, "expected `sync.N`, `cp_async.N` or `tma`"),
                };
                let dst = self.shared()?;
                self.punct("<-")?;
                Effect::Copy {
                    kind,
                    src: self.tile()?,
                    dst,
                }
            }
            "commit_group" if plain => Effect::CommitGroup,
            "wait_group" if plain => Effect::WaitGroup { pending: self.int()? },
            "barrier" if plain => Effect::Barrier {
                id: self.int()?,
                warps: self.warps()?,
            },
            "barrier_arrive" if plain => Effect::BarrierArrive {
                id: self.int()?,
                warps: self.warps()?,
            },
            "mbar_arrive" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                Effect::MbarArrive { barrier, slot }
            }
            "mbar_expect" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                self.word("bytes")?;
                Effect::MbarExpect {
                    barrier,
                    slot,
                    bytes: self.int()?,
                }
            }
            "mbar_wait" if plain => {
                let (barrier, slot) = self.mbar_slot()?;
                self.word("parity")?;
                Effect::MbarWait {
                    barrier,
                    slot,
                    parity: self.val()?,
                }
            }
            "fence_proxy_async" if plain => Effect::FenceProxyAsync,
            "mma_fence" if plain => Effect::MmaFence,
            "mma_commit" if plain => Effect::MmaCommit,
            "store_shared" if plain => {
                let dst = self.shared()?;
                self.punct("<-")?;
                Effect::StoreShared {
                    dst,
                    value: self.val()?,
                }
            }
            "store_global" if plain => {
                let (tensor, at) = self.element()?;
                self.punct("<-")?;
                let value = self.val()?;
                Effect::StoreGlobal {
                    tensor,
                    at,
                    guard: self.guard()?,
                    value,
                }
            }
            "store_tile" => {
                let bytes = self.width(&suffix)?;
                let dst = self.tile()?;
                self.punct("<-")?;
                Effect::StoreTile {
                    src: self.shared()?,
                    dst,
                    bytes,
                }
            }
            "tma_store" if plain => {
                let dst = self.tile()?;
                self.punct("<-")?;
                Effect::TmaStore {
                    src: self.shared()?,
                    dst,
                }
            }
            "tma_store_wait" if plain => Effect::TmaStoreWait { pending: self.int()? },
            "set_registers" if plain => Effect::SetRegisters { count: self.int()? },
            "assert" if plain => {
                let cond = self.val()?;
                match self.next() {
                    Token::Str(message) => Effect::Assert { cond, message },
                    _ => return self.error(1, "expected a message in quotes"),
                }
            }
            _ => return self.error(1, "unknown instruction"),
        })
    }
}
