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

/// Fails to compile unless `handler` is one. The macro calls this or [`check_plain`] on every target,
/// so that a wrong signature shows in `cargo test` and in an editor too. It could ask for `Handler`,
/// but then the message would not tell what exactly is wrong.
#[doc(hidden)]
pub const fn check_async<F, Answer>(_handler: &F)
where
    F: Fn(Request) -> Answer,
    Answer: Future<Output: IntoResponse>,
{
}

/// The same for a `fn` that is not `async`.
#[doc(hidden)]
pub const fn check_plain<F, Answer>(_handler: &F)
where
    F: Fn(Request) -> Answer,
    Answer: IntoResponse,
{
}
