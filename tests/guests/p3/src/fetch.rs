//! Requests through `wasi:http/client` of WASI 0.3.

use crate::{End, send};
use guest_common::{Fetch, fetched, piece};
use std::{future::poll_fn, pin::Pin, task::Poll};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::{StreamReader, StreamResult};
use wasip3::{spawn_local, wit_future, wit_stream};

/// Passes an answer of somebody else on as it comes, or says what became of many.
pub async fn fetch(wanted: &Fetch) -> Response {
    if wanted.times > 1 {
        return send(&fetched(&many(wanted).await));
    }
    match begin(wanted).await {
        Ok(answer) => {
            let status = answer.get_status_code();
            let headers = answer.get_headers().clone();
            let (body, trailers) = Response::consume_body(answer, wit_future::new(|| Ok(())).1);
            let (response, _) = Response::new(headers, Some(body), trailers);
            response.set_status_code(status).unwrap();
            response
        }
        Err(error) => send(&fetched(&[format!("error: {error:?}")])),
    }
}

async fn many(wanted: &Fetch) -> Vec<String> {
    if wanted.abandon {
        return vec![abandon(wanted).await];
    }
    if !wanted.together {
        let mut lines = Vec::new();
        for _ in 0..wanted.times {
            lines.push(line(begin(wanted).await).await);
        }
        return lines;
    }
    if !wanted.hold {
        return all((0..wanted.times).map(async |_| line(begin(wanted).await).await)).await;
    }
    let answers = all((0..wanted.times).map(|_| begin(wanted))).await;
    all(answers.into_iter().map(line)).await
}

/// Drops a request when another one is answered.
async fn abandon(wanted: &Fetch) -> String {
    let ready = wanted.ready();
    let mut abandoned = Some(Box::pin(begin(wanted)));
    let mut begun = None;
    let mut other = Box::pin(async { line(begin(&ready).await).await });
    poll_fn(|cx| {
        if let Some(Poll::Ready(answer)) = abandoned.as_mut().map(|first| first.as_mut().poll(cx)) {
            abandoned = None;
            begun = Some(answer);
        }
        other.as_mut().poll(cx)
    })
    .await
}

async fn line(answer: Result<Response, ErrorCode>) -> String {
    let read = async {
        let answer = answer?;
        let status = answer.get_status_code();
        let (body, end) = Response::consume_body(answer, wit_future::new(|| Ok(())).1);
        let length = length(body).await;
        end.await.map(|_| (status, length))
    };
    match read.await {
        Ok((status, length)) => format!("{status} {length}"),
        Err(error) => format!("error: {error:?}"),
    }
}

async fn length(mut body: StreamReader<u8>) -> usize {
    let mut length = 0;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let (result, mut bytes) = body.read(buffer).await;
        length += bytes.len();
        bytes.clear();
        buffer = bytes;
        if !matches!(result, StreamResult::Complete(_)) {
            return length;
        }
    }
}

async fn begin(wanted: &Fetch) -> Result<Response, ErrorCode> {
    let headers: Vec<(String, Vec<u8>)> =
        wanted.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let refused = |error| ErrorCode::InternalError(Some(format!("{error:?}")));
    let headers = Fields::from_list(&headers).map_err(refused)?;
    let (_, trailers) = wit_future::new::<End>(|| Ok(None));
    let body = (wanted.body > 0).then(|| {
        let (mut writer, body) = wit_stream::new();
        let length = wanted.body;
        spawn_local(async move {
            let _ = writer.write_all(piece(0, length)).await;
        });
        body
    });
    let (request, _sent) = Request::new(headers, body, trailers, None);
    let (scheme, authority, path) = wanted.parts();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let uri = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_method(&Method::Other(wanted.method.clone())).map_err(uri)?;
    request.set_scheme(Some(&scheme)).map_err(uri)?;
    // Without one the request is a relative one.
    request.set_authority((!authority.is_empty()).then_some(authority)).map_err(uri)?;
    request.set_path_with_query(Some(path)).map_err(uri)?;
    client::send(request).await
}

/// What all of these come to, side by side.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, slot) in running.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
