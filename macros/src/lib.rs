//! The `attn!` macro: a spec in, a typed launcher out. Use it through `drawloom::attn!`.
//!
//! The way: `input` (tokens to checked specs) → `resolve` (the artifact in `.drawloom/`) → `expand` (the module);
//! `fallback` makes the errors. No LLVM, no CUDA, no network, no process.

mod docs;
mod expand;
mod fallback;
mod input;
mod resolve;

use proc_macro2::TokenStream;

/// Checks attention specs, embeds their compiled kernels, and makes a module for each.
///
/// ```text
/// drawloom::attn! {
///     /// Causal attention.
///     pub attention causal {
///         type T in [f16, bf16];
///         axis b, h, i: query(end), j: key, d in [64, 128];
///         input q: T[b, h, i, d], k: T[b, h, j, d], v: T[b, h, j, d];
///         attend o over j in (k, v) { score = dot(q, k) * rsqrt(len(d)); mask = causal; norm = softmax; }
///         output o: T[b, h, i, d];
///     }
/// }
/// ```
///
/// Or `attn!(file = "specs/causal.attn")`, a path from the crate's folder. `crate = path;` (with a file: `crate = path,`)
/// in front names the `drawloom` crate where it is not `::drawloom`; the path must hold in a module inside, so begin it
/// with `::`, `crate` or `$crate`.
///
/// The module has `Args` (the arguments, named and typed), `load` (kernels into a context), `Operator` (with `workspace`
/// and `launch`), `Max` (sizes for a workspace) and `cpu` (the CPU form, which needs no kernels). Kernels come from
/// `.drawloom/` in the crate's folder, where `drawloom prepare` puts them; without them there is one error that says so.
#[proc_macro]
pub fn attn(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    attn_tokens(input.into()).into()
}

/// [`attn`] on tokens that tests can make.
fn attn_tokens(input: TokenStream) -> TokenStream {
    match input::read(input) {
        Ok(call) => call
            .specs
            .iter()
            .map(|spec| expand::module(&call, spec))
            .chain([call.tracked()])
            .collect(),
        Err(errors) => errors,
    }
}

#[cfg(test)]
mod tests;
