//! Requests that a function sends.

use crate::{Body, Request, Response, Result, platform};

/// Sends a request to another server, or to another function of the same app, and waits for the head
/// of the answer. Both bodies stream: the request's is sent while it is produced, and the answer's
/// arrives while it is read.
///
/// Nothing is granted by default: the manifest names the servers that a function may ask, as in
/// `grants.outbound = ["https://api.example.com"]`. Functions of the same app need no grant; theirs
/// is `http://<function>.internal`.
///
/// An answer with an error status is an answer, and redirects are not followed. What is needed of
/// the request's URI is all of it: scheme, host and path.
///
/// ```no_run
/// use faas_sdk::{Body, Request, Response, Result, fetch};
///
/// #[faas_sdk::function]
/// async fn handle(_: Request) -> Result<Response> {
///     let request = Request::get("https://api.example.com/rates").body(Body::empty())?;
///     let mut answer = fetch(request).await?;
///     let rates = answer.body_mut().text(64 * 1024).await?;
///     Ok(Response::new(rates.into()))
/// }
/// ```
///
/// In a unit test on the host there is nobody to send it, and it fails.
///
/// # Errors
///
/// If there is no answer: the server was not granted, cannot be reached, or took too long. A client
/// then sees a plain 502; which of these it was goes to the log.
pub async fn fetch<B: Into<Body>>(request: Request<B>) -> Result<Response> {
    platform::fetch(request.map(Into::into)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    #[test]
    fn on_the_host_nobody_answers() {
        let request = Request::get("https://api.example.com/").body("").unwrap();
        assert_eq!(block_on(fetch(request)).unwrap_err().status_code(), 502);
    }
}
