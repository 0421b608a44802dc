//! Apps of several functions, deployed as a client of the API would.

use crate::{Answer, Node, Request};
use faas_api::Digest;
use serde_json::{Value, json};

/// A function to deploy.
#[derive(Debug, Clone)]
pub struct Deploy {
    name: String,
    wasm: Vec<u8>,
    settings: Value,
}

impl Deploy {
    /// A function with these settings, as a manifest has them.
    pub fn new(name: &str, wasm: Vec<u8>, settings: Value) -> Self {
        Self { name: name.to_owned(), wasm, settings }
    }
}

impl Node {
    /// Deploys an app of these functions: what is new is sent, then the manifest.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn try_deploy_functions(&self, app: &str, functions: &[Deploy]) -> Answer {
        let functions: Vec<Value> = functions
            .iter()
            .map(|function| {
                let digest = Digest::of(&function.wasm).to_string();
                let blob = Request::new("PUT", &format!("/v1/blobs/{digest}"));
                let blob = blob.header("content-type", "application/wasm");
                let stored = self.api(blob.body(function.wasm.clone()));
                assert!(stored.status < 300, "{stored:?}");
                json!({
                    "name": function.name, "digest": digest, "settings": function.settings,
                })
            })
            .collect();
        let version = json!({"manifest": {"functions": functions}});
        let request = Request::post(&format!("/v1/apps/{app}/versions"), version.to_string());
        self.api(request.header("content-type", "application/json"))
    }

    /// Deploys an app of these functions.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn deploy_functions(&self, app: &str, functions: &[Deploy]) {
        let answer = self.try_deploy_functions(app, functions);
        assert!(answer.status < 300, "{answer:?}");
    }

    /// What an app's log has about a request.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn lines(&self, app: &str, request_id: &str) -> Vec<Value> {
        let args = ["logs", app, "--request-id", request_id, "-o", "json"];
        self.cli(args).run().expect(0).json_lines()
    }

    /// What an app's log has about a request, every function's messages, one a line.
    ///
    /// # Panics
    /// When the log cannot be read.
    pub fn messages(&self, app: &str, request_id: &str) -> Vec<String> {
        let lines = self.lines(app, request_id);
        lines.iter().filter_map(|line| line["message"].as_str().map(str::to_owned)).collect()
    }
}
