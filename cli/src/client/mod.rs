//! Typed calls to the admin API of a server.

mod streams;

use streams::{Activity, Idle, upload};
pub(crate) use streams::{Deploying, Download, LogStream};

use crate::{
    error::{Answer, CliError, Exit, Result},
    ndjson::{Broken, Lines},
    trust::{self, Trust},
};
use faas_api::{
    App, AppList, AppName, AuditList, CreatedKey, CreatedToken, Digest, ErrorCode, FunctionName,
    ImportProblem, KeyList, NewKey, NewToken, Reuse, Stored, TokenId, TokenList, Traffic,
    UsageReport, VersionId, VersionList, WhoAmI, apps::TrafficChanged, manifest::NewVersion,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::{Deserialize, de::DeserializeOwned};
use std::{net::IpAddr, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For calls that are answered from memory or a database.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a deploy may go without a byte in either direction. The server speaks up while it
/// compiles.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to copy its databases.
const COPY_TIMEOUT: Duration = Duration::from_secs(600);

/// A server's address, checked.
pub(crate) fn parse_server(text: &str) -> Result<Url> {
    let wrong = |why: &str| {
        CliError::usage(format!("`{text}` is not a server's address: {why}"))
            .hint("write it as http://127.0.0.1:8081")
    };
    // Not repeated: there is a password in it.
    if text.contains('@') {
        return Err(CliError::usage("a server's address has no user and no password").hint(
            "write it as http://127.0.0.1:8081; the token comes from `faas login` or FAAS_TOKEN",
        ));
    }
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err(wrong("it does not begin with http:// or https://")),
    }
}

/// Whether an address can only be on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An HTTP client for this address: no redirects, and no proxy to reach this machine.
pub(crate) fn http_client(url: &Url, trust: &Trust) -> Result<reqwest::Client> {
    let without_systems = || trust.of(client_builder(url).tls_certs_only([])).build();
    // To this machine without redirects and without a proxy no TLS is ever spoken. An image of nothing
    // but `faas` has no certificates, and they are looked for as soon as a client is made.
    let built = match url.scheme() {
        "http" if is_loopback(url) => without_systems(),
        // Where they are missing, whom it shall trust besides is enough, and without TLS nobody.
        _ => trust.of(client_builder(url)).build().or_else(|_| without_systems()),
    };
    built.map_err(|error| CliError::failed(format!("no HTTP client: {}", root_cause(&error))))
}

fn client_builder(url: &Url) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("faas/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none());
    let host = url.host_str().unwrap_or_default();
    match (host.ends_with(".localhost"), is_loopback(url)) {
        // Not every resolver knows that these names are this machine (RFC 6761 §6.3).
        (true, _) => builder.no_proxy().resolve(host, ([127, 0, 0, 1], 0).into()),
        (false, true) => builder.no_proxy(),
        (false, false) => builder,
    }
}

/// What is wrong with a token's form, where that can be told: it was cut off, or mistyped.
pub(crate) fn token_flaw(token: &str) -> Option<&'static str> {
    faas_api::tokens::check_text(token).err()
}

/// The token a client sends, if any.
#[derive(Clone, Default)]
pub(crate) struct Token {
    pub(crate) value: Option<String>,
    /// What to do when the server does not take it.
    pub(crate) hint: String,
}

/// One server, as this user sees it.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    /// The same for people.
    server: String,
    token: Token,
}

/// What a deploy asks for besides the artifact.
#[derive(Debug, Default)]
pub(crate) struct DeployOptions {
    pub(crate) function: Option<FunctionName>,
    pub(crate) message: Option<String>,
    pub(crate) reuse: Option<Reuse>,
    pub(crate) no_activate: bool,
    /// The key by which the server knows this deploy.
    pub(crate) key: Option<String>,
}

/// Which lines of a log are wanted.
#[derive(Debug, Default)]
pub(crate) struct LogQuery {
    pub(crate) follow: bool,
    /// What else is asked for, as the API names it.
    pub(crate) filters: Vec<(&'static str, String)>,
}

impl Client {
    /// A client that trusts whom this machine trusts.
    #[cfg(feature = "serve")]
    pub(crate) fn new(base: Url, token: Token) -> Result<Self> {
        Self::trusting(base, token, &Trust::default())
    }

    pub(crate) fn trusting(base: Url, token: Token, trust: &Trust) -> Result<Self> {
        let http = http_client(&base, trust)?;
        let server = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, server, token })
    }

    pub(crate) async fn apps(&self) -> Result<AppList> {
        self.json(self.call(Method::GET, "/v1/apps")).await
    }

    /// An app, and the tag that guards a change of its traffic.
    pub(crate) async fn app(&self, app: &AppName) -> Result<(App, Option<String>)> {
        let response = self.send(self.call(Method::GET, &format!("/v1/apps/{app}"))).await?;
        let etag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let etag = etag.map(str::to_owned);
        Ok((self.decode(response).await?, etag))
    }

    pub(crate) async fn versions(&self, app: &AppName) -> Result<VersionList> {
        self.json(self.call(Method::GET, &format!("/v1/apps/{app}/versions"))).await
    }

    pub(crate) async fn delete(&self, app: &AppName) -> Result<()> {
        self.send(self.call(Method::DELETE, &format!("/v1/apps/{app}"))).await.map(drop)
    }

    pub(crate) async fn keys(&self, app: &AppName) -> Result<KeyList> {
        self.json(self.call(Method::GET, &format!("/v1/apps/{app}/keys"))).await
    }

    pub(crate) async fn create_key(&self, app: &AppName, new: &NewKey) -> Result<CreatedKey> {
        self.json(self.call(Method::POST, &format!("/v1/apps/{app}/keys")).json(new)).await
    }

    /// Revokes the key with this id or name, whose characters can stand in a path.
    pub(crate) async fn revoke_key(&self, app: &AppName, key: &str) -> Result<()> {
        self.send(self.call(Method::DELETE, &format!("/v1/apps/{app}/keys/{key}"))).await.map(drop)
    }

    /// Moves an app's traffic, unless the app has changed since `etag` was read.
    pub(crate) async fn set_traffic(
        &self,
        app: &AppName,
        traffic: &Traffic,
        etag: Option<&str>,
    ) -> Result<TrafficChanged> {
        let mut request = self.call(Method::PUT, &format!("/v1/apps/{app}/traffic")).json(traffic);
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        self.json(request).await
    }

    /// Who the token in use belongs to.
    pub(crate) async fn whoami(&self) -> Result<WhoAmI> {
        self.json(self.call(Method::GET, "/v1/whoami")).await
    }

    pub(crate) async fn create_token(&self, new: &NewToken) -> Result<CreatedToken> {
        self.json(self.call(Method::POST, "/v1/tokens").json(new)).await
    }

    pub(crate) async fn tokens(&self) -> Result<TokenList> {
        self.json(self.call(Method::GET, "/v1/tokens")).await
    }

    pub(crate) async fn revoke_token(&self, id: &TokenId) -> Result<()> {
        self.send(self.call(Method::DELETE, &format!("/v1/tokens/{id}"))).await.map(drop)
    }

    /// Who changed what; the query is the API's own.
    pub(crate) async fn audit(&self, query: &[(&str, String)]) -> Result<AuditList> {
        self.json(self.request(Method::GET, "/v1/audit", query).timeout(CALL_TIMEOUT)).await
    }

    /// Uploads an artifact; the server then tells how its deploy goes.
    pub(crate) async fn deploy(
        &self,
        app: &AppName,
        options: &DeployOptions,
        artifact: Vec<u8>,
    ) -> Result<Deploying<'_>> {
        let activity = Activity::default();
        let length = artifact.len();
        let mut query = Vec::new();
        query.extend(options.function.as_ref().map(|name| ("function", name.to_string())));
        query.extend(options.no_activate.then(|| ("activate", "false".to_owned())));
        query.extend(options.message.clone().map(|message| ("message", message)));
        if let Some(Reuse { requests, concurrency, idle_ms }) = &options.reuse {
            query.push(("reuse_requests", requests.to_string()));
            query.push(("reuse_concurrency", concurrency.to_string()));
            query.push(("reuse_idle_ms", idle_ms.to_string()));
        }
        let request = self
            .request(Method::POST, &format!("/v1/apps/{app}/deploy"), &query)
            .header(header::CONTENT_TYPE, "application/wasm")
            .header(header::ACCEPT, "application/x-ndjson")
            .header(header::CONTENT_LENGTH, length)
            .body(upload(artifact, activity.clone()));
        let request = match &options.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let response = activity
            .guard(request.send())
            .await
            .map_err(|Idle| self.silent(IDLE_TIMEOUT))?
            .map_err(|error| self.broken(&error))?;
        let response = self.accept(response).await?;
        Ok(Deploying { client: self, lines: Lines::new(response, Some(IDLE_TIMEOUT)) })
    }

    /// Says what a version is made of; the server tells what it lacks, or how the deploy goes.
    pub(crate) async fn create_version(
        &self,
        app: &AppName,
        new: &NewVersion,
        key: &str,
    ) -> Result<Deploying<'_>> {
        let request = self
            .request(Method::POST, &format!("/v1/apps/{app}/versions"), &[])
            .header(header::ACCEPT, "application/x-ndjson")
            .header("idempotency-key", key)
            .json(new);
        let sent = tokio::time::timeout(IDLE_TIMEOUT, request.send()).await;
        let response = sent
            .map_err(|_elapsed| self.silent(IDLE_TIMEOUT))?
            .map_err(|error| self.broken(&error))?;
        let response = self.accept(response).await?;
        Ok(Deploying { client: self, lines: Lines::new(response, Some(IDLE_TIMEOUT)) })
    }

    /// Sends an artifact that a version will name.
    pub(crate) async fn put_blob(&self, digest: &Digest, artifact: Vec<u8>) -> Result<Stored> {
        let activity = Activity::default();
        let length = artifact.len();
        let request = self
            .request(Method::PUT, &format!("/v1/blobs/{digest}"), &[])
            .header(header::CONTENT_TYPE, "application/wasm")
            .header(header::CONTENT_LENGTH, length)
            .body(upload(artifact, activity.clone()));
        let response = activity
            .guard(request.send())
            .await
            .map_err(|Idle| self.silent(IDLE_TIMEOUT))?
            .map_err(|error| self.broken(&error))?;
        let response = self.accept(response).await?;
        self.decode(response).await
    }

    /// Keeps a version however many newer ones there are, or no longer.
    pub(crate) async fn pin(&self, app: &AppName, version: VersionId, pinned: bool) -> Result<()> {
        let method = if pinned { Method::PUT } else { Method::DELETE };
        let path = format!("/v1/apps/{app}/versions/{version}/pin");
        self.send(self.call(method, &path)).await.map(drop)
    }

    /// An app's log, or that of all apps, as a stream of JSON lines.
    pub(crate) async fn logs(
        &self,
        app: Option<&AppName>,
        query: &LogQuery,
    ) -> Result<LogStream<'_>> {
        let LogQuery { follow, filters } = query;
        let mut query = filters.clone();
        query.extend(follow.then(|| ("follow", "true".to_owned())));
        let path = match app {
            Some(app) => format!("/v1/apps/{app}/logs"),
            None => "/v1/logs".to_owned(),
        };
        let request = self.request(Method::GET, &path, &query);
        let sent = tokio::time::timeout(CALL_TIMEOUT, request.send()).await;
        let response = sent
            .map_err(|_elapsed| self.silent(CALL_TIMEOUT))?
            .map_err(|error| self.broken(&error))?;
        let response = self.accept(response).await?;
        let idle = (!follow).then_some(IDLE_TIMEOUT);
        Ok(LogStream { client: self, lines: Lines::new(response, idle) })
    }

    /// What functions used, of one app or of all.
    pub(crate) async fn usage(
        &self,
        app: Option<&AppName>,
        query: &[(&str, String)],
    ) -> Result<UsageReport> {
        let path = match app {
            Some(app) => format!("/v1/apps/{app}/usage"),
            None => "/v1/usage".to_owned(),
        };
        self.json(self.request(Method::GET, &path, query).timeout(CALL_TIMEOUT)).await
    }

    /// A backup of the whole node, as it is written.
    pub(crate) async fn backup(&self) -> Result<Download<'_>> {
        let request = self.request(Method::GET, "/v1/backup", &[]);
        // Before its first byte a server copies its databases.
        let sent = tokio::time::timeout(COPY_TIMEOUT, request.send()).await;
        let response = sent
            .map_err(|_elapsed| self.silent(COPY_TIMEOUT))?
            .map_err(|error| self.broken(&error))?;
        Ok(Download { client: self, response: self.accept(response).await? })
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        match &self.token.value {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path, &[]).timeout(CALL_TIMEOUT)
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        self.decode(response).await
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        self.accept(response).await
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T> {
        let body = response.bytes().await.map_err(|error| self.broken(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.unexpected(&error.to_string()))
    }

    /// Lets a success through and turns everything else into an error.
    async fn accept(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(self.refused(status.as_u16(), problem)),
            Err(_) => Err(self.foreign(status)),
        }
    }

    fn refused(&self, status: u16, problem: Problem) -> CliError {
        let exit = exit_of(status, &problem.code);
        let message = lower_first(problem.detail.as_deref().unwrap_or(&problem.title));
        let mut error = CliError::new(exit, problem.code, message);
        error.hint = problem.hint;
        error.answer = Some(Box::new(Answer {
            status,
            request_id: problem.request_id,
            imports: problem.imports,
        }));
        let hint = &self.token.hint;
        match (status, error.hint.take()) {
            // A new token, and the place where the old one is.
            (401, Some(ask)) if error.code == ErrorCode::TokenExpired.as_str() => {
                error.hint(format!("{ask}; {hint}"))
            }
            // The server's hint is for those who write requests by hand.
            (401, _) => error.hint(hint.as_str()),
            (_, hint) => CliError { hint, ..error },
        }
    }

    /// An error that no faas server would write.
    fn foreign(&self, status: StatusCode) -> CliError {
        let message = format!("{} answered {status}, and not as a faas server", self.server);
        CliError::new(exit_of(status.as_u16(), ""), "unexpected_answer", message)
            .hint("is this the admin address of a faas server? another one: --server URL")
    }

    fn unexpected(&self, why: &str) -> CliError {
        let message = format!("the answer of {} cannot be read: {why}", self.server);
        CliError::new(Exit::Failed, "unexpected_answer", message)
            .hint("are this `faas` and the server of the same version?")
    }

    fn broken(&self, error: &reqwest::Error) -> CliError {
        unreachable(&self.server, error)
            .hint_if_none("is `faas serve` running? another server: --server URL")
    }

    fn silent(&self, limit: Duration) -> CliError {
        CliError::new(Exit::Unreachable, "timeout", silence(&self.server, limit))
            .hint("the server's log may say more")
    }

    fn cut(&self, broken: Broken) -> CliError {
        match broken {
            Broken::Connection(error) => self.broken(&error),
            Broken::Idle(limit) => self.silent(limit),
            Broken::Unreadable(why) => self.unexpected(&why),
        }
    }
}

/// Why there was no answer, or only a part of one.
pub(crate) fn unreachable(to: &str, error: &reqwest::Error) -> CliError {
    if let Some(complaint) = trust::complaint(to, error) {
        return complaint;
    }
    let limit = if error.is_connect() { CONNECT_TIMEOUT } else { CALL_TIMEOUT };
    let message = if error.is_timeout() {
        silence(to, limit)
    } else if error.is_connect() {
        format!("no answer from {to}: {}", root_cause(error))
    } else {
        format!("the connection to {to} broke: {}", root_cause(error))
    };
    let code = if error.is_timeout() && !error.is_connect() { "timeout" } else { "unreachable" };
    CliError::new(Exit::Unreachable, code, message)
}

fn silence(from: &str, limit: Duration) -> String {
    format!("no answer from {from} within {} s", limit.as_secs())
}

/// What lies at the bottom of a chain of errors.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) => crate::artifact::io_text(error),
        None => lower_first(&cause.to_string()),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next();
    let second_is_upper = chars.clone().next().is_some_and(char::is_uppercase);
    let first = first.map(|c| if second_is_upper { c } else { c.to_ascii_lowercase() });
    first.into_iter().chain(chars).collect()
}

fn exit_of(status: u16, code: &str) -> Exit {
    let rejected = [
        ErrorCode::InvalidWasm,
        ErrorCode::Precompiled,
        ErrorCode::UnknownKind,
        ErrorCode::UnknownImport,
        ErrorCode::CompileFailed,
    ];
    match status {
        401 | 403 => Exit::NotAuthorised,
        404 => Exit::NotFound,
        409 | 412 => Exit::Conflict,
        413 => Exit::Rejected,
        422 if code == ErrorCode::Manifest.as_str()
            || code == ErrorCode::LimitAboveMaximum.as_str() =>
        {
            Exit::Usage
        }
        422 if rejected.iter().any(|rejected| rejected.as_str() == code) => Exit::Rejected,
        _ => Exit::Failed,
    }
}

/// `faas_api::ErrorBody`, read so that a newer server's codes are understood too.
#[derive(Debug, Deserialize)]
struct Problem {
    title: String,
    status: u16,
    code: String,
    detail: Option<String>,
    hint: Option<String>,
    request_id: Option<String>,
    #[serde(default)]
    imports: Vec<ImportProblem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let loopback = |text: &str| is_loopback(&parse_server(text).unwrap());
        assert!(loopback("http://127.0.0.1:8081"));
        assert!(loopback("http://127.9.9.9"));
        assert!(loopback("http://[::1]:8081"));
        assert!(loopback("https://localhost"));
        assert!(!loopback("http://localhost.example.com"));
        assert!(!loopback("http://127.0.0.1.example.com"));
        assert!(!loopback("http://10.0.0.1"));
        for bad in ["", "127.0.0.1:8081", "localhost:8081", "ftp://x", "http://"] {
            assert_eq!(parse_server(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn exits() {
        assert_eq!(exit_of(403, "forbidden"), Exit::NotAuthorised);
        assert_eq!(exit_of(412, ""), Exit::Conflict);
        assert_eq!(exit_of(413, "body_too_large"), Exit::Rejected);
        assert_eq!(exit_of(422, "unknown_import"), Exit::Rejected);
        assert_eq!(exit_of(422, "invalid_name"), Exit::Failed);
        assert_eq!(exit_of(503, "overloaded"), Exit::Failed);
    }

    #[test]
    fn sentences_become_fragments() {
        assert_eq!(lower_first("Not found"), "not found");
        assert_eq!(lower_first("URI too long."), "URI too long");
        assert_eq!(lower_first("`x` is taken"), "`x` is taken");
    }
}
