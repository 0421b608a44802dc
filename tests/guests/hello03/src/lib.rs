//! Answers `Hello from WASI 0.3!` on every path.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Hello);

struct Hello;

impl Guest for Hello {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        let content_type = ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec());
        let fields = Fields::from_list(&[content_type])
            .map_err(|_| ErrorCode::InternalError(Some("its own header".to_owned())))?;
        let (mut writer, body) = wit_stream::new();
        let (end, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(fields, Some(body), trailers);
        spawn_local(async move {
            // The client may not want it.
            let _ = writer.write_all(b"Hello from WASI 0.3!\n".to_vec()).await;
            drop((writer, end));
        });
        Ok(response)
    }
}
