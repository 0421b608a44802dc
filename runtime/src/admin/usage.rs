//! `/v1/usage` and `/v1/apps/{app}/usage`

use super::{
    Api, State,
    error::ApiError,
    extract::{self, AppPath, Query},
    logs::time,
    openapi::{self, AppRead, AppUsageRead, Common, UsageRead},
};
use crate::{
    clock,
    functions::FunctionsError,
    storage::{
        UsageQuery, Used,
        usage::{Hour, SumKey},
    },
    telemetry::usage::{beginning_of, hour_of},
};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use faas_api::{AppName, ErrorCode, Usage, UsageBy, UsageGroup, UsageReport, UsageRow};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::ops::Range;
use utoipa::IntoParams;

/// The media type of CSV (RFC 7111).
const CSV: &str = "text/csv";
/// The most rows of an answer.
const MOST_ROWS: usize = 100_000;
/// What is told when nothing is said: a day.
const USUAL_SPAN: SignedDuration = SignedDuration::from_hours(24);
/// Hours of a day.
const DAY: Hour = 24;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// Since when: RFC 3339, a date (UTC), or a number of `s`, `m`, `h` or `d` ago. It is taken back
    /// to the beginning of its hour; with `by=day`, of its day. By default 24 hours ago.
    #[param(
        example = "24h",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]))$"
    )]
    since: Option<String>,
    /// Until when, in the same forms, up to the end of its hour. By default now.
    #[param(
        example = "1h",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]))$"
    )]
    until: Option<String>,
    /// Whether rows are by hour, by day, or over all of the time: the default.
    #[serde(default)]
    #[param(inline)]
    by: UsageBy,
    /// What rows are about: `app`, `function` or `version`. By default apps; functions where the
    /// usage of one app is asked for.
    #[param(inline)]
    group: Option<UsageGroup>,
    /// `json` or `csv`; by default what `accept` asks for, else JSON.
    #[param(inline)]
    format: Option<Format>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Json,
    Csv,
}

/// Tell what functions used
///
/// From hourly rows (UTC). A request counts in the hour in which it ended; what a deleted app used
/// stays.
#[utoipa::path(get, path = "/v1/usage", operation_id = "usage", tag = "usage",
    security(("bearer" = ["read"])),
    params(UsageParams),
    responses(
        (status = 200, description = "What was used.", content(
            (UsageReport = "application/json"),
            (String = "text/csv"))),
        Common, UsageRead))]
pub(super) async fn of_node(
    axum::extract::State(api): State,
    Query(params): Query<UsageParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = understood(params, None, &headers)?;
    Ok(answer(report(&api, query).await?, format))
}

/// Tell what an app's functions used
///
/// The same for one app, which may have been deleted since.
#[utoipa::path(get, path = "/v1/apps/{app}/usage", operation_id = "app_usage", tag = "usage",
    security(("bearer" = ["read"])),
    params(openapi::App, UsageParams),
    responses(
        (status = 200, description = "What was used.", content(
            (UsageReport = "application/json"),
            (String = "text/csv"))),
        AppRead, AppUsageRead))]
pub(super) async fn of_app(
    axum::extract::State(api): State,
    AppPath(app): AppPath,
    Query(params): Query<UsageParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, format) = understood(params, Some(app.clone()), &headers)?;
    let report = report(&api, query).await?;
    if report.rows.is_empty() {
        known(&api, &app).await?;
    }
    Ok(answer(report, format))
}

/// Whether there is such an app, or was.
async fn known(api: &Api, app: &AppName) -> Result<(), ApiError> {
    let Err(error) = api.parts.functions.get(app).await else {
        return Ok(());
    };
    let ever = UsageQuery {
        hours: Hour::MIN..Hour::MAX,
        app: Some(app.clone()),
        by: UsageBy::Total,
        group: UsageGroup::App,
        most: 1,
    };
    match error {
        FunctionsError::NoSuchApp(_)
            if api.parts.usage.sum(ever).await?.is_none_or(|rows| !rows.is_empty()) =>
        {
            Ok(())
        }
        error => Err(error.into()),
    }
}

/// What is asked for.
fn understood(
    params: UsageParams,
    app: Option<AppName>,
    headers: &HeaderMap,
) -> Result<(UsageQuery, Format), ApiError> {
    let UsageParams { since, until, by, group, format } = params;
    let now = clock::now();
    let point = |name, text: Option<&str>| text.map(|text| time(name, text, now)).transpose();
    let until = point("until", until.as_deref())?.unwrap_or(now);
    let usual = until.saturating_sub(USUAL_SPAN).unwrap_or(Timestamp::MIN);
    let since = point("since", since.as_deref())?.unwrap_or(usual);
    if since > until {
        return Err(
            ApiError::new(ErrorCode::Unprocessable).detail("query: `since` is after `until`")
        );
    }
    let usual_group = if app.is_some() { UsageGroup::Function } else { UsageGroup::App };
    let group = group.unwrap_or(usual_group);
    let query = UsageQuery { hours: hours(since, until, by), app, by, group, most: MOST_ROWS };
    let asks_csv = extract::accepts(headers, CSV) && !extract::accepts(headers, "application/json");
    let usual_format = if asks_csv { Format::Csv } else { Format::Json };
    Ok((query, format.unwrap_or(usual_format)))
}

/// Whole hours, and whole days where a row is a day.
fn hours(since: Timestamp, until: Timestamp, by: UsageBy) -> Range<Hour> {
    let first = match by {
        UsageBy::Hour | UsageBy::Total => hour_of(since),
        UsageBy::Day => hour_of(since).div_euclid(DAY) * DAY,
    };
    let last = hour_of(until);
    // A time on the hour is the end of the hour before.
    let end = if beginning_of(last) == until { last } else { last + 1 };
    first..end.max(first)
}

async fn report(api: &Api, query: UsageQuery) -> Result<UsageReport, ApiError> {
    let UsageQuery { hours, by, group, .. } = query.clone();
    let Some(sums) = api.parts.usage.sum(query).await? else {
        return Err(ApiError::new(ErrorCode::Unprocessable)
            .detail(format!("these would be more than {MOST_ROWS} rows"))
            .hint("ask for less time, or with `by=day` or `group=app`"));
    };
    let mut total = Used::default();
    sums.iter().for_each(|(_, used)| total.add(used));
    Ok(UsageReport {
        since: beginning_of(hours.start),
        until: beginning_of(hours.end),
        by,
        group,
        rows: sums.into_iter().map(row).collect(),
        total: usage(&total),
    })
}

fn row((key, used): (SumKey, Used)) -> UsageRow {
    let (start, app, function, version) = key;
    UsageRow { start: start.map(beginning_of), app, function, version, usage: usage(&used) }
}

/// In the units of the wire.
fn usage(used: &Used) -> Usage {
    const NS_PER_MS: f64 = 1e6;
    const MIB_NS_PER_GB_S: f64 = 1024.0 * 1e9;
    Usage {
        requests: used.requests,
        failures: used.failures,
        cpu_ms: rounded(used.cpu_ns as f64 / NS_PER_MS, 1e3),
        gb_s: rounded(used.memory_mib_ns as f64 / MIB_NS_PER_GB_S, 1e6),
        bytes_in: used.bytes_in,
        bytes_out: used.bytes_out,
        outbound_requests: used.outbound,
    }
}

/// Without digits that only look exact.
fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

fn answer(report: UsageReport, format: Format) -> Response {
    match format {
        Format::Json => Json(report).into_response(),
        Format::Csv => {
            let mut response = report.to_csv().into_response();
            let csv = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
            response.headers_mut().insert(CONTENT_TYPE, csv);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn times_and_dates() {
        let now = at("2026-11-20T12:00:00Z");
        for (text, expected) in [
            ("24h", "2026-11-19T12:00:00Z"),
            ("7d", "2026-11-13T12:00:00Z"),
            ("2026-11-01", "2026-11-01T00:00:00Z"),
            ("2026-11-20T13:00:00+02:00", "2026-11-20T11:00:00Z"),
        ] {
            assert_eq!(time("since", text, now).unwrap(), at(expected), "{text}");
        }
        for bad in ["", "d", "-1d", "1w", "yesterday", "2026-13-01", "2026-11", "99999999999d"] {
            assert!(time("since", bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_of_whole_hours_and_days() {
        let span = |since: &str, until: &str, by| {
            let hours = hours(at(since), at(until), by);
            format!("{} {}", beginning_of(hours.start), beginning_of(hours.end))
        };
        let (since, until) = ("2026-11-19T11:30:00Z", "2026-11-20T12:00:01Z");
        assert_eq!(span(since, until, UsageBy::Hour), "2026-11-19T11:00:00Z 2026-11-20T13:00:00Z");
        assert_eq!(span(since, until, UsageBy::Day), "2026-11-19T00:00:00Z 2026-11-20T13:00:00Z");
        let until = "2026-11-20T00:00:00Z";
        assert_eq!(span(since, until, UsageBy::Total), "2026-11-19T11:00:00Z 2026-11-20T00:00:00Z");
        // Before 1970 days begin at midnight, too.
        let old = "1969-12-31T22:30:00Z";
        assert_eq!(span(old, old, UsageBy::Day), "1969-12-31T00:00:00Z 1969-12-31T23:00:00Z");
    }

    #[test]
    fn units() {
        let used = Used {
            requests: 1,
            cpu_ns: 612_000_499,
            // 512 MiB for two seconds.
            memory_mib_ns: 512 * 2_000_000_000,
            ..Used::default()
        };
        let Usage { requests, cpu_ms, gb_s, .. } = usage(&used);
        assert_eq!((requests, cpu_ms, gb_s), (1, 612.0, 1.0));
    }
}
