//! Makes the host hold as much as it lets itself be given.

use std::mem::forget;
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{
    Fields, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, Scheme,
};

/// Goes on until it has so many, or is stopped.
pub fn hoard(what: &str, most: u64) {
    for _ in 0..most {
        match what {
            "bodies" => {
                let request = OutgoingRequest::new(Fields::new());
                fill(request.body().unwrap());
                forget(request);
            }
            "responses" => {
                let response = OutgoingResponse::new(Fields::new());
                fill(response.body().unwrap());
                forget(response);
            }
            "fields" => forget(fields()),
            "requests" => {
                let request = OutgoingRequest::new(fields());
                let long = "a".repeat(1 << 20);
                let _ = request.set_method(&Method::Other(long.clone()));
                let _ = request.set_scheme(Some(&Scheme::Other(long.clone())));
                let _ = request.set_authority(Some(&long));
                let _ = request.set_path_with_query(Some(&format!("/{long}")));
                fill(request.body().unwrap());
                forget(request);
            }
            _ => forget(monotonic_clock::subscribe_duration(u64::MAX)),
        }
    }
}

/// Writes while there is room, and lets the body end.
fn fill(body: OutgoingBody) {
    let stream = body.write().unwrap();
    while let Ok(room @ 1..) = stream.check_write() {
        stream.write(&vec![1; room as usize]).unwrap();
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// As many as there may be: one more would be the end.
fn fields() -> Fields {
    let fields = Fields::new();
    for _ in 0..15 {
        let _ = fields.append("x-hoard", &[b'1'; 4000]);
    }
    fields
}
