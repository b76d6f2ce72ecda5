//! The mask analysis against brute force: soundness for every mask, tightness for the named patterns.

mod exhaustive;
mod mask;
mod random;
mod text;
