//! Waits for as many milliseconds as its query says (`/?15000`), then answers `slept`.

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasip2::http::proxy::export!(Sleeper);

struct Sleeper;

impl wasip2::exports::http::incoming_handler::Guest for Sleeper {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let milliseconds = path.split_once('?').and_then(|(_, query)| query.parse().ok());
        let nanoseconds = milliseconds.unwrap_or(0_u64) * 1_000_000;
        monotonic_clock::subscribe_duration(nanoseconds).block();
        let response = OutgoingResponse::new(Fields::new());
        let Ok(body) = response.body() else { return };
        ResponseOutparam::set(out, Ok(response));
        // The client may not want it.
        if let Ok(stream) = body.write() {
            let _ = stream.write(b"slept\n");
        }
        let _ = OutgoingBody::finish(body, None);
    }
}
