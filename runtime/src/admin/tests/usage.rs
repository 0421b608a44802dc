//! Usage: what was counted, in the forms that can be asked for.

use super::*;
use crate::telemetry::usage::Bill;
use faas_api::{UsageReport, VersionId};

impl Node {
    /// Requests of a function that nobody deployed.
    fn used(&self, app: &str, version: u32, requests: u64) {
        let app = app.parse().unwrap();
        let function =
            self.metrics.function(&app, &"main".parse().unwrap(), VersionId::new(version));
        for _ in 0..requests {
            function.invoked(1, 2);
            let cpu = Duration::from_millis(1);
            function.bill(&Bill { cpu, memory_mib_ns: 1024 * 1_000_000_000, ..Bill::default() });
        }
    }

    async fn report(&self, target: &str) -> UsageReport {
        let answer = self.ask("GET", target).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }
}

#[tokio::test]
async fn it_is_told_of_the_node_and_of_each_app() {
    let node = Node::new().await;
    node.used("shop", 1, 3);
    node.used("shop", 2, 4);
    node.used("blog", 1, 5);
    let all = node.report("/v1/usage").await;
    let rows: Vec<_> = all.rows.iter().map(|row| (row.app.as_str(), row.usage.requests)).collect();
    assert_eq!(rows, [("blog", 5), ("shop", 7)]);
    let total = all.total;
    assert_eq!((total.requests, total.cpu_ms, total.gb_s), (12, 12.0, 12.0));
    assert_eq!((total.bytes_in, total.bytes_out), (12, 24));
    let shop = node.report("/v1/apps/shop/usage").await;
    let function = shop.rows[0].function.as_ref().unwrap();
    assert_eq!((shop.rows.len(), function.as_str(), shop.total.requests), (1, "main", 7));
    let versions = node.report("/v1/apps/shop/usage?group=version&by=hour").await;
    assert_eq!(versions.rows.len(), 2);
    assert_eq!(node.report("/v1/apps/shop/usage?until=2020-01-01").await.rows, []);
}

#[tokio::test]
async fn forms() {
    let node = Node::new().await;
    node.used("shop", 1, 3);
    for (target, accept, csv) in [
        ("/v1/usage", "*/*", false),
        ("/v1/usage", "text/csv", true),
        ("/v1/usage", "application/json, text/csv", false),
        ("/v1/usage?format=csv", "application/json", true),
        ("/v1/usage?format=json", "text/csv", false),
    ] {
        let request = request("GET", target).header("accept", accept);
        let answer = node.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK);
        let kind = answer.header("content-type").split(';').next().unwrap();
        assert_eq!(kind, if csv { "text/csv" } else { "application/json" }, "{target} {accept}");
        assert_eq!(answer.body.starts_with("start,app,"), csv);
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let node = Node::new().await;
    for query in ["since=soon", "by=week", "group=x", "format=xml", "limit=1"] {
        node.ask("GET", &format!("/v1/usage?{query}")).await.error(ErrorCode::BadRequest);
    }
    let turned = "/v1/usage?since=1h&until=2h";
    node.ask("GET", turned).await.error(ErrorCode::Unprocessable);
    node.ask("GET", "/v1/apps/nobody/usage").await.error(ErrorCode::NotFound);
    node.ask("GET", "/v1/apps/No/usage").await.error(ErrorCode::InvalidName);
    node.add("quiet", true).await;
    assert_eq!(node.report("/v1/apps/quiet/usage").await.rows, []);
}
