//! An answer that goes on – a log that is followed – ends with the token it is sent to.

use super::Api;
use crate::clock;
use axum::{
    body::{Body, Bytes, HttpBody as _},
    response::Response,
};
use faas_api::TokenId;
use http_body::{Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// The same response; if it is not complete yet, it breaks off once the token is no longer good.
pub(super) fn watched(response: Response, id: Option<TokenId>, api: &Arc<Api>) -> Response {
    // What the server's own token gets, and what is there already, is not worth a look.
    let Some(id) = id.filter(|_| response.body().size_hint().exact().is_none()) else {
        return response;
    };
    let api = api.clone();
    response.map(|inner| Body::new(Watched { inner, id, api }))
}

struct Watched {
    inner: Body,
    id: TokenId,
    api: Arc<Api>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        // After the wait, not before it: the token may have been revoked meanwhile.
        if matches!(polled, Poll::Ready(Some(Ok(_))))
            && !self.api.parts.tokens.admits(&self.id, clock::now())
        {
            // Not as if it were the end: the client is to notice.
            let broken = io::Error::other("the token is no longer good");
            return Poll::Ready(Some(Err(axum::Error::new(broken))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
