//! `faas usage`

use crate::{
    command::Faas,
    server::{Reply, Server},
};
use faas_api::{ErrorCode, Usage, UsageBy, UsageGroup, UsageReport, UsageRow, VersionId};
use serde_json::json;

const MANY: Usage = Usage {
    requests: 1_204_331,
    failures: 240,
    cpu_ms: 612_400.0,
    gb_s: 88.2,
    bytes_in: 1_048_576,
    bytes_out: 4_400_000_000,
    outbound_requests: 0,
};
const FEW: Usage = Usage {
    requests: 3,
    failures: 3,
    cpu_ms: 0.4,
    gb_s: 0.001_234,
    bytes_in: 0,
    bytes_out: 7,
    outbound_requests: 0,
};

fn row(start: Option<&str>, function: &str, version: Option<u32>, usage: Usage) -> UsageRow {
    UsageRow {
        start: start.map(|start| start.parse().unwrap()),
        app: "shop".parse().unwrap(),
        function: Some(function.parse().unwrap()),
        version: version.map(VersionId::new),
        usage,
    }
}

fn report(by: UsageBy, group: UsageGroup, rows: Vec<UsageRow>, total: Usage) -> UsageReport {
    UsageReport {
        since: "2026-11-19T11:00:00Z".parse().unwrap(),
        until: "2026-11-20T12:00:00Z".parse().unwrap(),
        by,
        group,
        rows,
        total,
    }
}

fn serving(report: UsageReport) -> (Server, Faas) {
    let server = Server::start(move |_request| Reply::json(&report));
    let faas = Faas::with_server(&server.url());
    (server, faas)
}

#[test]
fn an_apps_usage_is_by_function() {
    let rows = vec![row(None, "api", None, MANY)];
    let (server, faas) = serving(report(UsageBy::Total, UsageGroup::Function, rows, MANY));
    let output = faas.run(&["usage", "shop", "--since", "24h"]).exits(0);
    assert_eq!(
        output.stdout,
        "  FUNCTION  REQUESTS   FAILED  CPU    MEMORY   IN     OUT\n  \
           api       1,204,331  0.02 %  612 s  88 GB-s  1 MiB  4.1 GiB\n"
    );
    assert_eq!(server.asked(), ["GET /v1/apps/shop/usage?by=total&since=24h"]);
}

#[test]
fn several_rows_have_a_total() {
    let start = Some("2026-11-20T11:00:00Z");
    let rows = vec![row(start, "api", Some(7), FEW), row(start, "api", Some(8), FEW)];
    let total = Usage { requests: 6, failures: 6, outbound_requests: 1_000, ..FEW };
    let (server, faas) = serving(report(UsageBy::Hour, UsageGroup::Version, rows, total));
    let args = ["usage", "--by", "hour", "--group", "version", "--until", "2026-11-20"];
    assert_eq!(
        faas.run(&args).exits(0).stdout,
        "  HOUR (UTC)        APP   FUNCTION  VERSION  REQUESTS  FAILED  CPU     MEMORY       IN   OUT  OUTBOUND\n  \
           2026-11-20 11:00  shop  api       v7       3         100 %   0.4 ms  0.0012 GB-s  0 B  7 B  0\n  \
           2026-11-20 11:00  shop  api       v8       3         100 %   0.4 ms  0.0012 GB-s  0 B  7 B  0\n  \
           total                                      6         100 %   0.4 ms  0.0012 GB-s  0 B  7 B  1,000\n"
    );
    assert_eq!(server.asked(), ["GET /v1/usage?by=hour&until=2026-11-20&group=version"]);
}

#[test]
fn csv_and_json_are_for_machines() {
    let rows = vec![row(None, "api", None, MANY)];
    let wanted = report(UsageBy::Total, UsageGroup::Function, rows, MANY);
    let (_server, faas) = serving(wanted.clone());
    assert_eq!(faas.run(&["usage", "--csv"]).exits(0).stdout, wanted.to_csv());
    let document = faas.run(&["usage", "-o", "json"]).exits(0).json();
    assert_eq!(document["data"]["rows"][0]["requests"], json!(1_204_331));
    assert_eq!(document["data"]["total"]["gb_s"], json!(88.2));
    let both = faas.run(&["usage", "--csv", "-o", "json"]).exits(2).json();
    assert_eq!(both["error"]["code"], json!("usage"));
}

#[test]
fn nothing_used_is_no_failure() {
    let empty = report(UsageBy::Total, UsageGroup::App, vec![], Usage::default());
    let (_server, faas) = serving(empty.clone());
    let output = faas.run(&["usage"]).exits(0);
    assert_eq!(output.stdout, "");
    assert!(output.stderr.contains("nothing was used since 2026-11-19 11:00 UTC"), "{output:?}");
    assert_eq!(faas.run(&["usage", "--csv"]).exits(0).stdout, empty.to_csv());
}

#[test]
fn wrong_words_are_refused_here_and_wrong_apps_there() {
    let server = Server::start(|_request| Reply::error(ErrorCode::NotFound));
    let faas = Faas::with_server(&server.url());
    for args in [
        &["usage", "--since", "soon"][..],
        &["usage", "--until", "2026-13-01"],
        &["usage", "--by", "week"],
        &["usage", "--group", "tenant"],
        &["usage", "Not_A_Name"],
    ] {
        assert_eq!(faas.run(args).exits(2).stdout, "", "{args:?}");
    }
    assert_eq!(server.asked().len(), 0);
    faas.run(&["usage", "nobody"]).exits(4);
}
