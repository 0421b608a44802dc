//! WASI 0.3: `wasi:http/handler@0.3`, where a handler is an asynchronous export.

mod background;
mod request;
mod response;

use wasip3::http::types;

use crate::{Handler, answer};

pub(crate) use request::Incoming;

/// What the exported function needs; see [`__export!`](crate::__export).
pub mod exports {
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
    request: types::Request,
) -> Result<types::Response, types::ErrorCode> {
    let response = answer::answer(handler, request::receive(request)).await;
    Ok(response::send(response))
}

/// Makes the handler the component's.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($handler:ident) => {
        enum Exported {}

        impl $crate::__private::wasip3::exports::http::handler::Guest for Exported {
            async fn handle(
                request: $crate::__private::WasiRequest,
            ) -> ::core::result::Result<
                $crate::__private::WasiResponse,
                $crate::__private::ErrorCode,
            > {
                $crate::__private::serve($handler, request).await
            }
        }

        $crate::__private::wasip3::http::service::export!(Exported);
    };
}
