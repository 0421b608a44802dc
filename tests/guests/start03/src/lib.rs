//! Never gets as far as its handler: what initialises it does not end.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};

wasip3::http::service::export!(Start);

struct Start;

impl Guest for Start {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        Err(ErrorCode::InternalError(None))
    }
}

extern "C" fn spin() {
    loop {
        std::hint::spin_loop();
        std::hint::black_box(0);
    }
}

/// A constructor, as C++ has them.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = spin;
