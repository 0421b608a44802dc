//! `GET /v1/apps/{app}/logs`

use super::{
    Api, State,
    deploy::{NDJSON, ndjson},
    error::ApiError,
    extract::{self, AppPath, Query, bad_query},
    openapi::{self, AppRead},
};
use crate::{
    clock,
    telemetry::guest_logs::{self, LogReader},
};
use axum::{
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use faas_api::LogLine;
use futures::{Stream, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// The media type of server-sent events.
const SSE: &str = "text/event-stream";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// Whether the answer goes on with new lines as they come.
    #[serde(default)]
    #[param(default = false)]
    follow: bool,
    /// Only lines since this time: RFC 3339, or a number of `s`, `m`, `h` or `d` ago.
    #[param(
        example = "10m",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])\
                   T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)$"
    )]
    since: Option<String>,
    /// Of the lines there are, only the newest so many.
    limit: Option<u64>,
    /// Only lines of this request.
    #[param(example = "01KB3W5S4M6B2N9Q1RZ8T7XVCD")]
    request_id: Option<String>,
}

/// Read an app's log
///
/// Oldest line first, one JSON document per line; with `accept: text/event-stream` as events.
/// A gap in the numbers means that lines were displaced before they could be sent. An empty line
/// while following says that the connection lives.
#[utoipa::path(get, path = "/v1/apps/{app}/logs", operation_id = "read_logs", tag = "apps",
    security(("bearer" = ["read"])),
    params(openapi::App, LogsQuery),
    responses(
        (status = 200, description = "Its lines.", content(
            (LogLine = "application/x-ndjson"),
            (String = "text/event-stream"))),
        AppRead))]
pub(super) async fn read(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let since = query.since.as_deref().map(|text| since(text, clock::now()));
    let wanted = guest_logs::Query {
        since: since.transpose()?,
        request_id: query.request_id,
        limit: query.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
    };
    api.parts.functions.get(&app).await?;
    // Not made here: an app that was deleted in between would get a log for ever.
    let reader = api.parts.logs.get(&app).map(|log| log.reader(&wanted));
    let form = match extract::accepts(&headers, SSE) && !extract::accepts(&headers, NDJSON) {
        true => Form::Events,
        false => Form::Lines,
    };
    let following = query.follow;
    let pages = stream::unfold(reader, move |reader| {
        let api = api.clone();
        async move { next(&api, reader?, following, form).await }
    });
    Ok(form.response(pages))
}

/// The next bytes of an answer: a page, or a sign of life. The reader of a slow client stays where
/// it is meanwhile, and the lines that are displaced before it goes on are a gap.
async fn next(
    api: &Arc<Api>,
    mut reader: LogReader,
    following: bool,
    form: Form,
) -> Option<(Bytes, Option<LogReader>)> {
    loop {
        let page = reader.next_page();
        if !page.is_empty() {
            return Some((form.page(&page), Some(reader)));
        }
        if !following {
            return None;
        }
        tokio::select! {
            more = reader.wait() => if !more { return None },
            () = api.shutdown.draining() => return None,
            () = tokio::time::sleep(api.patience.heartbeat) => {
                return Some((form.heartbeat(), Some(reader)));
            }
        }
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Lines,
    Events,
}

impl Form {
    fn response(self, pages: impl Stream<Item = Bytes> + Send + 'static) -> Response {
        let mut response = ndjson(pages).into_response();
        if let Self::Events = self {
            let events = axum::http::HeaderValue::from_static(SSE);
            response.headers_mut().insert(CONTENT_TYPE, events);
        }
        response
    }

    fn page(self, lines: &[LogLine]) -> Bytes {
        let mut page = Vec::with_capacity(256 * lines.len());
        for line in lines {
            if let Self::Events = self {
                page.extend_from_slice(format!("id: {}\ndata: ", line.seq).as_bytes());
            }
            // JSON has no line break of its own, so a line stays a line in both forms. Writing to
            // memory does not fail, and a log line has nothing that JSON cannot say.
            let _ = serde_json::to_writer(&mut page, line);
            page.extend_from_slice(match self {
                Self::Lines => b"\n",
                Self::Events => b"\n\n",
            });
        }
        page.into()
    }

    fn heartbeat(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Lines => b"\n",
            Self::Events => b":\n\n",
        })
    }
}

/// A time, or how long ago it was.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let ago = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return None,
        };
        let number: u32 =
            number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
        // What is before the beginning of time is the beginning of time.
        let ago = SignedDuration::from_secs(i64::from(number) * seconds);
        Some(now.saturating_sub(ago).unwrap_or(Timestamp::MIN))
    };
    ago().or_else(|| text.parse().ok()).ok_or_else(|| {
        bad_query("`since` is not a time")
            .hint("write 30s, 10m, 2h, 1d, or a time as 2026-11-20T12:00:00Z (`+` as %2B)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let since = |text| since(text, now).map(|time| time.to_string()).ok();
        for (text, time) in [
            ("30s", "2026-11-20T11:59:30Z"),
            ("10m", "2026-11-20T11:50:00Z"),
            ("1h", "2026-11-20T11:00:00Z"),
            ("2d", "2026-11-18T12:00:00Z"),
            ("0s", "2026-11-20T12:00:00Z"),
            ("2026-11-20T13:00:00+02:00", "2026-11-20T11:00:00Z"),
        ] {
            assert_eq!(since(text).as_deref(), Some(time), "{text}");
        }
        assert!(since("4294967295d").is_some());
        for bad in ["", "s", "-1s", "+1s", "1.5h", "10", "1w", "now", "99999999999s", "1µs", "m1"]
        {
            assert_eq!(since(bad), None, "{bad}");
        }
    }
}
