//! Writes an entry of every level to its log, one of many lines and a large one, then answers.

use wasi::logging::logging::{Level, log};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_future;

wit_bindgen::generate!({
    path: "../../../runtime/wit",
    inline: "
        package faas:guest;
        world logging { import wasi:logging/logging@0.1.0-draft; }
    ",
    world: "faas:guest/logging",
    generate_all,
});

wasip3::http::service::export!(Logger);

struct Logger;

impl Guest for Logger {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        log(Level::Trace, "steps", "a trace");
        log(Level::Debug, "steps", "a debug");
        log(Level::Info, "steps", "an info");
        log(Level::Warn, "", "a warn");
        log(Level::Error, "steps", "an error");
        log(Level::Critical, "ste\nps", "a critical\n\u{1b}[2Jof two lines\n");
        log(Level::Info, "large", &"x".repeat(20_000));
        println!("to standard output");
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), None, trailers);
        Ok(response)
    }
}
