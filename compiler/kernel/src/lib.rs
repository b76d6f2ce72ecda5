//! Tile programs: the level on which a kernel is said warp by warp, copy by copy and barrier by barrier.
//!
//! In: a [`Kernel`](ir::Kernel), from the lowering, a pass, or [`text::parse`]. Out: its text, the list of what is wrong
//! with it ([`verify`]), or what a launch of it does on a machine without a GPU ([`interp`]).
pub mod code;
pub mod interp;
pub mod ir;
pub mod target;
pub mod text;
pub mod verify;
