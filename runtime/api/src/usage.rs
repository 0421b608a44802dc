//! What functions used, as `GET /v1/usage` tells it: what a host would bill.

use crate::{AppName, FunctionName, VersionId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How usage is divided by time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// By hour (UTC).
    Hour,
    /// By day (UTC).
    Day,
    /// Not at all.
    #[default]
    Total,
}

/// How usage is divided by what was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageGroup {
    /// By app.
    App,
    /// By app and function.
    Function,
    /// By app, function and version.
    Version,
}

/// What was used. A request counts where it ended, and only if a function ran for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Requests that a function ran for.
    pub requests: u64,
    /// Those of them that failed by the function's fault.
    pub failures: u64,
    /// CPU time of the function and its host calls, in milliseconds.
    pub cpu_ms: f64,
    /// Linear memory times the time it was held, in GB-seconds; a GB is 2^30 bytes.
    pub gb_s: f64,
    /// Bytes of request bodies that were read from clients.
    pub bytes_in: u64,
    /// Bytes of response bodies that were handed to clients.
    pub bytes_out: u64,
    /// Requests that the function sent.
    pub outbound_requests: u64,
}

/// A row of a usage report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// The beginning of the hour or day; absent where time does not divide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start: Option<Timestamp>,
    /// The app. It may have been deleted since.
    #[schema(value_type = String, example = "hello")]
    pub app: AppName,
    /// The function, unless rows are by app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "main")]
    pub function: Option<FunctionName>,
    /// The version, where rows are by version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "v3")]
    pub version: Option<VersionId>,
    /// What was used.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What was used in a span of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// Where it begins: the beginning of an hour, or of a day where rows are by day.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Where it ends: the end of an hour, which may not be over yet.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// How rows divide time.
    pub by: UsageBy,
    /// How rows divide what was called.
    pub group: UsageGroup,
    /// The rows, by time, then by name. What was not used has none.
    pub rows: Vec<UsageRow>,
    /// The sum of all rows.
    pub total: Usage,
}

/// The first line of usage as CSV. Columns are only ever added, at the end.
pub const CSV_HEADER: &str = "start,app,function,version,requests,failures,cpu_ms,gb_s,bytes_in,\
                              bytes_out,outbound_requests";

impl UsageReport {
    /// The rows as CSV (RFC 4180), under [`CSV_HEADER`]. Every row has every column; what does not
    /// apply is empty. The total is not among them.
    pub fn to_csv(&self) -> String {
        let mut csv = format!("{CSV_HEADER}\r\n");
        for UsageRow { start, app, function, version, usage } in &self.rows {
            // Names, numbers and times need no quotes.
            csv.push_str(&format!(
                "{},{app},{},{},{},{},{},{},{},{},{}\r\n",
                start.map(|start| start.to_string()).unwrap_or_default(),
                function.as_ref().map(ToString::to_string).unwrap_or_default(),
                version.map(|version| version.to_string()).unwrap_or_default(),
                usage.requests,
                usage.failures,
                usage.cpu_ms,
                usage.gb_s,
                usage.bytes_in,
                usage.bytes_out,
                usage.outbound_requests,
            ));
        }
        csv
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start: Option<&str>, function: Option<&str>, version: Option<u32>) -> UsageRow {
        UsageRow {
            start: start.map(|start| start.parse().unwrap()),
            app: "shop".parse().unwrap(),
            function: function.map(|function| function.parse().unwrap()),
            version: version.map(VersionId::new),
            usage: Usage {
                requests: 1_204_331,
                failures: 2,
                cpu_ms: 612.25,
                gb_s: 0.000_001,
                bytes_in: 3,
                bytes_out: 4 << 30,
                outbound_requests: 0,
            },
        }
    }

    fn report(rows: Vec<UsageRow>) -> UsageReport {
        UsageReport {
            since: "2026-11-20T11:00:00Z".parse().unwrap(),
            until: "2026-11-20T13:00:00Z".parse().unwrap(),
            by: UsageBy::Hour,
            group: UsageGroup::Version,
            rows,
            total: Usage::default(),
        }
    }

    #[test]
    fn every_row_has_every_column() {
        let rows = vec![
            row(Some("2026-11-20T11:00:00Z"), Some("api"), Some(7)),
            row(None, Some("api"), None),
            row(None, None, None),
        ];
        let csv = report(rows).to_csv();
        let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
        assert_eq!(
            lines,
            [
                CSV_HEADER,
                "2026-11-20T11:00:00Z,shop,api,v7,1204331,2,612.25,0.000001,3,4294967296,0",
                ",shop,api,,1204331,2,612.25,0.000001,3,4294967296,0",
                ",shop,,,1204331,2,612.25,0.000001,3,4294967296,0",
            ]
        );
        let columns = CSV_HEADER.split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == columns));
    }

    #[test]
    fn json_leaves_out_what_does_not_apply() {
        let text = serde_json::to_string(&report(vec![row(None, None, None)])).unwrap();
        assert!(
            text.contains(r#""rows":[{"app":"shop","requests":1204331,"failures":2,"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<UsageReport>(&text).unwrap().rows.len(), 1);
    }
}
