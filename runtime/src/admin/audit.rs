//! The audit log: `GET /v1/audit`, and how every change comes into it.
//!
//! Whatever is not only a question is recorded by itself, with the operation's id, what the path
//! names, and how it was answered. An endpoint that knows more takes an [`Audit`] and calls
//! [`Audit::about`]; one whose outcome comes after its answer began calls [`Audit::later`].

use super::{
    Api, State,
    access::{self, Place, Target},
    auth::Principal,
    error::ApiError,
    extract::{Query, bad_query},
    logs,
    openapi::Common,
};
use crate::{
    clock,
    request_id::RequestId,
    storage::{Journal, JournalQuery, JournalRecord, Seq},
};
use axum::{
    Json,
    extract::{FromRequestParts, Request},
    http::{Extensions, header::USER_AGENT, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use faas_api::{AppName, AuditEntry, AuditList, TokenId, Verb, tokens::TOKEN_PREFIX};
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use std::{
    fmt::Display,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tracing::Instrument as _;
use utoipa::IntoParams;

/// Of what a client calls itself, this much is kept, in bytes.
const MAX_AGENT_BYTES: usize = 120;
/// Of what a change is about, this much is kept, in bytes.
const MAX_OBJECT_BYTES: usize = 200;
/// How many entries an answer has when nothing is said, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// The address of a client, as its connection has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// What stands in the journal's records; time and app are the journal's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenId>,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    request_id: String,
}

/// What is known of a change before it is tried.
#[derive(Debug)]
pub(super) struct Draft {
    app: Option<AppName>,
    stored: Stored,
}

impl Draft {
    /// An operation that somebody asks for.
    pub(super) fn new(action: &str, principal: &Principal, target: Target, parts: &Parts) -> Self {
        let id = parts.extensions.get::<RequestId>().map(ToString::to_string);
        let peer = parts.extensions.get::<Peer>();
        let agent = parts.headers.get(USER_AGENT).map(|agent| {
            let text = String::from_utf8_lossy(agent.as_bytes());
            cut(text.chars().filter(|c| !c.is_control()).collect(), MAX_AGENT_BYTES)
        });
        let stored = Stored {
            by: principal.to_string(),
            token: principal.id().cloned(),
            action: action.to_owned(),
            object: target.object.map(|object| cut(concealed(&object), MAX_OBJECT_BYTES)),
            outcome: String::new(),
            from: peer.map(|Peer(peer)| peer.ip().to_canonical().to_string()),
            agent,
            request_id: id.unwrap_or_default(),
        };
        Self { app: target.app.and_then(|app| app.parse().ok()), stored }
    }
}

/// What the audit log will say of a request.
#[derive(Clone)]
pub(super) struct Audit(Arc<Mutex<Option<Later>>>);

/// The same, for an endpoint that says itself how it ended.
pub(super) struct Later {
    draft: Draft,
    journal: Arc<dyn Journal>,
    patience: Duration,
}

impl Audit {
    /// Says what a change is about, where the path does not: a version, a name.
    pub(super) fn about(&self, object: impl Display) {
        if let Some(later) = &mut *self.lock() {
            later.about(object);
        }
    }

    /// Takes over: the entry is made by [`Later::done`] and by nothing else.
    pub(super) fn later(&self) -> Option<Later> {
        self.lock().take()
    }

    /// The one of a request, where an argument would be one too many.
    pub(super) fn of(extensions: &Extensions) -> Result<Self, ApiError> {
        let audit = extensions.get::<Self>().cloned();
        audit.ok_or_else(|| ApiError::internal("a handler that changes nothing wants an audit"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Later>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sync> FromRequestParts<S> for Audit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::of(&parts.extensions)
    }
}

impl Later {
    /// Says what a change is about.
    pub(super) fn about(&mut self, object: impl Display) {
        self.draft.stored.object = Some(cut(object.to_string(), MAX_OBJECT_BYTES));
    }

    /// Makes the entry. It is on disk when this returns; call it before the client is answered.
    pub(super) async fn done(self, error: Option<&ApiError>) {
        self.write(error.map_or("ok", |error| error.code().as_str()).to_owned()).await;
    }

    async fn write(self, outcome: String) {
        let Self { draft: Draft { app, mut stored }, journal, patience } = self;
        stored.outcome = outcome;
        let record = JournalRecord {
            time: clock::now(),
            subject: app.as_ref().map(ToString::to_string),
            // Made of types that JSON can say.
            body: serde_json::to_vec(&stored).unwrap_or_default().into(),
        };
        let failure = match tokio::time::timeout(patience, journal.append(record)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not within {patience:?}"),
        };
        // The change is done, so its client is told of that; the log has what the journal lacks.
        let Stored { by, action, object, outcome, .. } = &stored;
        let app = app.as_ref().map(AppName::as_str);
        tracing::error!(
            error = failure,
            by,
            action,
            app,
            object,
            outcome,
            "a change is missing in the audit log"
        );
    }
}

/// Runs an operation that changes something, and records how it ended before that is answered. In
/// a task of its own: a client that goes away neither stops a change nor hides it.
pub(super) async fn recorded(
    api: Arc<Api>,
    draft: Draft,
    mut request: Request,
    allowed: Result<(), ApiError>,
    next: Next,
) -> Response {
    let later = Later { draft, journal: api.parts.journal.clone(), patience: api.patience.request };
    let audit = Audit(Arc::new(Mutex::new(Some(later))));
    request.extensions_mut().insert(audit.clone());
    let work = async move {
        let response = match allowed {
            Ok(()) => AssertUnwindSafe(next.run(request)).catch_unwind().await,
            Err(error) => Ok(error.into_response()),
        };
        let response =
            response.unwrap_or_else(|_| ApiError::internal("a handler panicked").into_response());
        if let Some(later) = audit.later() {
            later.write(outcome(&response)).await;
        }
        response
    };
    let work = api.changes.spawn(work.in_current_span());
    work.await.unwrap_or_else(|error| ApiError::internal(error).into_response())
}

fn outcome(response: &Response) -> String {
    match response.extensions().get::<ApiError>() {
        Some(error) => error.code().as_str().to_owned(),
        None if response.status().is_success() => "ok".to_owned(),
        None => response.status().as_str().to_owned(),
    }
}

/// What a path names, without tokens and keys: somebody may have put one where its id belongs.
fn concealed(object: &str) -> String {
    let part = |part: &str| match part.find(TOKEN_PREFIX) {
        Some(at) => format!("{}{TOKEN_PREFIX}…", part.get(..at).unwrap_or_default()),
        None => part.to_owned(),
    };
    object.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The beginning of a text.
fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only changes of this app.
    #[param(value_type = Option<String>, example = "shop",
        pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length = 40)]
    app: Option<AppName>,
    /// Only changes since this time: RFC 3339, a date (UTC), or a number of `s`, `m`, `h` or `d`
    /// ago.
    #[param(
        example = "7d",
        pattern = "^([0-9]{1,9}[smhd]|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])\
                   (T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
    )]
    since: Option<String>,
    /// Only entries before this one: the `seq` of the last one of the answer before.
    before: Option<u64>,
    /// The newest so many, 1000 at most.
    #[param(default = 100, maximum = 1000)]
    limit: Option<usize>,
}

/// Read the audit log
///
/// Every attempt to change something, newest first. A token that administers some apps only sees
/// the changes of these.
#[utoipa::path(get, path = "/v1/audit", operation_id = "read_audit", tag = "access",
    security(("bearer" = ["admin:any"])),
    params(AuditQuery),
    responses((status = 200, description = "What was changed.", body = AuditList), Common))]
pub(super) async fn read(
    axum::extract::State(api): State,
    principal: Principal,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let subjects = match &query.app {
        Some(app) if !principal.scope().allows(Verb::Admin, app.as_str()) => {
            return Err(access::missing(&principal, Verb::Admin, Place::App(app.as_str())));
        }
        Some(app) => Some(vec![app.to_string()]),
        None => principal
            .scope()
            .apps
            .as_ref()
            .map(|apps| apps.iter().map(ToString::to_string).collect()),
    };
    let since = query.since.as_deref().map(|text| logs::time("since", text, clock::now()));
    let limit = query.limit.unwrap_or(LIMIT);
    if limit > MAX_LIMIT {
        return Err(bad_query(&format!("`limit` is {limit}, and at most {MAX_LIMIT}")));
    }
    let wanted = JournalQuery { subjects, since: since.transpose()?, before: query.before, limit };
    let records = api.parts.journal.read(wanted).await?;
    let entries = records.into_iter().filter_map(|(seq, record)| entry(seq, record)).collect();
    Ok(Json(AuditList { entries }))
}

fn entry(seq: Seq, record: JournalRecord) -> Option<AuditEntry> {
    let stored: Stored = match serde_json::from_slice(&record.body) {
        Ok(stored) => stored,
        Err(error) => {
            tracing::error!(seq, %error, "an entry of the audit log cannot be read");
            return None;
        }
    };
    Some(AuditEntry {
        seq,
        time: record.time,
        by: stored.by,
        token: stored.token,
        action: stored.action,
        app: record.subject.and_then(|app| app.parse().ok()),
        object: stored.object,
        outcome: stored.outcome,
        from: stored.from,
        agent: stored.agent,
        request_id: stored.request_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_wrong_place_is_not_kept() {
        assert_eq!(concealed("v3/NAME"), "v3/NAME");
        assert_eq!(concealed("faas_c0ffee"), "faas_…");
        assert_eq!(concealed("v1/=faas_key_c0ffee c0ffee/x"), "v1/=faas_…/x");
    }
}
