//! Spans and diagnostics.

/// A range in the source of a spec, by token: byte offsets into the file for `.attn` files, and the token's own
/// `proc_macro2::Span` for macros (kept aside in [`Span::token`]).
#[derive(Clone, Copy)]
pub struct Span {
    /// First byte (files), or 0.
    pub lo: u32,
    /// One past the last byte (files), or 0.
    pub hi: u32,
    /// The compiler's span, for errors in macros.
    pub token: proc_macro2::Span,
}

impl PartialEq for Span {
    /// Spans never make two specs differ.
    fn eq(&self, _: &Span) -> bool {
        true
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.lo, self.hi)
    }
}
