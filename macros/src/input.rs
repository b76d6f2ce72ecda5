//! What a call says: specs in its tokens, or the name of a file that has them.

use crate::fallback;
use crate::resolve;
use drawloom_lang::{Span, Spec, TokenSpans};
use proc_macro2::{Literal, TokenStream, TokenTree};
use quote::quote;

/// A call, checked.
pub struct Call {
    /// Its specs.
    pub specs: Vec<Spec>,
    /// The path of the `drawloom` crate.
    pub krate: TokenStream,
    /// Where the specs stand.
    pub place: Place,
}

/// Where specs stand.
pub enum Place {
    /// In the call's own tokens.
    Tokens(TokenSpans),
    /// In a file: the tokens of its name, and the name.
    File(Literal, String),
}

impl Call {
    /// The compiler's span for errors about a spec as a whole.
    pub fn span(&self, span: Span) -> proc_macro2::Span {
        match &self.place {
            Place::Tokens(spans) => spans.ends(span).0,
            Place::File(literal, _) => literal.span(),
        }
    }

    /// Tokens that make cargo rebuild the crate when the file changes, or what the macro is to do.
    pub fn tracked(&self) -> TokenStream {
        let record = quote!(
            const _: ::core::option::Option<&str> = ::core::option_env!("DRAWLOOM_RECORD");
        );
        match &self.place {
            Place::Tokens(_) => record,
            Place::File(_, path) => {
                let text = resolve::embed(path, &quote!(include_str));
                quote!(#record const _: &str = #text;)
            }
        }
    }
}

/// Reads and checks a call.
///
/// # Errors
/// All errors at once, as `compile_error!` items on the tokens that cause them.
pub fn read(input: TokenStream) -> Result<Call, TokenStream> {
    if let Some((krate, literal)) = file(&input) {
        return read_file(krate, literal);
    }
    let call = drawloom_lang::parse_tokens(input).map_err(|errors| errors.to_compile_error())?;
    Ok(Call {
        specs: call.specs,
        krate: path(call.krate),
        place: Place::Tokens(call.spans),
    })
}

fn path(krate: Option<TokenStream>) -> TokenStream {
    krate.unwrap_or_else(|| quote!(::drawloom))
}

/// `file = "…"`, perhaps after `crate = path,` or `crate = path;`, and perhaps with a comma at the end.
fn file(input: &TokenStream) -> Option<(Option<TokenStream>, Literal)> {
    let is = |tree: &TokenTree, mark: char| matches!(tree, TokenTree::Punct(punct) if punct.as_char() == mark);
    let trees: Vec<TokenTree> = input.clone().into_iter().collect();
    let mut rest = trees.as_slice();
    let mut krate = None;
    if let [TokenTree::Ident(word), equals, after @ ..] = rest
        && word == "crate"
        && is(equals, '=')
    {
        let end = after.iter().position(|tree| is(tree, ',') || is(tree, ';'))?;
        krate = Some(after[..end].iter().cloned().collect());
        rest = &after[end + 1..];
    }
    let [TokenTree::Ident(word), equals, TokenTree::Literal(literal), rest @ ..] = rest else {
        return None;
    };
    let ends = rest.is_empty() || (rest.len() == 1 && is(&rest[0], ','));
    (word == "file" && is(equals, '=') && ends).then(|| (krate, literal.clone()))
}

fn read_file(krate: Option<TokenStream>, literal: Literal) -> Result<Call, TokenStream> {
    let name = syn::parse2::<syn::LitStr>(TokenTree::from(literal.clone()).into())
        .map_err(|_| fallback::error(literal.span(), &format!("expected a path in quotes, found {literal}")))?
        .value();
    let text = resolve::read_to_string(&name).map_err(|reason| {
        fallback::error(
            literal.span(),
            &format!("`{name}`, from the crate's folder, cannot be read: {reason}"),
        )
    })?;
    let specs = drawloom_lang::parse_str(&name, &text)
        .map_err(|errors| fallback::error(literal.span(), &format!("`{name}` has errors\n{errors}")))?;
    Ok(Call {
        specs,
        krate: path(krate),
        place: Place::File(literal, name),
    })
}
