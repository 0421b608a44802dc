//! Errors on the wire: RFC 9457 problem details with a code a script can match.

use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, as a stable word. Each code has one status and one title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            /// One sentence for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

error_codes! {
    /// No such app, version or route.
    NotFound = "not_found", 404, "Not found";
    /// HTTP that RFC 9112 or RFC 9113 calls invalid, or a query the API does not know.
    BadRequest = "bad_request", 400, "Bad request";
    /// This address speaks TLS, and the request came without.
    TlsRequired = "tls_required", 400, "This address speaks TLS: use https";
    /// `Host` is not the name of the TLS handshake.
    MisdirectedRequest = "misdirected_request", 421, "This connection is for another host";
    /// The method is not allowed on this address.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    /// The client was too slow to send its request.
    RequestTimeout = "request_timeout", 408, "Request timed out";
    /// The body is over its limit.
    BodyTooLarge = "body_too_large", 413, "Body too large";
    /// The request target is over its limit.
    UriTooLong = "uri_too_long", 414, "URI too long";
    /// The header section is over its limit.
    HeadersTooLarge = "headers_too_large", 431, "Headers too large";
    /// The function trapped.
    GuestTrap = "guest_trap", 500, "The function failed";
    /// The function ended without an answer.
    GuestNoResponse = "guest_no_response", 500, "The function gave no answer";
    /// The function exited with a failure.
    GuestExit = "guest_exit", 500, "The function exited";
    /// The function answered something HTTP does not allow.
    BadResponse = "bad_response", 502, "The function gave an invalid answer";
    /// The function used up its CPU time.
    CpuTime = "cpu_time", 504, "The function used up its CPU time";
    /// The function took too long.
    WallTime = "wall_time", 504, "The function took too long";
    /// The platform has no room for another instance.
    Overloaded = "overloaded", 503, "The server is busy";
    /// The function has no room for another instance.
    Concurrency = "concurrency", 503, "The function is busy";
    /// The function wants a key or a token, and there was none, or none that is valid.
    Unauthenticated = "unauthenticated", 401, "Not authenticated";
    /// The function lets no web page of this origin call it.
    ForbiddenOrigin = "forbidden_origin", 403, "Not for this origin";
    /// Tokens cannot be checked: the keys of their issuer cannot be had.
    AuthUnavailable = "auth_unavailable", 503, "Tokens cannot be checked now";
    /// Functions called each other, over this server, too deep.
    LoopDetected = "loop_detected", 508, "Functions call each other without end";
    /// The client asks too often.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// The function failed repeatedly and is out of service for a while.
    Quarantined = "quarantined", 503, "The function is quarantined";
    /// The function's artifact or native code could not be had.
    ArtifactUnavailable = "artifact_unavailable", 500, "The function is not available";
    /// The platform failed.
    Internal = "internal", 500, "The platform failed";

    /// No token, not one of this server's, or one that was revoked.
    Unauthorized = "unauthorized", 401, "Not authorised";
    /// The token was good once.
    TokenExpired = "token_expired", 401, "The token has expired";
    /// The token is good, but not for this.
    MissingScope = "missing_scope", 403, "The token may not do this";
    /// The key is not for this function; or, at the API, a web page of another origin asks.
    Forbidden = "forbidden", 403, "Forbidden";
    /// A name, version or value that is not well formed.
    InvalidName = "invalid_name", 422, "Invalid name";
    /// The request is well formed and asks for something impossible.
    Unprocessable = "unprocessable", 422, "Cannot be done";
    /// A manifest that contradicts itself or names what cannot be.
    Manifest = "manifest", 422, "The manifest cannot be used";
    /// A function wants more than a node gives to any.
    LimitAboveMaximum = "limit_above_maximum", 422, "A limit is above the node's maximum";
    /// A function needs a secret that the app does not have.
    MissingSecret = "missing_secret", 422, "A secret is missing";
    /// A live version needs the secret.
    SecretInUse = "secret_in_use", 409, "The secret is in use";
    /// The bytes are not those that the address names.
    DigestMismatch = "digest_mismatch", 422, "The content is not what was announced";
    /// The new version did not answer its health check.
    Unhealthy = "unhealthy", 422, "The health check failed";
    /// Another app has this domain or route.
    RouteConflict = "route_conflict", 409, "The route is taken";
    /// The upload is not a content type this address takes.
    UnsupportedMediaType = "unsupported_media_type", 415, "Unsupported media type";
    /// The bytes are not Wasm, or damaged.
    InvalidWasm = "invalid_wasm", 422, "Not a valid WebAssembly artifact";
    /// Precompiled native code is never accepted.
    Precompiled = "precompiled", 422, "Precompiled artifacts are not accepted";
    /// It is Wasm, but exports nothing the host can call.
    UnknownKind = "unknown_kind", 422, "Nothing to run";
    /// It imports something the host does not offer.
    UnknownImport = "unknown_import", 422, "An import has no implementation";
    /// It could not be compiled, or not within the compile process's limits.
    CompileFailed = "compile_failed", 422, "Compilation failed";
    /// Something else changed it in between, or it is owned by someone else.
    Conflict = "conflict", 409, "Conflict";
    /// The disk is full.
    StorageFull = "storage_full", 507, "Storage is full";
    /// The server is stopping.
    ShuttingDown = "shutting_down", 503, "The server is stopping";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An import that nothing here implements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportProblem {
    /// The import as the artifact names it, `wasi:keyvalue/store@0.2.0-draft3`.
    pub import: String,
    /// The versions of the same interface that this host offers; empty when it knows none.
    pub offered: Vec<String>,
    /// What to do about it.
    pub hint: String,
}

/// An error's body, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence, the same for every occurrence of this code.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened this time. Never text of a guest, never internals of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The code to match on.
    pub code: ErrorCode,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The id under which the logs know this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The imports that have no implementation, for `unknown_import`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<ImportProblem>,
}

impl ErrorBody {
    /// The body for a code, without particulars.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            kind: format!("urn:faas:error:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: None,
            code,
            hint: None,
            request_id: None,
            imports: Vec::new(),
        }
    }

    /// Says what happened this time.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
