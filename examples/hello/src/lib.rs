//! Answers `Hello!` on every path.

use faas_sdk::{IntoResponse, Request, Response, Result};

#[faas_sdk::function]
async fn handle(_: Request) -> Result<Response> {
    "Hello!\n".into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_hello() {
        let request = Request::get("/any/path").body(()).unwrap();
        let answer = faas_sdk::testing::call(handle, request);
        assert_eq!(answer.text(), "Hello!\n");
    }
}
