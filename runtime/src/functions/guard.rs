//! Who may call a function, how often, and from which web pages: what its version says, made ready
//! for requests. Most functions say nothing and have no guard.

use faas_api::{
    AppName, FunctionName, Settings,
    manifest::{Auth, Cors, RateLimit},
};
use http::HeaderValue;
use std::sync::Arc;

/// The usual methods, when a function names none.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// The methods that need no preflight, and so are always allowed (Fetch §2.2.1).
const SIMPLE_METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
/// How long a browser remembers a preflight when the function does not say, in seconds.
const MAX_AGE_S: u32 = 600;

/// What stands between a request and a function.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The app,
    pub(crate) app: AppName,
    /// and the function that is guarded.
    pub(crate) function: FunctionName,
    /// Who may call it.
    pub(crate) access: Access,
    /// How often each client may.
    pub(crate) rate: Option<Rate>,
    /// Which web pages may.
    pub(crate) cors: Option<CorsRules>,
}

/// Who may call a function.
#[derive(Debug)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Who has a key of the app.
    Key,
    /// Who has a token.
    Jwt(JwtRules),
}

/// What a token must be.
#[derive(Debug)]
pub(crate) struct JwtRules {
    /// Its `iss`.
    pub(crate) issuer: String,
    /// One of its `aud`, if the function cares.
    pub(crate) audience: Option<String>,
    /// Where the issuer's keys are.
    pub(crate) jwks: String,
}

/// A rate, as the generic cell rate algorithm has it (ITU-T I.371): times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// From one request to the next, in the long run.
    pub(crate) interval: u64,
    /// How far a client may run ahead of that: as many intervals as may come at once.
    pub(crate) window: u64,
}

/// Which web pages may call a function.
#[derive(Debug)]
pub(crate) struct CorsRules {
    /// Every origin may.
    pub(crate) any: bool,
    /// These may, in the form that browsers send.
    pub(crate) origins: Box<[Box<str>]>,
    /// The methods they may use.
    pub(crate) methods: HeaderValue,
    /// The headers they may set; absent: those they ask for.
    pub(crate) headers: Option<HeaderValue>,
    /// The headers they may read.
    pub(crate) expose: Option<HeaderValue>,
    /// Whether cookies are sent.
    pub(crate) credentials: bool,
    /// How long a browser may remember this, in seconds.
    pub(crate) max_age: HeaderValue,
}

impl Guard {
    /// The guard of a function, if it wants one.
    pub(crate) fn of(
        app: &AppName,
        function: &FunctionName,
        settings: &Settings,
    ) -> Option<Arc<Self>> {
        let Settings { auth, rate_limit, cors, private, .. } = settings;
        let plain = *auth == Auth::Public && rate_limit.is_none() && cors.is_none();
        // Nobody reaches a private function from outside.
        if plain || *private {
            return None;
        }
        Some(Arc::new(Self {
            app: app.clone(),
            function: function.clone(),
            access: Access::new(auth),
            rate: rate_limit.as_ref().map(Rate::new),
            cors: cors.as_ref().map(CorsRules::new),
        }))
    }
}

impl Access {
    fn new(auth: &Auth) -> Self {
        match auth {
            Auth::Public => Self::Public,
            Auth::Key => Self::Key,
            Auth::Jwt { issuer, audience, jwks } => {
                let usual = || format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
                Self::Jwt(JwtRules {
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    jwks: jwks.clone().unwrap_or_else(usual),
                })
            }
        }
    }
}

impl Rate {
    /// The rate that a manifest asks for.
    pub(crate) fn new(limit: &RateLimit) -> Self {
        let interval = limit.per_ms.saturating_mul(1_000_000) / u64::from(limit.requests.max(1));
        let interval = interval.max(1);
        let burst = limit.burst.unwrap_or(limit.requests).max(1);
        Self { interval, window: interval.saturating_mul(u64::from(burst)) }
    }
}

impl CorsRules {
    fn new(cors: &Cors) -> Self {
        let methods = match cors.methods.as_slice() {
            [] => METHODS.to_owned(),
            more => {
                let more = more.iter().map(String::as_str);
                let all = SIMPLE_METHODS.into_iter().chain(more.filter(|m| !is_simple(m)));
                all.collect::<Vec<_>>().join(", ")
            }
        };
        let list = |words: &[String]| (!words.is_empty()).then(|| value(&words.join(", ")));
        Self {
            any: cors.origins.iter().any(|origin| origin == "*"),
            origins: cors.origins.iter().map(|origin| serialized(origin).into()).collect(),
            methods: value(&methods),
            headers: list(&cors.headers),
            expose: list(&cors.expose),
            credentials: cors.credentials,
            max_age: HeaderValue::from(cors.max_age_s.unwrap_or(MAX_AGE_S)),
        }
    }
}

fn is_simple(method: &str) -> bool {
    SIMPLE_METHODS.contains(&method)
}

/// An origin as browsers write it: lower case, without the port that goes without saying.
fn serialized(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let usual = match origin.split_once("://") {
        Some(("https", _)) => ":443",
        Some(("http", _)) => ":80",
        _ => return origin,
    };
    origin.strip_suffix(usual).map(str::to_owned).unwrap_or(origin)
}

/// What a manifest's check let through is made of tokens.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(settings: &Settings) -> Option<Arc<Guard>> {
        Guard::of(&"shop".parse().unwrap(), &"api".parse().unwrap(), settings)
    }

    #[test]
    fn only_who_asks_for_it_has_a_guard() {
        assert!(guard(&Settings::default()).is_none());
        let key = Settings { auth: Auth::Key, ..Settings::default() };
        assert!(guard(&key).is_some());
        assert!(guard(&Settings { private: true, ..key }).is_none());
    }

    #[test]
    fn keys_are_where_issuers_usually_have_them() {
        let of = |issuer: &str, jwks: Option<&str>| {
            let jwks = jwks.map(str::to_owned);
            let auth = Auth::Jwt { issuer: issuer.into(), audience: None, jwks };
            match Access::new(&auth) {
                Access::Jwt(rules) => rules.jwks,
                _ => String::new(),
            }
        };
        for issuer in ["https://a.example", "https://a.example/"] {
            assert_eq!(of(issuer, None), "https://a.example/.well-known/jwks.json");
        }
        assert_eq!(of("https://a.example", Some("https://b.example/k")), "https://b.example/k");
    }

    #[test]
    fn rates() {
        let rate = |requests, per_ms, burst| Rate::new(&RateLimit { requests, per_ms, burst });
        assert_eq!(rate(10, 1000, None), Rate { interval: 100_000_000, window: 1_000_000_000 });
        assert_eq!(rate(10, 1000, Some(1)), Rate { interval: 100_000_000, window: 100_000_000 });
        // What would not fit is as good as for ever.
        assert_eq!(rate(1, 86_400_000, Some(1_000_000)).window, u64::MAX);
        assert_eq!(rate(1_000_000, 1, None).interval, 1);
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        for (written, sent) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(serialized(written), sent);
        }
    }

    #[test]
    fn simple_methods_need_not_be_named() {
        let cors = Cors {
            origins: vec!["*".into()],
            methods: vec!["PUT".into(), "GET".into()],
            ..Cors::default()
        };
        assert_eq!(CorsRules::new(&cors).methods, "GET, HEAD, POST, PUT");
    }
}
