//! A small stateless JSON service: two routes, and every mistake answered as JSON too.

use faas_sdk::{Error, IntoResponse, Json, Request, RequestExt, Response, Result, Router};
use serde::{Deserialize, Serialize};

/// No honest list of numbers is longer.
const BODY_LIMIT: usize = 64 * 1024;

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<f64>,
}

#[derive(Serialize)]
struct Sum {
    sum: f64,
}

#[derive(Serialize)]
struct Greeting<'a> {
    greeting: &'a str,
}

#[faas_sdk::function]
async fn handle(request: Request) -> Response {
    let router = Router::new().post("/sum", sum).get("/greet/:name", greet);
    router.handle(request).await.unwrap_or_else(Error::into_problem)
}

async fn sum(mut request: Request) -> Result<Json<Sum>> {
    let Numbers { numbers } = request.body_mut().json(BODY_LIMIT).await?;
    let sum: f64 = numbers.iter().sum();
    if !sum.is_finite() {
        return Err(Error::status(422, "the sum is too large"));
    }
    Ok(Json(Sum { sum }))
}

fn greet(request: Request) -> Result<Response> {
    let name = request.param("name").unwrap_or("nobody");
    let greeting = &format!("Hello, {name}!");
    Json(Greeting { greeting }).into_response()
}

#[cfg(test)]
mod tests {
    use faas_sdk::testing::{Answer, call};
    use serde_json::{Value, json};

    use super::*;

    fn ask(method: &str, path: &str, body: &'static str) -> (u16, Value, Answer) {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let answer = call(handle, request);
        (answer.status.as_u16(), answer.json().unwrap(), answer)
    }

    #[test]
    fn sums() {
        let (status, body, answer) = ask("POST", "/sum", r#"{"numbers": [1, 2.5]}"#);
        assert_eq!((status, body), (200, json!({"sum": 3.5})));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }

    #[test]
    fn greets() {
        let (_, body, _) = ask("GET", "/greet/Ad%C3%A8le", "");
        assert_eq!(body, json!({"greeting": "Hello, Adèle!"}));
    }

    #[test]
    fn mistakes_are_json_too() {
        for (method, path, body, expected) in [
            ("POST", "/sum", "{\"numbers\": [1,", 400),
            ("GET", "/nothing", "", 404),
            ("GET", "/sum", "", 405),
            ("POST", "/sum", r#"{"numbers": "many"}"#, 422),
            ("POST", "/sum", r#"{"numbers": [1e308, 1e308]}"#, 422),
        ] {
            let (status, problem, answer) = ask(method, path, body);
            assert_eq!((status, &problem["status"]), (expected, &json!(expected)));
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
    }
}
