//! `GET /v1/apps/{app}/logs` and `GET /v1/logs`

use super::{
    Api, State,
    deploy::{NDJSON, ndjson},
    error::ApiError,
    extract::{self, AppPath, Query, bad_query},
    openapi::{self, AppRead, Common},
};
use crate::{
    clock,
    telemetry::guest_logs::{self, LogReader, reader::Audience},
};
use axum::{
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use faas_api::{ErrorCode, FunctionName, LogLevel, LogLine, VersionId};
use futures::{Stream, stream};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
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
    /// Only lines since this time: RFC 3339, a date (UTC), or a number of `s`, `m`, `h` or `d`
    /// ago.
    #[param(
        example = "10m",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])\
                   (T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
    )]
    since: Option<String>,
    /// Only lines until this time, written as `since`. Not with `follow`.
    #[param(
        example = "5m",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])\
                   (T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
    )]
    until: Option<String>,
    /// Of the lines there are, only the newest so many. Without this and `since`: as many as the
    /// node keeps in memory of one app.
    limit: Option<u64>,
    /// Only lines of this request.
    #[param(example = "01KB3W5S4M6B2N9Q1RZ8T7XVCD")]
    request_id: Option<String>,
    /// Only lines of requests that ended with one of these statuses: `500`, `5xx`, `404,5xx`. What
    /// a function wrote comes when its request has ended.
    #[param(example = "5xx", pattern = "^([1-5]([0-9]{2}|xx))(,[1-5]([0-9]{2}|xx))*$")]
    status: Option<String>,
    /// Only lines of this version.
    #[param(value_type = Option<String>, example = "v3", pattern = "^v[1-9][0-9]{0,8}$")]
    version: Option<VersionId>,
    /// Only lines of this function.
    #[param(value_type = Option<String>, example = "main", pattern = "^[a-z][a-z0-9]{0,39}$")]
    function: Option<FunctionName>,
    /// Only lines that matter at least so much.
    level: Option<LogLevel>,
    /// Only lines in which this regular expression is found: in the text that was written, of a
    /// request in `GET /path 500 guest_trap`.
    #[param(example = "time(d )?out", pattern = "^[a-z ]{0,100}$")]
    grep: Option<String>,
}

impl LogsQuery {
    fn wanted(&self) -> Result<guest_logs::Query, ApiError> {
        if self.follow && self.until.is_some() {
            return Err(ApiError::new(ErrorCode::Unprocessable)
                .detail("query: `until` and `follow` exclude each other"));
        }
        let now = clock::now();
        let since = self.since.as_deref().map(|text| time("since", text, now)).transpose()?;
        let until = self.until.as_deref().map(|text| time("until", text, now)).transpose()?;
        let status =
            self.status.as_deref().map(str::parse).transpose().map_err(|why: String| {
                bad_query(&format!("`status`: {why}")).hint("write 500, 5xx, or several: 404,5xx")
            })?;
        let grep = self.grep.as_deref().map(guest_logs::Query::pattern).transpose();
        let grep = grep.map_err(|why| {
            bad_query(&format!("`grep` is no pattern: {why}"))
                .hint("write `\\` before what should stand for itself: \\. \\( \\[ \\*")
        })?;
        Ok(guest_logs::Query {
            since,
            until,
            request_id: self.request_id.clone(),
            status,
            version: self.version,
            function: self.function.clone(),
            level: self.level,
            grep,
            limit: self.limit,
        })
    }
}

/// Read an app's log
///
/// Oldest line first, one JSON document per line; with `accept: text/event-stream` as events.
/// A line with `dropped` says that so many before it were displaced before they could be sent. An
/// empty line while following says that the connection lives.
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
    let wanted = query.wanted()?;
    api.parts.functions.get(&app).await?;
    // Not made here: an app that was deleted in between would get a log for ever.
    let reader = api.parts.logs.get(&app).map(|log| log.reader(wanted));
    Ok(Form::of(&headers).stream(api, reader, query.follow))
}

/// Read the log of all apps
///
/// The lines of all apps, merged by their times; otherwise as the log of one.
#[utoipa::path(get, path = "/v1/logs", operation_id = "read_all_logs", tag = "observe",
    security(("bearer" = ["read"])),
    params(LogsQuery),
    responses(
        (status = 200, description = "The lines.", content(
            (LogLine = "application/x-ndjson"),
            (String = "text/event-stream"))),
        Common))]
pub(super) async fn read_all(
    axum::extract::State(api): State,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = api.parts.logs.reader(query.wanted()?);
    Ok(Form::of(&headers).stream(api, Some(reader), query.follow))
}

/// An answer on its way.
struct Answer {
    api: Arc<Api>,
    reader: LogReader,
    following: bool,
    form: Form,
    /// The reader stops when the client has gone.
    _audience: Audience,
}

/// The next bytes of an answer: a page, or a sign of life. The reader of a slow client stays where
/// it is meanwhile; the lines that are displaced before it goes on are lost to it.
async fn next(mut answer: Answer) -> Option<(Bytes, Option<Answer>)> {
    let form = answer.form;
    loop {
        let mut reader = answer.reader;
        // It may read from disk.
        let read = tokio::task::spawn_blocking(move || {
            let lines = reader.next_page();
            let page = (!lines.is_empty()).then(|| form.page(&lines));
            (reader, page)
        });
        let (reader, page) = read.await.ok()?;
        answer.reader = reader;
        if let Some(page) = page {
            return Some((page, Some(answer)));
        }
        if !answer.following {
            return None;
        }
        tokio::select! {
            more = answer.reader.wait() => if !more { return None },
            () = answer.api.shutdown.draining() => return None,
            () = tokio::time::sleep(answer.api.patience.heartbeat) => {
                return Some((form.heartbeat(), Some(answer)));
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
    /// The form that a client asks for.
    fn of(headers: &HeaderMap) -> Self {
        match extract::accepts(headers, SSE) && !extract::accepts(headers, NDJSON) {
            true => Self::Events,
            false => Self::Lines,
        }
    }

    fn stream(self, api: Arc<Api>, reader: Option<LogReader>, following: bool) -> Response {
        let answer = reader.map(|reader| {
            let _audience = reader.audience();
            Answer { api, reader, following, form: self, _audience }
        });
        self.response(stream::unfold(answer, async |answer| next(answer?).await))
    }

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
                page.extend_from_slice(format!("id: {}:{}\ndata: ", line.app, line.seq).as_bytes());
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

/// A time, a date, or how long ago it was.
pub(super) fn time(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
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
    let date = || Some(text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp());
    ago().or_else(|| text.parse().ok()).or_else(date).ok_or_else(|| {
        bad_query(&format!("`{name}` is not a time"))
            .hint("write 10m, 24h, 7d, 2026-11-20, or a time as 2026-11-20T12:00:00Z (`+` as %2B)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let since = |text| time("since", text, now).map(|time| time.to_string()).ok();
        for (text, time) in [
            ("30s", "2026-11-20T11:59:30Z"),
            ("10m", "2026-11-20T11:50:00Z"),
            ("1h", "2026-11-20T11:00:00Z"),
            ("2d", "2026-11-18T12:00:00Z"),
            ("0s", "2026-11-20T12:00:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
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
