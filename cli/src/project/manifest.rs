//! `faas.toml` as it is written. Every comment here is the reference that users read.

use super::words::{Length, OrText, Rate, ReuseText, Size};
use faas_api::{
    AppName, Domain, FunctionName, OutboundHost, Route, VarName,
    manifest::{Auth, Cors, Grants, LimitWishes, RateLimit, Settings},
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// An app of faas: its functions, where they answer, what they get and what they may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Where an editor finds this schema; it changes nothing.
    #[serde(rename = "$schema")]
    pub(super) _schema: Option<String>,
    /// The app.
    pub(super) app: AppSection,
    /// How its artifacts are made.
    #[serde(default)]
    pub(super) build: BuildSection,
    /// Its functions, by name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, FunctionSection>")]
    pub(super) functions: BTreeMap<FunctionName, FunctionSection>,
    /// Environments: what stands in `[env.NAME]` replaces what stands above, when it is deployed
    /// with `--env NAME`. Every key is inherited.
    #[serde(default, rename = "env")]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub(super) _environments: BTreeMap<String, toml::Table>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppSection {
    /// The name, unique on a server: 1 to 40 of `a-z`, `0-9` and `-`, starting with a letter.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$"),
        length(max = 40)
    )]
    pub(super) name: AppName,
    /// Domains the app answers on, beside its name below the server's own domain.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) domains: Vec<Domain>,
    /// A path that must answer with 2xx or 3xx before a new version becomes live.
    #[schemars(regex(pattern = "^/"))]
    pub(super) health: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BuildSection {
    /// The shell command that makes the artifacts; it runs in the folder of this file.
    pub(super) command: Option<String>,
    /// What a change of which makes `faas dev` build again: files and folders.
    pub(super) watch: Vec<PathBuf>,
}

impl Default for BuildSection {
    fn default() -> Self {
        Self { command: None, watch: vec![PathBuf::from(".")] }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionSection {
    /// The artifact, a `.wasm` or `.wat` file.
    pub(super) source: PathBuf,
    /// The requests it answers, each `[METHOD ][host]/path`. In the path `:name` stands for one
    /// segment, a last `*` for the rest. Without it the function answers what no other does.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) routes: Vec<Route>,
    /// Only other functions of the app reach it, as `http://NAME.internal/`.
    #[serde(default)]
    pub(super) private: bool,
    /// It sees paths without the fixed part of its route.
    #[serde(default)]
    pub(super) strip_prefix: bool,
    /// Environment variables. What `faas env set` says of the app wins over these.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(super) env: BTreeMap<VarName, String>,
    /// Names of secrets it gets as environment variables; their values come from `faas secret put`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(super) secrets: Vec<VarName>,
    /// What it may reach. Nothing unless it is named here.
    #[serde(default)]
    pub(super) grants: GrantsSection,
    /// What a call may use, where that is not the server's default.
    #[serde(default)]
    pub(super) limits: LimitsSection,
    /// `"none"`: every request has an instance of its own. Otherwise how far requests share one.
    #[schemars(with = "Option<OrText<ReuseSection>>")]
    pub(super) reuse: Option<OrText<ReuseSection, ReuseText>>,
    /// Who may call it: `"public"`, `"key"` (who has a key of the app) or `"jwt"` (who has a token
    /// of the issuer in `jwt`).
    #[serde(default)]
    pub(super) auth: AuthWord,
    /// The issuer of tokens, for `auth = "jwt"`.
    pub(super) jwt: Option<JwtSection>,
    /// How often each client may call it: `"100/1m"`, or a table.
    #[schemars(with = "Option<OrText<RateSection>>")]
    pub(super) rate_limit: Option<OrText<RateSection, Rate>>,
    /// Which web pages of other origins may call it.
    pub(super) cors: Option<CorsSection>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GrantsSection {
    /// Hosts it may send requests to: `https://api.stripe.com`, `https://*.example.com`,
    /// `http://10.0.0.5:9000`.
    #[schemars(with = "Vec<String>")]
    pub(super) outbound: Vec<OutboundHost>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    /// CPU time of one call, for example `"50ms"`.
    pub(super) cpu: Option<Length>,
    /// Time from the request to the head of the response.
    pub(super) first_byte: Option<Length>,
    /// Time of a whole call.
    pub(super) timeout: Option<Length>,
    /// How long a response that has begun may wait for more of its body.
    pub(super) response_idle: Option<Length>,
    /// Linear memory of one instance, for example `"64MiB"`.
    pub(super) memory: Option<Size>,
    /// The largest request body.
    pub(super) body: Option<Size>,
    /// What one call may write to its log.
    pub(super) log: Option<Size>,
    /// Requests that one call may send, with those of the functions it calls.
    #[schemars(range(min = 1))]
    pub(super) subrequests: Option<u32>,
    /// Calls at once.
    #[schemars(range(min = 1))]
    pub(super) concurrency: Option<u32>,
}

/// How far requests of a function share instances.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReuseSection {
    /// How many requests an instance serves before it is dropped.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub(super) requests: u32,
    /// How many of them at once; only WASI 0.3 can more than 1.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) concurrency: Option<u32>,
    /// How long an instance waits for its next request.
    pub(super) idle: Option<Length>,
}

/// Who may call a function.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthWord {
    /// Everybody.
    #[default]
    Public,
    /// Who has a key of the app.
    Key,
    /// Who has a JSON Web Token.
    Jwt,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtSection {
    /// The `iss` that tokens must have.
    pub(super) issuer: String,
    /// The `aud` that tokens must have.
    pub(super) audience: Option<String>,
    /// Where the issuer's keys are; without it `<issuer>/.well-known/jwks.json`.
    pub(super) jwks: Option<String>,
}

/// How often each client may call a function.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateSection {
    /// So many requests
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) requests: u32,
    /// in this time.
    pub(super) per: Length,
    /// How many may come at once after a pause; without it as many as `requests`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) burst: Option<u32>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CorsSection {
    /// Origins such as `https://app.example.com`; `*` is every one.
    pub(super) origins: Vec<String>,
    /// Methods that pages may use; without it the usual seven.
    #[serde(default)]
    pub(super) methods: Vec<String>,
    /// Request headers that pages may set; without it those they ask for.
    #[serde(default)]
    pub(super) headers: Vec<String>,
    /// Response headers that pages may read.
    #[serde(default)]
    pub(super) expose: Vec<String>,
    /// Whether cookies are sent; needs origins by name.
    #[serde(default)]
    pub(super) credentials: bool,
    /// How long a browser may remember this; without it 10 minutes.
    pub(super) max_age: Option<Length>,
}

impl FunctionSection {
    /// The same for the wire. The text says what is wrong.
    pub(super) fn settings(&self) -> Result<Settings, (&'static str, String)> {
        let auth = match (self.auth, self.jwt.clone()) {
            (AuthWord::Public, None) => Auth::Public,
            (AuthWord::Key, None) => Auth::Key,
            (AuthWord::Jwt, Some(JwtSection { issuer, audience, jwks })) => {
                Auth::Jwt { issuer, audience, jwks }
            }
            (AuthWord::Jwt, None) => {
                return Err((
                    "auth",
                    "`jwt` needs an issuer: jwt = { issuer = \"https://…\" }".into(),
                ));
            }
            (_, Some(_)) => return Err(("jwt", "goes with auth = \"jwt\" only".into())),
        };
        let rate_limit = self.rate_limit.as_ref().map(|rate| match rate {
            OrText::Text(Rate { requests, per_ms }) => {
                RateLimit { requests: *requests, per_ms: *per_ms, burst: None }
            }
            OrText::Table(RateSection { requests, per, burst }) => {
                RateLimit { requests: *requests, per_ms: per.ms(), burst: *burst }
            }
        });
        Ok(Settings {
            routes: self.routes.clone(),
            private: self.private,
            strip_prefix: self.strip_prefix,
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            grants: Grants { outbound: self.grants.outbound.clone() },
            limits: self.limits.wishes(),
            auth,
            rate_limit,
            cors: self.cors.clone().map(CorsSection::into_wire),
        })
    }
}

impl LimitsSection {
    fn wishes(&self) -> LimitWishes {
        LimitWishes {
            cpu_ms: self.cpu.map(Length::ms),
            first_byte_ms: self.first_byte.map(Length::ms),
            wall_ms: self.timeout.map(Length::ms),
            response_idle_ms: self.response_idle.map(Length::ms),
            memory_bytes: self.memory.map(Size::bytes),
            request_body_bytes: self.body.map(Size::bytes),
            log_bytes: self.log.map(Size::bytes),
            subrequests: self.subrequests,
            concurrency: self.concurrency,
        }
    }
}

impl CorsSection {
    fn into_wire(self) -> Cors {
        let Self { origins, methods, headers, expose, credentials, max_age } = self;
        let seconds = |length: Length| u32::try_from(length.ms() / 1000).unwrap_or(u32::MAX);
        Cors { origins, methods, headers, expose, credentials, max_age_s: max_age.map(seconds) }
    }
}
