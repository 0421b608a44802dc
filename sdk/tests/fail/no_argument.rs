use faas_sdk::{IntoResponse, Response, Result};

#[faas_sdk::function]
async fn handle() -> Result<Response> {
    "hello".into_response()
}

fn main() {}
