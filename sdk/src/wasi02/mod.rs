//! WASI 0.2: `wasi:http/incoming-handler@0.2`, where a handler is a plain export that waits by
//! polling.

mod fetch;
mod reactor;
mod request;
mod response;

use wasip2::http::types::ResponseOutparam;

use crate::{Handler, Request, Result, answer};

pub(crate) use fetch::fetch;
pub(crate) use wasip2::http::types;

/// What the exported function needs; see [`__export!`](crate::__export).
pub(crate) mod exports {
    pub use super::request::{ignore, receive};
    pub use super::serve;
    pub use wasip2;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};
}

/// Answers one request, and returns when its body is sent.
pub fn serve<Kind>(
    handler: impl Handler<Kind>,
    request: Result<Request>,
    outparam: ResponseOutparam,
) {
    reactor::block_on(async {
        let response = answer::answer(handler, request).await;
        response::send(response, outparam).await;
    });
}

/// Makes the handler the component's.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident, $take:ident) => {
        enum Exported {}

        impl $crate::__private::wasip2::exports::http::incoming_handler::Guest for Exported {
            fn handle(
                request: $crate::__private::IncomingRequest,
                outparam: $crate::__private::ResponseOutparam,
            ) {
                $crate::__private::serve($handler, $crate::__private::$take(request), outparam)
            }
        }

        $crate::__private::wasip2::http::proxy::export!(Exported);
    };
}
