//! `#[function]` as a pure function from tokens to tokens.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, FnArg, ItemFn, Pat, Result, ReturnType, Signature};

/// How a handler looks, for messages.
const EXAMPLE: &str = "async fn handle(request: Request) -> Result<Response>";

/// The item, unchanged, and what exports it. If it cannot be a handler: the item and the reason,
/// so that there is one error and not a second one about a missing function.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match parse(arguments, item.clone()) {
        Ok(function) => export(&function),
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #item #error }
        }
    }
}

fn parse(arguments: TokenStream, item: TokenStream) -> Result<ItemFn> {
    if !arguments.is_empty() {
        let message = "`#[function]` takes no arguments: \
            routes stand in `faas.toml` or in a `faas_sdk::Router`";
        return Err(Error::new_spanned(arguments, message));
    }
    let function: ItemFn = syn::parse2(item).map_err(|error| {
        let message = format!("`#[function]` belongs above a function: `{EXAMPLE}`");
        Error::new(error.span(), message)
    })?;
    check(&function.sig)?;
    Ok(function)
}

fn check(signature: &Signature) -> Result<()> {
    if !signature.generics.params.is_empty() {
        let message = "a handler cannot be generic: the server would not know for what to call it";
        return Err(Error::new_spanned(&signature.generics, message));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        let message = format!("a handler is a free function, outside any `impl`: `{EXAMPLE}`");
        return Err(Error::new_spanned(receiver, message));
    }
    match signature.inputs.len() {
        1 => {}
        0 => {
            let message =
                format!("a handler takes the request, even if it ignores it: `{EXAMPLE}`");
            return Err(Error::new(signature.paren_token.span.join(), message));
        }
        _ => {
            let message = format!("a handler takes the request and nothing else: `{EXAMPLE}`");
            return Err(Error::new_spanned(&signature.inputs, message));
        }
    }
    if let ReturnType::Default = signature.output {
        let message = format!("a handler answers something: `{EXAMPLE}`");
        return Err(Error::new_spanned(signature, message));
    }
    Ok(())
}

fn export(function: &ItemFn) -> TokenStream {
    let name = &function.sig.ident;
    let check = if function.sig.asyncness.is_some() {
        quote! { check_async }
    } else {
        quote! { check_plain }
    };
    // What can still be wrong are the types, so messages shall point at the answer's.
    let span = match &function.sig.output {
        ReturnType::Type(_, answer) => answer.span(),
        ReturnType::Default => name.span(),
    };
    let named = Ident::new(&name.to_string(), span.resolved_at(name.span()));
    let check = quote_spanned! { span => ::faas_sdk::__private::#check(&#named) };
    let take = if ignores_request(&function.sig) {
        quote! { ignore }
    } else {
        quote! { receive }
    };
    quote! {
        #function

        const _: () = {
            #check;
            ::faas_sdk::__export!(#name, #take);
        };
    }
}

/// Whether the handler provably never looks at the request: then the host need not be asked for
/// it, which is a good part of the work of a small function.
fn ignores_request(signature: &Signature) -> bool {
    let argument = signature.inputs.first();
    matches!(argument, Some(FnArg::Typed(argument)) if matches!(*argument.pat, Pat::Wild(_)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Compares with `tests/expand/<name>.rs`; with `UPDATE=1`, writes it.
    fn snapshot(name: &str, arguments: &str, item: &str) {
        let tokens = expand(arguments.parse().unwrap(), item.parse().unwrap());
        let file = syn::parse2(tokens).unwrap();
        let found = prettyplease::unparse(&file);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expand").join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, expected, "run again with UPDATE=1 if this is meant");
    }

    #[test]
    fn an_async_function() {
        let item = "
            /// Says hello.
            #[cfg_attr(test, allow(unused))]
            pub async fn hello(_request: Request) -> Result<Response> { answer(\"hello\") }
        ";
        snapshot("async.rs", "", item);
    }

    #[test]
    fn a_plain_function() {
        snapshot("plain.rs", "", "fn hello(_: Request) -> &'static str { \"hello\" }");
    }

    #[test]
    fn a_mistake_keeps_the_item() {
        snapshot("mistake.rs", "", "async fn hello() -> Result<Response> { answer(\"hello\") }");
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let message = |arguments: &str, item: &str| {
            parse(arguments.parse().unwrap(), item.parse().unwrap()).err().unwrap().to_string()
        };
        let good = "fn f(request: Request) -> Response {}";
        assert!(message("path = \"/\"", good).contains("takes no arguments"));
        for (item, expected) in [
            ("struct S;", "belongs above a function"),
            ("fn f<T>(request: T) -> Response {}", "cannot be generic"),
            ("fn f(self) -> Response {}", "a free function"),
            ("fn f() -> Response {}", "takes the request, even"),
            ("fn f(request: Request, more: u8) -> Response {}", "nothing else"),
            ("fn f(request: Request) {}", "answers something"),
        ] {
            let found = message("", item);
            assert!(found.contains(expected), "{item}: {found}");
        }
    }
}
