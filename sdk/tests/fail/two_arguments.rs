use faas_sdk::{IntoResponse, Request, Response, Result};

#[faas_sdk::function]
async fn handle(request: Request, retries: u32) -> Result<Response> {
    format!("{} {retries}", request.uri()).into_response()
}

fn main() {}
