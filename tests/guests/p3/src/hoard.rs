//! Makes the host hold as much as it lets itself be given.

use std::mem::forget;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Scheme};
use wasip3::{wit_future, wit_stream};

/// Goes on until it has so many, or is stopped.
pub fn hoard(what: &str, most: u64) {
    for _ in 0..most {
        match what {
            "fields" => forget(fields()),
            "requests" => {
                let (end, trailers) = wit_future::new(|| Ok(None));
                let (request, sent) = Request::new(fields(), None, trailers, None);
                let long = "a".repeat(1 << 20);
                let _ = request.set_method(&Method::Other(long.clone()));
                let _ = request.set_scheme(Some(&Scheme::Other(long.clone())));
                let _ = request.set_authority(Some(&long));
                let _ = request.set_path_with_query(Some(&format!("/{long}")));
                forget((end, request, sent));
            }
            "futures" => forget(wit_future::new::<Result<(), ErrorCode>>(|| Ok(()))),
            _ => forget(wit_stream::new::<u8>()),
        }
    }
}

/// As many as there may be.
fn fields() -> Fields {
    let fields = Fields::new();
    while fields.append("x-hoard", &[b'1'; 4000]).is_ok() {}
    fields
}
