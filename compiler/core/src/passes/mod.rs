//! Kernel to kernel: a synchronous tile program becomes an overlapped one.
//!
//! [`overlapped`] is the order of the passes; each says in its own documentation why it stands where it stands.

pub mod budget;
pub mod dead;
pub mod overlap;
mod pipe;
pub mod pipeline;
pub mod rename;
pub mod specialise;

use crate::lower::Unsupported;
use crate::schedule::{Fetch, Schedule};
use drawloom_kernel::ir::Kernel;

/// What a pass writes into its kernel.
type Code<'k> = drawloom_kernel::code::Code<&'k mut Kernel>;

/// Runs the passes that a schedule asks for.
///
/// # Errors
/// [`Unsupported`] for programs that a pass has no form for.
pub fn overlapped(kernel: Kernel, schedule: &Schedule) -> Result<Kernel, Unsupported> {
    match schedule.fetch {
        Fetch::Together => pipeline::pipeline(kernel),
        Fetch::Producer => {
            let mut kernel = dead::eliminate(specialise::specialise(kernel)?);
            budget::divide(&mut kernel);
            Ok(kernel)
        }
    }
}
