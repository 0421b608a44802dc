//! The platform when there is none: unit tests on the host. Nothing arrives from outside here.

/// Makes the handler the component's. Only a component has something to export.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident, $take:ident) => {};
}
