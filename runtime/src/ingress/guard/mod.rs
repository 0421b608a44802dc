//! What stands between a request and a function that says who may call it: web pages of other
//! origins, keys and tokens, rates. In this order, before the request's body is read.
//!
//! | part | what it knows |
//! |---|---|
//! | [`cors`] | which web pages may ask, and what their browsers are told |
//! | [`credentials`] | where a request carries its key or token |
//! | [`jwt`] | whether a token is what its function wants |
//! | [`jwks`] | the keys of issuers: kept, renewed, fetched once for all who wait |
//! | [`fetch`] | how they are fetched, and from where they never are |
//! | [`rate`] | how often each client has called |
//!
//! A function without a guard costs one look. A key costs a hash and two look-ups; a token, the
//! check of its signature. Only a request that needs an issuer's keys which are not there waits for
//! anything, and never on the thread that fetches them.

pub(super) mod cors;
mod credentials;
mod fetch;
mod jwks;
mod jwt;
mod rate;

use self::{
    credentials::{Credential, Misplaced},
    fetch::Fetch,
    jwks::Issuers,
    jwt::Refusal,
    rate::{Client, Rates},
};
use crate::{
    config::ConfigError,
    functions::{
        guard::{Access, Guard, JwtRules},
        keys::{Keys, LiveKey},
    },
};
use faas_api::{Digest, ErrorCode};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// Who calls, as the node found out; a client's own copy is dropped.
pub(super) const CALLER: HeaderName = HeaderName::from_static("x-faas-caller");
/// How often what is known of idle clients is forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// How callers of functions are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Whether issuers of tokens may be at private and loopback addresses, there also without TLS.
    pub allow_private_issuers: bool,
    /// A PEM file with certificate authorities to trust for issuers besides the system's.
    pub jwks_ca: PathBuf,
    /// Seconds that an issuer's keys are used before they are fetched again, when the issuer does
    /// not say; it can say up to a day.
    pub jwks_max_age_s: u64,
    /// Seconds that an issuer's keys are used after that while they cannot be fetched.
    pub jwks_stale_s: u64,
    /// Seconds between two fetches of an issuer's keys.
    pub jwks_pause_s: u64,
    /// Seconds that a fetch may take.
    pub jwks_timeout_s: u64,
    /// The most clients whose rates are remembered.
    pub rate_limit_clients: usize,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            allow_private_issuers: false,
            jwks_ca: PathBuf::new(),
            jwks_max_age_s: 3600,
            jwks_stale_s: 86_400,
            jwks_pause_s: 10,
            jwks_timeout_s: 5,
            rate_limit_clients: 100_000,
        }
    }
}

impl AuthConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first setting that cannot be used, and why.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("auth.jwks_max_age_s", self.jwks_max_age_s, 1, 86_400),
            ("auth.jwks_stale_s", self.jwks_stale_s, 0, 604_800),
            ("auth.jwks_pause_s", self.jwks_pause_s, 1, 3600),
            ("auth.jwks_timeout_s", self.jwks_timeout_s, 1, 60),
            ("auth.rate_limit_clients", self.rate_limit_clients as u64, 100, 100_000_000),
        ];
        for (key, value, low, high) in ranges {
            if !(low..=high).contains(&value) {
                let problem = format!("{value} is not between {low} and {high}");
                return Err(ConfigError::Value { key, problem });
            }
        }
        fetch::authorities(&self.jwks_ca)
            .map(drop)
            .map_err(|problem| ConfigError::Value { key: "auth.jwks_ca", problem })
    }
}

/// Why a request does not reach its function.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) code: ErrorCode,
    /// For the client.
    pub(super) detail: &'static str,
    /// What goes with the code.
    pub(super) field: Option<(HeaderName, HeaderValue)>,
    /// For the function's log.
    pub(super) note: Option<String>,
}

impl Denied {
    pub(super) fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, detail, field: None, note: None }
    }

    /// Nothing was sent that could say who calls (RFC 6750 §3.1: then there is no error code).
    fn challenge(detail: &'static str) -> Self {
        let challenge = HeaderValue::from_static("Bearer");
        let field = Some((header::WWW_AUTHENTICATE, challenge));
        Self { field, ..Self::new(ErrorCode::Unauthenticated, detail) }
    }

    /// What was sent does not count.
    fn invalid(detail: &'static str) -> Self {
        Self {
            field: Some(challenge("invalid_token", detail)),
            ..Self::new(ErrorCode::Unauthenticated, detail)
        }
    }

    /// What was sent counts, and not for this.
    fn insufficient(detail: &'static str) -> Self {
        Self {
            field: Some(challenge("insufficient_scope", detail)),
            ..Self::new(ErrorCode::Forbidden, detail)
        }
    }

    fn rate_limited(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            field: Some((header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))),
            ..Self::new(ErrorCode::RateLimited, "the function lets each client ask only so often")
        }
    }
}

/// RFC 6750 §3. The texts are the node's own and have no quotes.
fn challenge(error: &str, description: &str) -> (HeaderName, HeaderValue) {
    let text = format!("Bearer error=\"{error}\", error_description=\"{description}\"");
    let value = HeaderValue::from_str(&text);
    (header::WWW_AUTHENTICATE, value.unwrap_or_else(|_| HeaderValue::from_static("Bearer")))
}

/// Who calls.
#[derive(Debug)]
enum Caller {
    /// Whoever is at this address.
    Anybody,
    /// Who has this key.
    Key(Arc<LiveKey>),
    /// Whom a token names.
    Token(jwt::Verified),
}

/// What the guards of all functions share.
pub(super) struct Guards {
    keys: Arc<Keys>,
    issuers: Issuers,
    rates: Rates,
}

impl Guards {
    /// Puts it together. The settings have been validated. Issuers' keys are fetched on `runtime`.
    pub(super) fn new(config: &AuthConfig, keys: Arc<Keys>, runtime: Handle) -> Self {
        let fetch = Fetch::new(config);
        Self {
            keys,
            issuers: Issuers::new(config, fetch, runtime),
            rates: Rates::new(config.rate_limit_clients),
        }
    }

    /// Lets a request through, and says who calls, or says why not. A key is taken out of the
    /// request; a token stays, because functions want to know what it says.
    pub(super) async fn admit(
        &self,
        guard: &Guard,
        headers: &mut HeaderMap,
        address: IpAddr,
    ) -> Result<Option<HeaderValue>, Denied> {
        let caller = match &guard.access {
            Access::Public => Caller::Anybody,
            Access::Key => Caller::Key(self.key(guard, headers)?),
            Access::Jwt(rules) => Caller::Token(self.token(rules, headers).await?),
        };
        if let Some(rate) = guard.rate {
            let client = match &caller {
                Caller::Anybody => Client::at(address),
                Caller::Key(key) => Client::Key(&key.id),
                Caller::Token(token) => match token.subject.as_deref() {
                    Some(subject) => Client::Subject(subject),
                    None => Client::at(address),
                },
            };
            self.rates.take(guard, client, rate).map_err(Denied::rate_limited)?;
        }
        Ok(match caller {
            Caller::Anybody => None,
            Caller::Key(key) => {
                credentials::remove_keys(headers);
                Some(key.caller.clone())
            }
            Caller::Token(token) => Some(token.caller()),
        })
    }

    /// The key that a request carries.
    fn key(&self, guard: &Guard, headers: &HeaderMap) -> Result<Arc<LiveKey>, Denied> {
        let text = match credentials::key(headers) {
            Ok(Credential::Sent(text)) => text,
            Ok(Credential::Absent) => {
                return Err(Denied::challenge("the function wants an API key"));
            }
            Err(Misplaced) => return Err(misplaced()),
        };
        // A hash is looked up, so that no text is compared and no time tells how much is right.
        let key = self.keys.find(&guard.app, &Digest::of(text));
        match key.ok_or_else(|| Denied::invalid("the key is none of this app's"))? {
            key if key.is_over() => Err(Denied::invalid("the key has expired")),
            key if !key.opens(&guard.function) => {
                Err(Denied::insufficient("the key is not for this function"))
            }
            key => Ok(key),
        }
    }

    /// The token that a request carries.
    async fn token(&self, rules: &JwtRules, headers: &HeaderMap) -> Result<jwt::Verified, Denied> {
        let text = match credentials::token(headers) {
            Ok(Credential::Sent(text)) => text,
            Ok(Credential::Absent) => return Err(Denied::challenge("the function wants a token")),
            Err(Misplaced) => return Err(misplaced()),
        };
        // What can be said without keys comes first: nothing is fetched for what is no token.
        let token = jwt::Token::read(text).map_err(Denied::invalid)?;
        let unavailable = |why: String| Denied {
            note: Some(why),
            ..Denied::new(ErrorCode::AuthUnavailable, "the issuer's keys cannot be had now")
        };
        let keys = self.issuers.keys(&rules.jwks).await.map_err(unavailable)?;
        match token.verify(&keys, rules) {
            Ok(verified) => Ok(verified),
            Err(Refusal::Invalid(why)) => Err(Denied::invalid(why)),
            Err(Refusal::UnknownKey) => {
                // The issuer may have changed its keys.
                let newer = self.issuers.newer(&rules.jwks, &keys).await;
                match newer.map(|keys| token.verify(&keys, rules)) {
                    Some(Ok(verified)) => Ok(verified),
                    Some(Err(Refusal::Invalid(why))) => Err(Denied::invalid(why)),
                    Some(Err(Refusal::UnknownKey)) | None => {
                        Err(Denied::invalid("the token is signed with none of the issuer's keys"))
                    }
                }
            }
        }
    }

    /// Forgets idle clients and issuers, for as long as it is polled.
    pub(super) async fn tend(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.rates.sweep();
            self.issuers.forget_idle();
        }
    }
}

fn misplaced() -> Denied {
    Denied::invalid("there is more than one key or token")
}

#[cfg(test)]
mod tests;
