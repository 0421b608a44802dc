//! The platform when there is none: unit tests on the host. Nothing arrives from outside here.

/// Makes the handler the component's. Only a component has something to export.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident, $take:ident) => {};
}

/// There is nobody to send a request.
pub(crate) async fn fetch(_: crate::Request) -> crate::Result<crate::Response> {
    let why = "a request can only be sent by a function that runs on a server";
    Err(crate::Error::status(502, "an upstream server gave no answer").with_cause(why))
}
