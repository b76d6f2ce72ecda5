//! The `attn!` macro.
