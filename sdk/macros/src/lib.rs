//! The attribute macro of `faas-sdk`, which re-exports and documents it. Not for use by itself.

mod function;

use proc_macro::TokenStream;

/// Makes the function below it the handler of this component. See `faas_sdk::function`.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(arguments.into(), item.into()).into()
}
