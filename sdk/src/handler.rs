//! What counts as a handler.

use std::future::Future;

use crate::{IntoResponse, Request, Response, Result};

/// A function from a request to an answer: `async fn(Request) -> impl IntoResponse`, or the same
/// without `async`.
///
/// `Kind` tells the two apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler takes one argument, `faas_sdk::Request`, and its answer is `faas_sdk::IntoResponse`",
    note = "for example `async fn handle(request: Request) -> Result<Response>`"
)]
pub trait Handler<Kind>: 'static {
    /// Answers a request.
    fn call(&self, request: Request) -> impl Future<Output = Result<Response>>;
}

/// The kind of an `async fn`.
#[doc(hidden)]
#[derive(Debug)]
pub enum Asynchronous {}

/// The kind of a plain `fn`.
#[doc(hidden)]
#[derive(Debug)]
pub enum Synchronous {}

impl<F, Answer> Handler<Asynchronous> for F
where
    F: Fn(Request) -> Answer + 'static,
    Answer: Future<Output: IntoResponse>,
{
    async fn call(&self, request: Request) -> Result<Response> {
        self(request).await.into_response()
    }
}

impl<F, Answer> Handler<Synchronous> for F
where
    F: Fn(Request) -> Answer + 'static,
    Answer: IntoResponse,
{
    async fn call(&self, request: Request) -> Result<Response> {
        self(request).into_response()
    }
}

/// Fails to compile unless `handler` is one. Called by the macro on every target, so that a wrong
/// signature shows in `cargo test` and in an editor, not only in the build for Wasm.
#[doc(hidden)]
pub const fn check<Kind>(_handler: &impl Handler<Kind>) {}
