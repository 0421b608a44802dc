//! The listener that speaks no TLS beside one that does: sends every request there.

use super::{
    backend::Backend,
    check,
    connection::Serve,
    handle::{Failure, Shared, fail, own, refuse},
    meter::{Answer, Ticket},
    respond,
};
use crate::request_id::RequestId;
use bytes::Bytes;
use faas_api::ErrorCode;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use std::{convert::Infallible, future::ready, sync::Arc};

/// The port of https, which an address does not name.
const HTTPS: u16 = 443;

/// The requests of one connection.
pub(super) struct Redirect<B> {
    shared: Arc<Shared<B>>,
    /// Where the listener with TLS is.
    port: u16,
}

impl<B: Backend> Redirect<B> {
    pub(super) fn new(shared: Arc<Shared<B>>, port: u16) -> Self {
        Self { shared, port }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Answer<B::Body, B::Function>> {
        let method = request.method().clone();
        let ticket =
            Ticket::new(self.shared.books.clone(), RequestId::new(), method, request.uri().clone());
        let mut response = match check::check(request, &self.shared.limits) {
            Err(refused) => fail(refused.into(), ticket),
            Ok(host) => match self.location(host, request) {
                Some(target) => own(respond::redirect(target, ticket.labels()), ticket),
                None => fail(Failure::new(ErrorCode::BadRequest), ticket),
            },
        };
        // Nobody reads the rest of the request.
        if request.version() != Version::HTTP_2 && !request.body().is_end_stream() {
            respond::close(response.headers_mut());
        }
        response
    }

    fn location(&self, host: &str, request: &Request<Incoming>) -> Option<HeaderValue> {
        let default = self.shared.default_host.to_str().unwrap_or_default();
        location(if host.is_empty() { default } else { host }, self.port, request)
    }
}

impl<B: Backend> Serve for Redirect<B> {
    type Body = Answer<B::Body, B::Function>;

    fn serve(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static {
        ready(Ok(self.answer(&request)))
    }

    fn refuse(&self, code: ErrorCode) -> Bytes {
        refuse(&self.shared, code)
    }
}

/// The same address with TLS. `host` may name a port, which is the other listener's.
fn location<B>(host: &str, port: u16, request: &Request<B>) -> Option<HeaderValue> {
    let name = match host.rfind(']') {
        Some(end) => host.get(..=end)?,
        None => host.split(':').next()?,
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let address = match port {
        HTTPS => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    };
    HeaderValue::from_maybe_shared(Bytes::from(address)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_and_port_change() {
        for (host, port, target, expected) in [
            ("a.test", 443, "/x?y=1", "https://a.test/x?y=1"),
            ("a.test:8080", 8443, "/", "https://a.test:8443/"),
            ("[::1]:80", 443, "/a", "https://[::1]/a"),
            ("[::1]", 8443, "/a", "https://[::1]:8443/a"),
            ("127.0.0.1:1", 2, "http://127.0.0.1:1/b", "https://127.0.0.1:2/b"),
        ] {
            let request = Request::builder().uri(target).body(()).unwrap();
            assert_eq!(location(host, port, &request).unwrap(), expected);
        }
    }
}
