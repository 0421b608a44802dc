//! Writes an entry of every level to its log, one of many lines and a large one, then answers.

use wasi::logging::logging::{Level, log};
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wit_bindgen::generate!({
    path: "../../../runtime/wit",
    inline: "
        package faas:guest;
        world logging { import wasi:logging/logging@0.1.0-draft; }
    ",
    world: "faas:guest/logging",
    generate_all,
});

wasip2::http::proxy::export!(Logger);

struct Logger;

impl wasip2::exports::http::incoming_handler::Guest for Logger {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        log(Level::Trace, "steps", "a trace");
        log(Level::Debug, "steps", "a debug");
        log(Level::Info, "steps", "an info");
        log(Level::Warn, "", "a warn");
        log(Level::Error, "steps", "an error");
        log(Level::Critical, "ste\nps", "a critical\n\u{1b}[2Jof two lines\n");
        log(Level::Info, "large", &"x".repeat(20_000));
        println!("to standard output");
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().unwrap();
        ResponseOutparam::set(out, Ok(response));
        let _ = OutgoingBody::finish(body, None);
    }
}
