//! What one asks a request beyond what `http::Request` answers itself.

use std::borrow::Cow;

use crate::Request;
use crate::percent;
use crate::router::Params;

/// Short ways to the parts of a request that handlers ask for most.
pub trait RequestExt {
    /// The part of the path that `:name` stands for in the [`Router`](crate::Router)'s pattern,
    /// decoded. The rest that a trailing `*` stands for is named `*`.
    fn param(&self, name: &str) -> Option<&str>;

    /// The first value of `name` in the query string, decoded. A name without a value has the
    /// empty value; one that is not there, or is not text once decoded, has none.
    ///
    /// ```
    /// use faas_sdk::{Request, RequestExt};
    ///
    /// let request = Request::get("/search?q=caf%C3%A9+au+lait&all").body(()).unwrap();
    /// assert_eq!(request.query("q").as_deref(), Some("café au lait"));
    /// assert_eq!(request.query("all").as_deref(), Some(""));
    /// assert_eq!(request.query("page"), None);
    /// ```
    fn query(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl<B> RequestExt for Request<B> {
    fn param(&self, name: &str) -> Option<&str> {
        self.extensions().get::<Params>()?.get(name)
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        percent::query_value(self.uri().query()?, name)
    }
}
