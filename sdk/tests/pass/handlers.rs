//! Every form a handler may have.

#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]

use faas_sdk::{Body, Error, IntoResponse, Json, Request, Response, Result, StatusCode};

mod usual {
    use super::*;

    /// With documentation and a name of its own.
    #[faas_sdk::function]
    pub async fn greet(request: Request) -> Result<Response> {
        request.uri().path().to_owned().into_response()
    }
}

mod plain {
    use super::*;

    #[faas_sdk::function]
    fn handle(_: Request) -> &'static str {
        "hello"
    }
}

mod destructured {
    use super::*;

    #[faas_sdk::function]
    async fn handle(mut request: Request) -> Result<(StatusCode, Json<Vec<u8>>), Error> {
        let numbers = request.body_mut().json(1024).await?;
        Ok((StatusCode::CREATED, Json(numbers)))
    }
}

mod opaque {
    use super::*;

    #[faas_sdk::function]
    async fn handle(request: faas_sdk::http::Request<Body>) -> impl IntoResponse {
        request.into_body()
    }
}

mod other_error {
    use super::*;

    #[faas_sdk::function]
    async fn handle(_: Request) -> std::result::Result<String, std::num::ParseIntError> {
        Ok("7".parse::<u8>()?.to_string())
    }
}

fn main() {
    let request = Request::new(Body::empty());
    assert_eq!(faas_sdk::testing::call(usual::greet, request).text(), "/");
}
