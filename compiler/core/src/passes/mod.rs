//! Kernel to kernel: a synchronous tile program becomes an overlapped one.

pub mod pipeline;
