use faas_sdk::{IntoResponse, Request, Response, Result};

#[faas_sdk::function]
async fn handle(_request: Request) -> Result<Response> {
    "Hello!\n".into_response()
}
