//! Passes its request on to the URL in its query, and the answer back: a proxy in a few lines.

use faas_sdk::{Error, OrStatus, Request, Response, Result, fetch, header};

#[faas_sdk::function]
async fn handle(request: Request) -> Result<Response> {
    let url = request.uri().query().or_status(400, "the query is the URL to ask")?.to_owned();
    let (mut head, body) = request.into_parts();
    head.uri = url.parse().map_err(|_| Error::status(400, "the query is no URL"))?;
    // The host sets it from the URL.
    head.headers.remove(header::HOST);
    fetch(Request::from_parts(head, body)).await
}
