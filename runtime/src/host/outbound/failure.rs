//! Why a request failed: what the function is told, and what its log says.

use std::{error::Error as StdError, io, time::Duration};
use wasmtime_wasi_http::Error;

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the function.
    pub(super) error: Error,
    /// For its log: what comes after `outbound <server>`.
    pub(super) why: String,
    /// Whether it was refused here, and did not fail out there.
    pub(super) denied: bool,
    /// The limit that was reached, if one was: its setting, without the section.
    pub(super) limit: Option<&'static str>,
}

impl Failure {
    /// It was refused.
    pub(super) fn denied(error: Error, why: impl Into<String>) -> Self {
        Self { error, why: why.into(), denied: true, limit: None }
    }

    /// It was tried, and failed.
    pub(super) fn failed(error: Error, why: impl Into<String>) -> Self {
        Self { error, why: format!("failed: {}", why.into()), denied: false, limit: None }
    }

    /// A limit of what is at once was reached.
    pub(super) fn limit(name: &'static str, limit: u32) -> Self {
        let why = format!("is refused: limit `outbound.{name}` reached: {limit}");
        let denied = Self::denied(Error::ConnectionLimitReached, why);
        Self { limit: Some(name), ..denied }
    }

    /// A call wants to send more than it may.
    pub(super) fn subrequests(most: u32) -> Self {
        let asked = most.saturating_add(1);
        let why = format!("is refused: limit `subrequests` reached: asked for {asked} of {most}");
        let denied = Self::denied(Error::ConnectionLimitReached, why);
        Self { limit: Some("subrequests"), ..denied }
    }

    /// The whole exchange takes too long.
    pub(super) fn total(limit: Duration) -> Self {
        let why = format!("is cut off: limit `outbound.total_timeout_ms` reached: {limit:?}");
        let error = Error::HttpResponseTimeout;
        Self { error, why, denied: false, limit: Some("total_timeout_ms") }
    }

    /// The answer is too large: so many bytes at least.
    pub(super) fn too_large(bytes: u64, limit: u64) -> Self {
        let why = format!(
            "is cut off: limit `outbound.max_body_bytes` reached: {bytes} of {limit} bytes"
        );
        let error = Error::HttpResponseBodySize(Some(bytes));
        Self { error, why, denied: false, limit: Some("max_body_bytes") }
    }

    /// Something took too long.
    pub(super) fn timeout(error: Error, what: &str) -> Self {
        Self::failed(error, format!("timed out {what}"))
    }

    /// No connection came about.
    pub(super) fn connect(error: &io::Error) -> Self {
        let told = match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                Error::DestinationIpUnroutable
            }
            io::ErrorKind::TimedOut => Error::ConnectionTimeout,
            _ => Error::DestinationUnavailable,
        };
        Self::failed(told, error.kind().to_string())
    }

    /// The server's TLS is no good.
    pub(super) fn tls(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        let told = match cause {
            Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
            Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
                alert_id: Some((*alert).into()),
                alert_message: Some(format!("{alert:?}")),
            },
            _ => Error::TlsProtocolError,
        };
        Self::failed(told, error.to_string())
    }

    /// The server does not speak HTTP, or not to the end.
    pub(super) fn http(error: &hyper::Error) -> Self {
        let told = of_body(error);
        let why = match &told {
            // What the function did itself says more than that the request was cut off.
            Error::HttpRequestBodySize(_) | Error::InternalError(_) => told.to_string(),
            _ => error.to_string(),
        };
        Self::failed(told, why)
    }
}

/// The same for a body that broke off.
pub(super) fn of_body(error: &hyper::Error) -> Error {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<Error>() {
            Some(Error::HttpRequestBodySize(size)) => return Error::HttpRequestBodySize(*size),
            Some(_) => return Error::InternalError(Some("the request's body broke off".into())),
            None => {}
        }
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if io == Some(io::ErrorKind::UnexpectedEof) {
            return Error::HttpResponseIncomplete;
        }
        source = cause.source();
    }
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_incomplete_message() || error.is_canceled() {
        Error::HttpResponseIncomplete
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else {
        Error::ConnectionTerminated
    }
}
