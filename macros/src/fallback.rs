//! Errors, when there is no artifact to embed: the module is made all the same, so that one mistake is one error.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

/// What makes artifacts.
pub const COMMAND: &str = "drawloom prepare";

/// An error on a token.
pub fn error(span: Span, message: &str) -> TokenStream {
    quote_spanned!(span=> ::core::compile_error! { #message })
}

/// The one error of a spec without an artifact.
pub fn missing(span: Span, name: &str, reason: &str) -> TokenStream {
    let command = format!("run `{COMMAND}` in the crate's folder (in Drawloom's repository: `cargo xtask prepare`)");
    error(
        span,
        &format!("`{name}` has no compiled kernels: {reason}\nhelp: {command}"),
    )
}
