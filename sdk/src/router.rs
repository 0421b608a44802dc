//! A small router: method and path to handler.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::{HeaderValue, Method, header};

use crate::percent;
use crate::{Error, Handler, Request, Response, Result, StatusCode};

/// Chooses a handler by method and path.
///
/// A pattern is a path. A segment `:name` stands for any one segment, and a last segment `*` for
/// any rest, also an empty one; [`RequestExt::param`](crate::RequestExt::param) tells what they
/// stood for. If several patterns match, the more literal one wins, whatever their order.
///
/// A handler for GET also answers HEAD; the server leaves the body out. An unknown path is a 404,
/// an unknown method a 405.
///
/// ```
/// use faas_sdk::{Request, RequestExt, Response, Result, Router};
///
/// #[faas_sdk::function]
/// async fn handle(request: Request) -> Result<Response> {
///     Router::new().get("/", home).get("/users/:name", user).handle(request).await
/// }
///
/// async fn home(_: Request) -> &'static str {
///     "welcome"
/// }
///
/// async fn user(request: Request) -> String {
///     format!("this is {}", request.param("name").unwrap_or_default())
/// }
/// # let answer = faas_sdk::testing::call(handle, Request::get("/users/J%C3%BCrgen").body(()).unwrap());
/// # assert_eq!(answer.text(), "this is Jürgen");
/// ```
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    /// The first pattern that is none. Reported with each request: a router is made anew for each,
    /// and there is no other good moment.
    mistake: Option<Mistake>,
}

struct Route {
    /// `None` for any.
    method: Option<Method>,
    pattern: &'static str,
    handler: Box<dyn ErasedHandler>,
}

#[derive(Clone, Copy)]
struct Mistake {
    pattern: &'static str,
    what: &'static str,
}

impl Router {
    /// A router that knows no path yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `handler` answer GET, and HEAD unless that has a handler of its own.
    #[must_use]
    pub fn get<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(Some(Method::GET), pattern, handler)
    }

    /// Has `handler` answer POST.
    #[must_use]
    pub fn post<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(Some(Method::POST), pattern, handler)
    }

    /// Has `handler` answer PUT.
    #[must_use]
    pub fn put<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(Some(Method::PUT), pattern, handler)
    }

    /// Has `handler` answer PATCH.
    #[must_use]
    pub fn patch<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(Some(Method::PATCH), pattern, handler)
    }

    /// Has `handler` answer DELETE.
    #[must_use]
    pub fn delete<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(Some(Method::DELETE), pattern, handler)
    }

    /// Has `handler` answer `method`, whatever it is.
    #[must_use]
    pub fn route<Kind: 'static>(
        self,
        method: Method,
        pattern: &'static str,
        handler: impl Handler<Kind>,
    ) -> Self {
        self.add(Some(method), pattern, handler)
    }

    /// Has `handler` answer every method that has no handler of its own on this pattern.
    #[must_use]
    pub fn any<Kind: 'static>(self, pattern: &'static str, handler: impl Handler<Kind>) -> Self {
        self.add(None, pattern, handler)
    }

    /// Answers a request by the handler that fits it.
    ///
    /// # Errors
    ///
    /// What the handler fails with; 404 or 405 if there is none; 400 if a part of the path is not
    /// text once decoded.
    pub async fn handle(&self, mut request: Request) -> Result<Response> {
        if let Some(Mistake { pattern, what }) = self.mistake {
            return Err(Error::internal(format_args!("route `{pattern}`: {what}")));
        }
        let path = request.uri().path();
        let route = self.find(path, request.method())?;
        let params = Params::read(route.pattern, path)
            .ok_or_else(|| Error::status(StatusCode::BAD_REQUEST, "the path is not valid text"))?;
        request.extensions_mut().insert(params);
        route.handler.call_boxed(request).await
    }

    fn add<Kind: 'static>(
        mut self,
        method: Option<Method>,
        pattern: &'static str,
        handler: impl Handler<Kind>,
    ) -> Self {
        if let Some(what) = mistake_in(pattern) {
            self.mistake.get_or_insert(Mistake { pattern, what });
        }
        let handler = Box::new(Erased { handler, kind: std::marker::PhantomData });
        self.routes.push(Route { method, pattern, handler });
        self
    }

    fn find(&self, path: &str, method: &Method) -> Result<&Route> {
        // Of the patterns that match, only those as literal as the most literal one count.
        let mut best: Vec<&Route> = Vec::new();
        for route in self.routes.iter().filter(|route| matches(route.pattern, path)) {
            match best.first().map(|other| rank(route.pattern).cmp(rank(other.pattern))) {
                Some(std::cmp::Ordering::Greater) => continue,
                Some(std::cmp::Ordering::Less) => best.clear(),
                Some(std::cmp::Ordering::Equal) | None => {}
            }
            best.push(route);
        }
        if best.is_empty() {
            return Err(Error::status(StatusCode::NOT_FOUND, "not found"));
        }
        let takes = |wanted: Option<&Method>| {
            best.iter().copied().find(|route| route.method.as_ref() == wanted)
        };
        takes(Some(method))
            .or_else(|| takes(Some(&Method::GET)).filter(|_| method == Method::HEAD))
            .or_else(|| takes(None))
            .ok_or_else(|| not_allowed(&best))
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self
            .routes
            .iter()
            .map(|route| (route.method.as_ref().map_or("any", Method::as_str), route.pattern));
        f.debug_list().entries(routes).finish()
    }
}

/// A handler behind a pointer, so that routes with different ones fit into one list.
trait ErasedHandler {
    fn call_boxed(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Response>> + '_>>;
}

struct Erased<H, Kind> {
    handler: H,
    kind: std::marker::PhantomData<fn(Kind)>,
}

impl<H: Handler<Kind>, Kind> ErasedHandler for Erased<H, Kind> {
    fn call_boxed(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<Response>> + '_>> {
        Box::pin(self.handler.call(request))
    }
}

/// What the variable parts of a pattern stood for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(&'static str, String)>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// `None` if a part cannot be decoded. The pattern must match the path.
    fn read(pattern: &'static str, path: &str) -> Option<Self> {
        let mut params = Vec::new();
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        for part in segments(pattern) {
            let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
            match kind(part) {
                Kind::Literal => {}
                Kind::Param(name) => params.push((name, percent::decode(segment)?.into_owned())),
                Kind::Rest => params.push(("*", percent::decode(rest)?.into_owned())),
            }
            rest = after;
        }
        Some(Self(params))
    }
}

/// The kinds of a pattern's segments, the most literal first.
enum Kind<'p> {
    Literal,
    Param(&'p str),
    Rest,
}

fn kind(segment: &str) -> Kind<'_> {
    match segment.strip_prefix(':') {
        Some(name) => Kind::Param(name),
        None if segment == "*" => Kind::Rest,
        None => Kind::Literal,
    }
}

fn segments(path: &str) -> std::str::Split<'_, char> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// How far from literal each segment is. Of two patterns that match a path, the lesser is meant.
fn rank(pattern: &str) -> impl Iterator<Item = u8> {
    segments(pattern).map(|segment| match kind(segment) {
        Kind::Literal => 0,
        Kind::Param(_) => 1,
        Kind::Rest => 2,
    })
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = segments(path);
    for segment in segments(pattern) {
        let part = parts.next();
        let fits = match kind(segment) {
            Kind::Rest => return part.is_some(),
            Kind::Param(_) => part.is_some_and(|part| !part.is_empty()),
            Kind::Literal => part.is_some_and(|part| is_same(segment, part)),
        };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

/// Whether a segment of the path is the literal one: `/caf%C3%A9` is `/café`.
fn is_same(literal: &str, part: &str) -> bool {
    literal == part || percent::decode(part).is_some_and(|decoded| decoded == literal)
}

fn mistake_in(pattern: &str) -> Option<&'static str> {
    if !pattern.starts_with('/') {
        return Some("a pattern starts with `/`");
    }
    let mut parts = segments(pattern).peekable();
    while let Some(part) = parts.next() {
        match kind(part) {
            Kind::Param("") => return Some("a `:` needs a name after it"),
            Kind::Rest if parts.peek().is_some() => return Some("a `*` can only be the last part"),
            _ => {}
        }
    }
    None
}

/// A 405 says which methods there are.
fn not_allowed(routes: &[&Route]) -> Error {
    let mut allow = String::new();
    for method in routes.iter().filter_map(|route| route.method.as_ref()) {
        for name in [method.as_str(), if method == Method::GET { "HEAD" } else { "" }] {
            if !name.is_empty() && !allow.split(", ").any(|known| known == name) {
                allow.push_str(if allow.is_empty() { "" } else { ", " });
                allow.push_str(name);
            }
        }
    }
    let error = Error::status(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    match HeaderValue::try_from(allow) {
        Ok(allow) => error.with_header(header::ALLOW, allow),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, call};
    use crate::{Body, RequestExt};

    fn ask(router: fn() -> Router, method: &str, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        call(move |request| async move { router().handle(request).await }, request)
    }

    fn shop() -> Router {
        Router::new()
            .get("/items/*", |request: Request| format!("rest {}", request.param("*").unwrap()))
            .get("/items/:id", |request: Request| format!("item {}", request.param("id").unwrap()))
            .get("/items/new", |_: Request| "form")
            .post("/items/:id", async |_: Request| StatusCode::ACCEPTED)
            .any("/any", |request: Request| request.method().to_string())
            .delete("/any", |_: Request| "deleted")
            .get("/café", |_: Request| "café")
            .get("/", |_: Request| "home")
    }

    #[test]
    fn the_most_literal_pattern_wins() {
        assert_eq!(ask(shop, "GET", "/items/new").text(), "form");
        assert_eq!(ask(shop, "GET", "/items/7").text(), "item 7");
        assert_eq!(ask(shop, "GET", "/items/7/parts/1").text(), "rest 7/parts/1");
        assert_eq!(ask(shop, "GET", "/items/").text(), "rest ");
        assert_eq!(ask(shop, "GET", "/?a=1").text(), "home");
    }

    #[test]
    fn parts_are_decoded_after_they_are_split() {
        assert_eq!(ask(shop, "GET", "/items/a%2Fb%20c").text(), "item a/b c");
        assert_eq!(ask(shop, "GET", "/caf%C3%A9").text(), "café");
        assert_eq!(ask(shop, "GET", "/items/%ff").status, 400);
    }

    #[test]
    fn unknown_paths_and_methods() {
        for path in ["/items", "/nothing", "/any/", "//"] {
            assert_eq!(ask(shop, "GET", path).status, 404, "{path}");
        }
        let refused = ask(shop, "PUT", "/items/7");
        assert_eq!(refused.status, 405);
        assert_eq!(refused.header("allow"), Some("GET, HEAD, POST"));
        // A literal path hides the methods of a wider pattern.
        assert_eq!(ask(shop, "POST", "/items/new").status, 405);
    }

    #[test]
    fn head_and_any() {
        assert_eq!(ask(shop, "HEAD", "/items/7").text(), "item 7");
        assert_eq!(ask(shop, "POST", "/items/7").status, 202);
        assert_eq!(ask(shop, "DELETE", "/any").text(), "deleted");
        assert_eq!(ask(shop, "BREW", "/any").text(), "BREW");
    }

    #[test]
    fn a_wrong_pattern_is_reported() {
        let wrong: [fn() -> Router; 3] = [
            || Router::new().get("items", |_: Request| ""),
            || Router::new().get("/a/*/b", |_: Request| ""),
            || Router::new().get("/:", |_: Request| ""),
        ];
        for router in wrong {
            assert_eq!(ask(router, "GET", "/").status, 500);
        }
    }

    #[test]
    fn no_param_without_a_router() {
        assert_eq!(Request::new(()).param("id"), None);
    }
}
