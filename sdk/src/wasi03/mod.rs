//! WASI 0.3: `wasi:http/handler@0.3`, where a handler is an asynchronous export.

mod fetch;
mod request;
mod response;

use crate::{Handler, Request, Result, answer};

pub(crate) use fetch::fetch;
pub(crate) use request::Open;
pub(crate) use wasip3::http::types;

/// What the exported function needs; see [`__export!`](crate::__export).
pub(crate) mod exports {
    pub use super::request::{ignore, receive};
    pub use super::serve;
    pub use wasip3;
    pub use wasip3::http::types::{ErrorCode, Request as WasiRequest, Response as WasiResponse};
}

/// Answers one request. What remains of the body is sent after this has returned.
///
/// # Errors
///
/// Never: whatever fails becomes a response.
pub async fn serve<Kind>(
    handler: impl Handler<Kind>,
    request: Result<Request>,
) -> Result<types::Response, types::ErrorCode> {
    let response = answer::answer(handler, request).await;
    Ok(response::send(response))
}

/// Makes the handler the component's.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident, $take:ident) => {
        enum Exported {}

        impl $crate::__private::wasip3::exports::http::handler::Guest for Exported {
            async fn handle(
                request: $crate::__private::WasiRequest,
            ) -> ::core::result::Result<
                $crate::__private::WasiResponse,
                $crate::__private::ErrorCode,
            > {
                $crate::__private::serve($handler, $crate::__private::$take(request)).await
            }
        }

        $crate::__private::wasip3::http::service::export!(Exported);
    };
}
