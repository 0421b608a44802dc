//! A request that the function sends, through WASI 0.3.

use http::{Method, Response, StatusCode};
use wasip3::http::{client, types};
use wasip3::wit_future;

use super::request::{Arriving, Message, Open};
use super::response::outgoing;
use crate::answer::{content_length, headers};
use crate::body::Content;
use crate::convert::{broken_answer, no_answer, to_fields, to_method, to_scheme, unanswered};
use crate::{Body, Error, Request, Result};

/// Sends a request and waits for the head of its answer.
pub(crate) async fn fetch(request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let fields = to_fields(&parts.headers)?;
    let (stream, trailers) = outgoing(body, "a request broke off");
    // The second value tells how the transmission ended, which the answer does, too.
    let request = types::Request::new(fields, stream, trailers, None).0;
    let refused = |()| unanswered("the host refused the request's address");
    request.set_method(&to_method(&parts.method)).map_err(refused)?;
    request.set_scheme(to_scheme(parts.uri.scheme()).as_ref()).map_err(refused)?;
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    request.set_authority(authority).map_err(refused)?;
    let path = parts.uri.path_and_query().map(|path| path.as_str());
    request.set_path_with_query(path).map_err(refused)?;
    let answer = client::send(request).await.map_err(|code| no_answer(&code))?;
    let status = StatusCode::from_u16(answer.get_status_code());
    let status = status.map_err(|_| unanswered("its status is none"))?;
    let fields = headers(answer.get_headers().copy_all());
    // The answer to a HEAD tells the length of a body that does not come.
    let length = content_length(&fields).filter(|_| parts.method != Method::HEAD);
    let arriving = Arriving::new(answer, length);
    let mut response = Response::new(Body::of(Content::Incoming(Box::new(arriving))));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(response)
}

impl Message for types::Response {
    fn open(self) -> Open {
        // What became of the body is of no interest to the host.
        let (_, result) = wit_future::new(|| Ok(()));
        let (stream, trailers) = Self::consume_body(self, result);
        Open { stream, trailers }
    }

    fn broken(_: &types::ErrorCode) -> Error {
        broken_answer("the server gave up".to_owned())
    }
}
