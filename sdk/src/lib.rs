//! Write functions for faas in Rust.
//!
//! ```
//! use faas_sdk::{Request, Response, Result};
//!
//! #[faas_sdk::function]
//! async fn handle(request: Request) -> Result<Response> {
//!     Ok(Response::new(format!("Hello from {}!\n", request.uri().path()).into()))
//! }
//! ```
//!
//! A function is a library crate of type `cdylib` with one such handler:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! `cargo build --release --target wasm32-wasip2` makes it a WebAssembly component, and
//! `faas deploy` puts it on a server. Each request runs in its own fresh instance: a `static`
//! never carries anything over from one request to the next.
//!
//! # What a handler takes and gives
//!
//! [`Request`] and [`Response`] are the types of the [`http`] crate with this crate's [`Body`].
//! Instead of a [`Response`], a handler may answer anything that is [`IntoResponse`]: a string, a
//! status code, [`Json`], a pair of status and answer, or a [`Result`] of these. A handler that has
//! nothing to wait for may be a plain `fn`.
//!
//! # When something fails
//!
//! `?` turns any error into [`Error`]. The client then sees a plain 500 and nothing else; the detail
//! goes to stderr, which is the function's log. [`Error::status`] answers with a status and a
//! message meant for the client.
//!
//! # Bodies
//!
//! A [`Body`] streams. Read it whole and with a limit ([`Body::bytes`], [`Body::text`],
//! [`Body::json`]) or piece by piece ([`Body::chunk`]). Make one of a string or bytes, of a stream
//! ([`Body::from_stream`]), or write it while the answer is already on its way
//! ([`Body::from_writer`]).
//!
//! # Asking others
//!
//! [`fetch()`] sends a request to a server that the manifest grants, or to another function of the
//! app, and streams both bodies.
//!
//! # Tests
//!
//! Handlers are ordinary functions, and the crate compiles on the host, so `cargo test` works
//! without a server. See [`testing`].
//!
//! # Which WASI
//!
//! The function speaks WASI 0.3. Where only WASI 0.2 is available, change one line and no code:
//!
//! ```toml
//! faas-sdk = { version = "0.1", default-features = false, features = ["wasi02"] }
//! ```

mod body;
mod error;
mod fetch;
mod handler;
mod percent;
mod request;
mod respond;
mod router;
pub mod testing;
mod writer;

#[cfg(any(target_family = "wasm", test))]
mod answer;
#[cfg(any(all(target_family = "wasm", feature = "wasi03", not(feature = "wasi02")), test))]
mod background;
#[cfg(target_family = "wasm")]
mod convert;
#[cfg(any(target_family = "wasm", test))]
mod pump;

#[cfg(not(target_family = "wasm"))]
#[path = "native.rs"]
mod platform;
#[cfg(all(target_family = "wasm", feature = "wasi02"))]
#[path = "wasi02/mod.rs"]
mod platform;
#[cfg(all(target_family = "wasm", feature = "wasi03", not(feature = "wasi02")))]
#[path = "wasi03/mod.rs"]
mod platform;

#[cfg(all(target_family = "wasm", feature = "wasi02", feature = "wasi03"))]
compile_error!(
    "faas-sdk: choose one WASI: the feature `wasi02` needs `default-features = false` beside it"
);
#[cfg(all(target_family = "wasm", not(any(feature = "wasi02", feature = "wasi03"))))]
compile_error!("faas-sdk: choose a WASI: enable the feature `wasi03` (the default) or `wasi02`");
#[cfg(all(target_family = "wasm", any(not(target_os = "wasi"), target_env = "p1")))]
compile_error!("faas-sdk: functions are components: build with `--target wasm32-wasip2`");

pub use body::Body;
pub use error::{Error, OrStatus};
pub use fetch::fetch;
pub use handler::Handler;
pub use request::RequestExt;
pub use respond::{IntoResponse, Json};
pub use router::Router;
pub use writer::Writer;

/// Makes the function below it the handler of this component.
///
/// It takes one argument, the [`Request`], and answers anything that is [`IntoResponse`], usually
/// `Result<Response>`. It may be `async` or not. The function itself stays as it is and can be
/// called in a test. A component has one handler; for several paths, see [`Router`].
///
/// ```
/// use faas_sdk::{Error, Request, RequestExt, Result};
///
/// #[faas_sdk::function]
/// async fn handle(request: Request) -> Result<String> {
///     let name = request.query("name").ok_or(Error::status(400, "`name` is missing"))?;
///     Ok(format!("Hello, {name}!\n"))
/// }
/// ```
pub use faas_sdk_macros::function;

pub use bytes::Bytes;
pub use http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// A request as a handler receives it.
pub type Request<B = Body> = http::Request<B>;

/// What a handler answers.
pub type Response<B = Body> = http::Response<B>;

/// A result whose error is [`Error`] unless another is named.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the macros of this crate expand to. Not for use by hand, and free to change.
#[doc(hidden)]
pub mod __private {
    pub use crate::handler::{check_async, check_plain};
    #[cfg(target_family = "wasm")]
    pub use crate::platform::exports::*;
}
