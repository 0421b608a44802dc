//! What a version is made of, as a deploy sends it and as a version keeps it.
//!
//! `faas.toml` is the form for people; this is what the command line makes of it: artifacts by
//! digest, durations in milliseconds, sizes in bytes.

use crate::{
    Digest, FunctionName, OutboundHost, Reuse, Route, Sticky,
    names::{Domain, VarName},
    object,
    outbound::OWN_ROUTES,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use utoipa::ToSchema;

/// The most functions of an app.
pub const MAX_FUNCTIONS: usize = 256;
/// The most domains of an app.
pub const MAX_DOMAINS: usize = 64;
/// The most routes of a function.
pub const MAX_ROUTES: usize = 64;
/// The most variables of a function, and as many secrets.
pub const MAX_VARIABLES: usize = 128;
/// The longest value of a variable, in bytes.
pub const MAX_VALUE_LEN: usize = 5 << 10;
/// The most bytes of all variables of a function, names and values.
pub const MAX_ENVIRONMENT: usize = 64 << 10;

/// An app's functions and where they answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Domains the app answers on, beside its name below the node's own domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 64, example = json!(["shop.example.com"]))]
    pub domains: Vec<Domain>,
    /// A path that must answer with 2xx or 3xx before the version becomes live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/healthz", pattern = "^/", max_length = 1024)]
    pub health: Option<String>,
    /// Its functions.
    #[schema(min_items = 1, max_items = 256)]
    pub functions: Vec<FunctionSpec>,
}

/// A function, as a deploy describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// Unique inside the app.
    #[schema(value_type = String, example = "api", pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length = 40)]
    pub name: FunctionName,
    /// SHA-256 of its artifact.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub digest: Digest,
    /// How far its requests share instances; absent: not at all.
    #[serde(
        default,
        deserialize_with = "object::or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub reuse: Option<Reuse>,
    /// Everything else about it.
    #[serde(default, deserialize_with = "object::only")]
    pub settings: Settings,
}

/// Where a function answers, to whom, what it gets and what it may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which requests of the app it answers; none: all that no other function answers, unless it
    /// is private.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 64, example = json!(["/api/*"]))]
    pub routes: Vec<Route>,
    /// Whether only other functions of the app reach it.
    #[serde(skip_serializing_if = "is_default")]
    pub private: bool,
    /// Whether it sees paths without the fixed part of its route.
    #[serde(skip_serializing_if = "is_default")]
    pub strip_prefix: bool,
    /// Environment variables. What `faas env` sets for the app wins over these.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub env: BTreeMap<VarName, String>,
    /// Secrets it gets, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 128)]
    pub secrets: Vec<VarName>,
    /// What it may reach.
    #[serde(deserialize_with = "object::only", skip_serializing_if = "is_default")]
    pub grants: Grants,
    /// What a call may use, where that is not the node's default.
    #[serde(deserialize_with = "object::only", skip_serializing_if = "is_default")]
    pub limits: LimitWishes,
    /// Who may call it.
    #[serde(deserialize_with = "object::only", skip_serializing_if = "is_default")]
    pub auth: Auth,
    /// How often each client may call it; absent: as often as it likes.
    #[serde(deserialize_with = "object::or_null", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Which web pages of other origins may call it; absent: the function answers for itself.
    #[serde(deserialize_with = "object::or_null", skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// What a function may reach. Nothing unless it is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Hosts it may send requests to: `https://api.stripe.com`, `http://10.0.0.5:9000`,
    /// `https://*.example.com`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 64,
        example = json!(["https://api.stripe.com"]))]
    pub outbound: Vec<OutboundHost>,
}

/// What a function wants to use per call. What is absent is the node's default; the node's maxima
/// are never exceeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitWishes {
    /// CPU time of one call, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub cpu_ms: Option<u64>,
    /// Time to the head of the response, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub first_byte_ms: Option<u64>,
    /// Time of a whole call, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub wall_ms: Option<u64>,
    /// How long a response that has begun may wait for more of its body, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub response_idle_ms: Option<u64>,
    /// Linear memory of one instance, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 65536)]
    pub memory_bytes: Option<u64>,
    /// The largest request body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_bytes: Option<u64>,
    /// What one call may write to its log, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// Requests that one call may send, with those of the functions it calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub subrequests: Option<u32>,
    /// Calls at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub concurrency: Option<u32>,
}

/// Who may call a function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// Everybody.
    #[default]
    Public,
    /// Who has one of the app's keys: `authorization: Bearer KEY` or `x-api-key: KEY`.
    Key,
    /// Who has a JSON Web Token (RFC 7519) that this issuer signed.
    Jwt {
        /// `iss` that tokens must have.
        #[schema(example = "https://accounts.example.com")]
        issuer: String,
        /// `aud` that tokens must have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// Where the issuer's keys are (RFC 7517); absent: `<issuer>/.well-known/jwks.json`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        jwks: Option<String>,
    },
}

/// How often one client may call a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many requests
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub requests: u32,
    /// in so many milliseconds.
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub per_ms: u64,
    /// How many may come at once after a pause; absent: as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub burst: Option<u32>,
}

/// Which web pages of other origins may call a function (Fetch §3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Origins such as `https://app.example.com`; `*` is every one.
    #[schema(min_items = 1, max_items = 64)]
    pub origins: Vec<String>,
    /// Methods beside GET, HEAD and POST; none: the usual seven.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub methods: Vec<String>,
    /// Request headers a page may set; none: those it asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub headers: Vec<String>,
    /// Response headers a page may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub expose: Vec<String>,
    /// Whether cookies are sent; not with origin `*`.
    #[serde(skip_serializing_if = "is_default")]
    pub credentials: bool,
    /// How long a browser may remember this, in seconds; absent: 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 86_400)]
    pub max_age_s: Option<u32>,
}

/// The body of `POST /v1/apps/{app}/versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// What the version is made of.
    #[serde(deserialize_with = "object::only")]
    pub manifest: Manifest,
    /// What is deployed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub message: Option<String>,
    /// Whether the version becomes live.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub activate: bool,
    /// Gives it a part of the traffic instead of all.
    #[serde(
        default,
        deserialize_with = "object::or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub canary: Option<CanaryWish>,
    /// Checks everything and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A version that shall get a part of the traffic, for as long as it does well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryWish {
    /// Its share of the traffic, in percent; what was live keeps the rest.
    #[schema(minimum = 1, maximum = 99)]
    pub percent: u8,
    /// How a client stays with a version; absent: each request is drawn anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// It loses its share when more than so many percent of its answers are failures (5xx);
    /// absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub abort_above_percent: Option<u8>,
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// Where: `functions.api.routes`.
    pub at: String,
    /// What is wrong there.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

impl Manifest {
    /// The function of this name.
    pub fn function(&self, name: &FunctionName) -> Option<&FunctionSpec> {
        self.functions.iter().find(|function| function.name == *name)
    }

    /// Every artifact it refers to, once.
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests: Vec<Digest> = self.functions.iter().map(|f| f.digest).collect();
        digests.sort();
        digests.dedup();
        digests
    }

    /// Gives every function that says nothing a route, and looks for what the types do not rule
    /// out. What depends on a node – its maxima, other apps – is not looked at.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&mut self) -> Result<(), ManifestProblem> {
        let range = |at: &str, count: usize, most: usize| match count <= most {
            true => Ok(()),
            false => Err(problem(at, format!("{count} are too many, {most} are possible"))),
        };
        if self.functions.is_empty() {
            return Err(problem("functions", "an app has at least one function"));
        }
        range("functions", self.functions.len(), MAX_FUNCTIONS)?;
        range("domains", self.domains.len(), MAX_DOMAINS)?;
        if let Some(twice) = twice(&self.domains) {
            return Err(problem("domains", format!("`{twice}` stands there twice")));
        }
        if let Some(path) = self.health.as_deref().filter(|path| !is_path(path)) {
            return Err(problem(
                "health",
                format!("`{}` is no path, such as /healthz", path.escape_debug()),
            ));
        }
        let names: Vec<&FunctionName> = self.functions.iter().map(|f| &f.name).collect();
        if let Some(twice) = twice(&names) {
            return Err(problem("functions", format!("there are two functions `{twice}`")));
        }
        for function in &mut self.functions {
            function.check(&self.domains)?;
        }
        self.check_routes()
    }

    /// No two functions may claim the same requests.
    fn check_routes(&self) -> Result<(), ManifestProblem> {
        let mut seen: Vec<(&FunctionName, &Route)> = Vec::new();
        for function in &self.functions {
            for route in &function.settings.routes {
                if let Some((owner, known)) = seen.iter().find(|(_, known)| known.same_as(route)) {
                    let at = format!("functions.{}.routes", function.name);
                    let again = match *owner == &function.name {
                        true => "it has already".to_owned(),
                        false => format!("function `{owner}` has already"),
                    };
                    let as_written = match known.as_str() == route.as_str() {
                        true => String::new(),
                        false => format!(", written `{known}`"),
                    };
                    return Err(problem(&at, format!("route `{route}` {again}{as_written}"))
                        .hint("a route leads to one function; make one of them more exact"));
                }
                seen.push((&function.name, route));
            }
        }
        Ok(())
    }
}

impl FunctionSpec {
    fn check(&mut self, domains: &[Domain]) -> Result<(), ManifestProblem> {
        let name = self.name.clone();
        let at = |key: &str| format!("functions.{name}.{key}");
        if name.as_str() == OWN_ROUTES {
            return Err(problem("functions", "no function can be called `self`")
                .hint("`http://self.internal/` is the app itself, by its routes"));
        }
        let settings = &mut self.settings;
        if settings.routes.is_empty() && !settings.private {
            settings.routes.push(Route::everything());
        }
        if settings.private && !settings.routes.is_empty() {
            return Err(problem(&at("routes"), "a private function has no routes")
                .hint("remove `routes`, or `private = true`"));
        }
        if settings.routes.len() > MAX_ROUTES {
            return Err(problem(&at("routes"), format!("more than {MAX_ROUTES}")));
        }
        let foreign = settings.routes.iter().find_map(|route| {
            route.host().filter(|host| domains.iter().all(|domain| domain.as_str() != *host))
        });
        if let Some(host) = foreign {
            return Err(problem(
                &at("routes"),
                format!("`{host}` is not one of the app's domains"),
            )
            .hint("add it to `domains` of [app]"));
        }
        settings.check_environment(&at)?;
        settings.limits.check().map_err(|why| problem(&at("limits"), why))?;
        if settings.grants.outbound.len() > 64 {
            return Err(problem(&at("grants.outbound"), "more than 64 hosts"));
        }
        if let Some(limit) = &settings.rate_limit {
            limit.check().map_err(|why| problem(&at("rate_limit"), why))?;
        }
        if let Some(cors) = &settings.cors {
            cors.check().map_err(|why| problem(&at("cors"), why))?;
        }
        settings.auth.check().map_err(|why| problem(&at("auth"), why))?;
        match &self.reuse {
            Some(reuse) => reuse.check(None).map_err(|why| problem(&at("reuse"), why)),
            None => Ok(()),
        }
    }
}

impl Settings {
    fn check_environment(&self, at: &impl Fn(&str) -> String) -> Result<(), ManifestProblem> {
        if self.env.len() > MAX_VARIABLES {
            return Err(problem(&at("env"), format!("more than {MAX_VARIABLES} variables")));
        }
        if self.secrets.len() > MAX_VARIABLES {
            return Err(problem(&at("secrets"), format!("more than {MAX_VARIABLES} secrets")));
        }
        if let Some(twice) = twice(&self.secrets) {
            return Err(problem(&at("secrets"), format!("`{twice}` stands there twice")));
        }
        if let Some(both) = self.secrets.iter().find(|name| self.env.contains_key(*name)) {
            return Err(problem(&at("env"), format!("`{both}` is a secret, too")));
        }
        let long = |value: &str| value.len() > MAX_VALUE_LEN;
        if let Some((name, _)) = self.env.iter().find(|(_, value)| long(value)) {
            return Err(problem(
                &at("env"),
                format!("`{name}` has more than {MAX_VALUE_LEN} bytes"),
            ));
        }
        if let Some((name, _)) = self.env.iter().find(|(_, value)| value.contains('\0')) {
            return Err(problem(&at("env"), format!("`{name}` has a NUL character")));
        }
        let total: usize =
            self.env.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        match total > MAX_ENVIRONMENT {
            true => Err(problem(
                &at("env"),
                format!("all variables together have more than {MAX_ENVIRONMENT} bytes"),
            )),
            false => Ok(()),
        }
    }
}

impl LimitWishes {
    /// Whether each is more than nothing.
    fn check(&self) -> Result<(), String> {
        let times = [self.cpu_ms, self.first_byte_ms, self.wall_ms, self.response_idle_ms];
        let counts = [self.concurrency, self.subrequests].map(|count| count.map(u64::from));
        if times.into_iter().chain(counts).any(|limit| limit == Some(0)) {
            return Err("a limit is at least 1".to_owned());
        }
        match self.memory_bytes.is_some_and(|bytes| bytes < 1 << 16) {
            true => Err("`memory` is at least 64 KiB, one page".to_owned()),
            false => Ok(()),
        }
    }
}

impl Auth {
    fn check(&self) -> Result<(), String> {
        let Self::Jwt { issuer, audience, jwks } = self else {
            return Ok(());
        };
        for url in [Some(issuer), jwks.as_ref()].into_iter().flatten() {
            if !is_url(url) {
                return Err(format!(
                    "`{}` is no URL, such as https://accounts.example.com",
                    url.escape_debug()
                ));
            }
        }
        match audience.as_deref() {
            Some("") => Err("`audience` is empty; leave it out to take every one".to_owned()),
            _ => Ok(()),
        }
    }
}

impl RateLimit {
    fn check(&self) -> Result<(), String> {
        let counts = [Some(self.requests), self.burst].into_iter().flatten();
        if counts.into_iter().any(|count| !(1..=1_000_000).contains(&count)) {
            return Err("`requests` and `burst` are from 1 to 1000000".to_owned());
        }
        match (1..=86_400_000).contains(&self.per_ms) {
            true => Ok(()),
            false => Err("`per` is from 1ms to 24h".to_owned()),
        }
    }
}

impl Cors {
    fn check(&self) -> Result<(), String> {
        if self.origins.is_empty() {
            return Err("`origins` names at least one, or `*`".to_owned());
        }
        for origin in &self.origins {
            let host = origin.split_once("://").map(|(_, host)| host);
            let good = host.is_some_and(|host| {
                !host.is_empty() && !host.contains(['/', '*', ' ', ',', '?', '#'])
            });
            if origin != "*" && !good {
                return Err(format!(
                    "`{}` is no origin, such as https://app.example.com",
                    origin.escape_debug()
                ));
            }
        }
        if self.credentials && self.origins.iter().any(|origin| origin == "*") {
            return Err("`credentials` needs origins by name; `*` is not enough".to_owned());
        }
        let is_token = |text: &String| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&b))
        };
        let words = self.methods.iter().chain(&self.headers).chain(&self.expose);
        match words.into_iter().find(|word| !is_token(word)) {
            Some(word) => Err(format!("`{}` is no method or header", word.escape_debug())),
            None => Ok(()),
        }
    }
}

/// Whether it names a host by http or https, without user and fragment.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let good = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b);
    !host.is_empty() && !host.contains('@') && text.len() <= 2048 && text.bytes().all(good)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic())
}

fn twice<T: Ord>(items: &[T]) -> Option<&T> {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort();
    sorted.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    })
}

fn problem(at: &str, problem: impl Into<String>) -> ManifestProblem {
    ManifestProblem { at: at.to_owned(), problem: problem.into(), hint: None }
}

impl ManifestProblem {
    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_issuers() {
        for good in [
            "https://accounts.example.com",
            "https://id.example.com/realms/a/protocol/certs?v=1",
            "http://127.0.0.1:8080/keys",
            "https://[::1]/",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "",
            "https://",
            "https:///keys",
            "ftp://a.example",
            "a.example",
            "https://a.example/ b",
            "https://a.example/#b",
            "https://user@a.example/",
            "https://a.example/\n",
            &format!("https://a.example/{}", "x".repeat(2048)),
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_said_of_callers_is_checked() {
        let jwt = |issuer: &str, audience: Option<&str>| Auth::Jwt {
            issuer: issuer.to_owned(),
            audience: audience.map(str::to_owned),
            jwks: None,
        };
        assert!(Auth::Key.check().is_ok());
        assert!(jwt("https://a.example", Some("shop")).check().is_ok());
        assert!(jwt("a.example", None).check().is_err());
        assert!(jwt("https://a.example", Some("")).check().is_err());
    }
}
