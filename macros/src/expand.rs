//! The module of a spec: arguments, sizes, launcher, CPU form, and their documentation.

use crate::docs::{docs, output_doc, shape};
use crate::fallback;
use crate::input::Call;
use crate::resolve::{self, Found};
use drawloom_lang::canonical;
use drawloom_lang::spec::{AxisSize, Dtype, ElemType, Spec};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{format_ident, quote};

/// The module of a spec, with its error if it has no artifact.
pub fn module(call: &Call, spec: &Spec) -> TokenStream {
    let krate = &call.krate;
    let found = resolve::artifact(spec);
    let (embedded, manifest, error) = match &found {
        Found::Artifact(manifest, path) => {
            let json = resolve::embed(&format!("{path}.json"), &quote!(include_str));
            let payload = resolve::embed(&format!("{path}.bin"), &quote!(include_bytes));
            (
                quote!(::core::option::Option::Some((#json, #payload))),
                Some(&**manifest),
                None,
            )
        }
        Found::Recorded => (quote!(::core::option::Option::None), None, None),
        Found::Missing(reason) => {
            let error = fallback::missing(call.span(spec.span), &spec.name, reason);
            (quote!(::core::option::Option::None), None, Some(error))
        }
    };
    let visibility: TokenStream = spec.visibility.parse().unwrap_or_default();
    let module = ident(&spec.name);
    let docs = docs(spec, manifest);
    let (name, text, command) = (&spec.name, canonical(spec), fallback::COMMAND);
    let sets = sets(spec, krate);
    let (args, max, operator) = (args(spec, krate), max(spec), operator(spec, krate));
    quote! {
        #error
        #[doc = #docs]
        #visibility mod #module {
            /// The operator: its spec, and its kernels if they were prepared.
            pub static OPERATOR: #krate::Embedded = #krate::Embedded::new(#name, #text, #embedded, #command);
            #sets
            #args
            #max
            #operator
        }
    }
}

/// A name of the spec as an identifier of Rust.
fn ident(name: &str) -> Ident {
    syn::parse_str::<Ident>(name).unwrap_or_else(|_| Ident::new_raw(name, Span::call_site()))
}

/// The generic parameters of a spec: one per type set.
struct Generics {
    names: Vec<Ident>,
    bounds: Vec<Ident>,
}

impl Generics {
    fn of(spec: &Spec) -> Generics {
        Generics {
            names: spec.types.iter().map(|set| ident(&set.name)).collect(),
            bounds: spec.types.iter().map(|set| bound(&set.name)).collect(),
        }
    }

    /// `T: IsT, U: IsU`.
    fn declared(&self) -> TokenStream {
        let Generics { names, bounds } = self;
        quote!(#(#names: #bounds),*)
    }

    /// `T, U`.
    fn named(&self) -> TokenStream {
        let names = &self.names;
        quote!(#(#names),*)
    }
}

fn bound(set: &str) -> Ident {
    format_ident!("Is{}", set)
}

/// A trait per type set, which its members have.
fn sets(spec: &Spec, krate: &TokenStream) -> TokenStream {
    spec.types
        .iter()
        .map(|set| {
            let name = bound(&set.name);
            let members = set.members.iter().map(|member| rust_type(*member, krate));
            let list = set
                .members
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let doc = format!("Members of the type set `{}`: {list}.", set.name);
            let message = format!("`{{Self}}` is not in the type set `{}` of `{}`", set.name, spec.name);
            let label = format!("expected one of {list}");
            quote! {
                #[doc = #doc]
                #[diagnostic::on_unimplemented(message = #message, label = #label)]
                pub trait #name: #krate::Element {}
                #(impl #name for #members {})*
            }
        })
        .collect()
}

fn rust_type(dtype: Dtype, krate: &TokenStream) -> TokenStream {
    match dtype {
        Dtype::F16 => quote!(#krate::half::f16),
        Dtype::Bf16 => quote!(#krate::half::bf16),
        Dtype::F32 => quote!(::core::primitive::f32),
        Dtype::I32 => quote!(::core::primitive::i32),
    }
}

fn element(spec: &Spec, ty: ElemType, krate: &TokenStream) -> TokenStream {
    match ty {
        ElemType::Fixed(dtype) => rust_type(dtype, krate),
        ElemType::Set(set) => {
            let name = ident(&spec.types[set.index()].name);
            quote!(#name)
        }
    }
}

/// The arguments' struct.
fn args(spec: &Spec, krate: &TokenStream) -> TokenStream {
    let generics = Generics::of(spec).named();
    let inputs = spec.inputs.iter().map(|input| {
        let (name, ty) = (ident(&input.name), element(spec, input.ty, krate));
        let rank = Literal::usize_unsuffixed(input.axes.len());
        let sorted = if input.sorted {
            ", not decreasing along its last axis"
        } else {
            ""
        };
        let doc = format!("Input `{}`{sorted}.", shape(spec, input.ty, &input.axes));
        quote!(#[doc = #doc] pub #name: #krate::Tensor<'a, #ty, #rank>)
    });
    let scalars = spec.scalars.iter().map(|scalar| {
        let (name, ty) = (ident(&scalar.name), rust_type(scalar.ty, krate));
        quote!(#[doc = "Run-time scalar."] pub #name: #ty)
    });
    let outputs = spec.outputs.iter().map(|output| {
        let (name, ty) = (ident(&output.name), element(spec, output.ty, krate));
        let rank = Literal::usize_unsuffixed(output.axes.len());
        let doc = format!(
            "{} `{}`.",
            output_doc(output.value),
            shape(spec, output.ty, &output.axes)
        );
        quote!(#[doc = #doc] pub #name: #krate::TensorMut<'a, #ty, #rank>)
    });
    quote! {
        /// The arguments. Any strides, the last axis contiguous; outputs overlap nothing.
        pub struct Args<'a, #generics> {
            #(#inputs,)*
            #(#scalars,)*
            #(#outputs,)*
        }
    }
}

/// Axes whose size a workspace is made for: run-time ones, and those with several compiled sizes.
fn open_axes(spec: &Spec) -> impl Iterator<Item = &str> {
    spec.axes.iter().filter_map(|axis| match &axis.size {
        AxisSize::Runtime => Some(axis.name.as_str()),
        AxisSize::OneOf(sizes) if sizes.len() > 1 => Some(axis.name.as_str()),
        AxisSize::OneOf(_) | AxisSize::Grouped { .. } => None,
    })
}

/// The struct of largest sizes.
fn max(spec: &Spec) -> TokenStream {
    let fields = open_axes(spec).map(|axis| {
        let name = ident(axis);
        let doc = format!("Largest size of axis `{axis}`.");
        quote!(#[doc = #doc] pub #name: ::core::primitive::usize)
    });
    quote! {
        /// The largest sizes that a workspace must do for.
        #[derive(Clone, Copy, Debug)]
        pub struct Max {
            #(#fields,)*
        }
    }
}

/// The loaded operator, `load` and `cpu`.
fn operator(spec: &Spec, krate: &TokenStream) -> TokenStream {
    let generics = Generics::of(spec);
    let (declared, named) = (generics.declared(), generics.named());
    // A type that has all parameters, none among them.
    let tuple = match generics.names.as_slice() {
        [] => quote!(()),
        names => quote!((#(#names,)*)),
    };
    let dtypes = generics
        .names
        .iter()
        .map(|name| quote!(<#name as #krate::Element>::DTYPE));
    let inputs: Vec<Ident> = spec.inputs.iter().map(|input| ident(&input.name)).collect();
    let scalars: Vec<Ident> = spec.scalars.iter().map(|scalar| ident(&scalar.name)).collect();
    let outputs: Vec<Ident> = spec.outputs.iter().map(|output| ident(&output.name)).collect();
    let limits = open_axes(spec).map(|axis| {
        let name = ident(axis);
        quote!((#axis, max.#name))
    });
    let inputs = quote!(&[#(&self.#inputs),*]);
    let scalars = quote!(&[#(#krate::Scalar::from(self.#scalars)),*]);
    let outputs = quote!([#(&mut self.#outputs as &mut dyn #krate::Output),*]);
    let result = |ok: TokenStream| quote!(::core::result::Result<#ok, #krate::Error>);
    let (result_operator, result_workspace, result_unit) = (
        result(quote!(Operator<#named>)),
        result(quote!(#krate::Workspace)),
        result(quote!(())),
    );
    let result_arguments = result(quote!(#krate::Arguments<'_>));
    let stream = quote!(&::std::sync::Arc<#krate::cudarc::driver::CudaStream>);
    quote! {
        /// The operator, loaded in a context.
        pub struct Operator<#named> {
            loaded: #krate::Loaded,
            types: ::core::marker::PhantomData<fn() -> #tuple>,
        }

        /// Loads the kernels: errors of the device and of its compiler show here, with the compiler's log.
        ///
        /// # Errors
        /// No code for the device, or the driver refuses.
        pub fn load<#declared>(context: &::std::sync::Arc<#krate::cudarc::driver::CudaContext>) -> #result_operator {
            let loaded = OPERATOR.load(context, &[#(#dtypes),*])?;
            ::core::result::Result::Ok(Operator { loaded, types: ::core::marker::PhantomData })
        }

        impl<#declared> Args<'_, #named> {
            /// The arguments as launchers take them, for `drawloom::Loaded::launch_captured`.
            ///
            /// # Errors
            /// None of its own: names and numbers are those of the spec.
            pub fn arguments(&mut self) -> #result_arguments {
                #krate::Arguments::positional(OPERATOR.operator()?, #inputs, #scalars, #outputs)
            }
        }

        impl<#declared> Operator<#named> {
            /// Scratch memory for every call with sizes up to `max`.
            ///
            /// # Errors
            /// Sizes that were not compiled, or memory is short.
            pub fn workspace(&self, stream: #stream, max: Max) -> #result_workspace {
                self.loaded.workspace(stream, &[#(#limits),*])
            }

            /// Checks everything, then launches. Nothing is allocated, copied or waited for.
            ///
            /// # Errors
            /// Whatever is wrong with the arguments; nothing was launched then.
            pub fn launch(
                &self,
                stream: #stream,
                mut args: Args<'_, #named>,
                workspace: &mut #krate::Workspace,
            ) -> #result_unit {
                self.loaded.launch(stream, args.arguments()?, workspace)
            }

            /// What is loaded: its device, manifest and spec.
            pub fn loaded(&self) -> &#krate::Loaded {
                &self.loaded
            }
        }

        /// The CPU form, on host memory. Needs no kernels and no GPU.
        ///
        /// # Errors
        /// Whatever is wrong with the arguments.
        pub fn cpu<#declared>(mut args: Args<'_, #named>) -> #result_unit {
            OPERATOR.cpu(args.arguments()?)
        }
    }
}
