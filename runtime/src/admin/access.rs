//! What each operation needs, and whether the token that asks has it: one place for all of them.
//!
//! An endpoint says what it needs in its own description, as roles of the bearer token:
//! `security(("bearer" = ["deploy"]))`. Several `("bearer" = […])` are alternatives.
//!
//! | role | the token needs |
//! |---|---|
//! | `VERB` | the verb on the app of the path; on every app where the path has none |
//! | `VERB:any` | the verb on some app; the endpoint looks which |
//! | `any` | nothing: every good token will do |
//!
//! An operation that says nothing is for those who may do everything, and fails a test.

use super::{Api, audit, auth::Principal, error::ApiError};
use axum::{
    extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request},
    http::{Method, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use faas_api::{ErrorCode, Verb};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

/// What a role asks of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// To be good.
    Nothing,
    /// This verb on the app of the path, or on every app.
    Here(Verb),
    /// This verb on some app.
    Somewhere(Verb),
}

impl Need {
    fn of(role: &str) -> Option<Self> {
        match role.strip_suffix(":any") {
            _ if role == "any" => Some(Self::Nothing),
            Some(verb) => verb.parse().ok().map(Self::Somewhere),
            None => role.parse().ok().map(Self::Here),
        }
    }

    fn is_met(self, principal: &Principal, app: Option<&str>) -> bool {
        let scope = principal.scope();
        match (self, app) {
            (Self::Nothing, _) => true,
            (Self::Here(verb), Some(app)) => scope.allows(verb, app),
            (Self::Here(verb), None) => scope.allows_everywhere(verb),
            (Self::Somewhere(verb), _) => scope.allows_somewhere(verb),
        }
    }

    fn verb(self) -> Option<Verb> {
        match self {
            Self::Nothing => None,
            Self::Here(verb) | Self::Somewhere(verb) => Some(verb),
        }
    }
}

/// One operation of the API.
#[derive(Debug)]
struct Operation {
    /// Its `operationId`.
    id: String,
    /// One of these must be met.
    needs: Vec<Need>,
    /// Whether it answers without a token, if the settings let it.
    open: bool,
}

impl Operation {
    fn of(description: &Value) -> Self {
        let requirements = description["security"].as_array().map_or(&[][..], Vec::as_slice);
        let roles = requirements.iter().filter_map(|requirement| requirement["bearer"].as_array());
        Self {
            id: description["operationId"].as_str().unwrap_or_default().to_owned(),
            needs: roles.flatten().filter_map(|role| Need::of(role.as_str()?)).collect(),
            open: requirements
                .iter()
                .any(|requirement| requirement.as_object().is_some_and(serde_json::Map::is_empty)),
        }
    }

    fn check(&self, principal: &Principal, app: Option<&str>) -> Result<(), ApiError> {
        let everything = [Need::Here(Verb::Admin)];
        let (needs, app) = match self.needs.is_empty() {
            true => (&everything[..], None),
            false => (&*self.needs, app),
        };
        if needs.iter().any(|need| need.is_met(principal, app)) {
            return Ok(());
        }
        // The first of several says best what the operation is.
        let verb = needs.iter().find_map(|need| need.verb()).unwrap_or(Verb::Admin);
        let somewhere = needs.iter().all(|need| matches!(need, Need::Somewhere(_)));
        Err(missing(principal, verb, app.map_or(Place::no_app(somewhere), Place::App)))
    }
}

/// Where a verb is missing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// On this app.
    App(&'a str),
    /// On every app.
    Everywhere,
    /// On any app at all.
    Anywhere,
}

impl Place<'_> {
    fn no_app(somewhere: bool) -> Self {
        if somewhere { Self::Anywhere } else { Self::Everywhere }
    }
}

/// The error of a token that is good, but not for this.
pub(super) fn missing(principal: &Principal, verb: Verb, place: Place<'_>) -> ApiError {
    let scope = principal.scope();
    let (place, flag) = match place {
        // What is no app's name is not repeated.
        Place::App(app) => match app.parse::<faas_api::AppName>() {
            Ok(app) => (format!(" on `{app}`"), format!(" --app {app}")),
            Err(_) => (" there".to_owned(), String::new()),
        },
        Place::Everywhere => (" on every app".to_owned(), String::new()),
        Place::Anywhere => (String::new(), String::new()),
    };
    ApiError::new(ErrorCode::MissingScope)
        .detail(format!("the token `{principal}` lacks `{verb}`{place}; it has {scope}"))
        .hint(format!("ask for one that may: faas token create{flag} --can {verb}"))
}

/// What every operation needs.
#[derive(Debug)]
pub(super) struct Access {
    operations: HashMap<(Method, String), Operation>,
}

impl Access {
    /// Reads it out of the description of the API.
    pub(super) fn of(description: &Value) -> Self {
        let mut operations = HashMap::new();
        for (path, item) in description["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else {
                    continue;
                };
                operations.insert((method, path.clone()), Operation::of(operation));
            }
        }
        Self { operations }
    }

    fn operation(&self, parts: &Parts) -> Option<&Operation> {
        let path = parts.extensions.get::<MatchedPath>()?.as_str().to_owned();
        let method = match &parts.method {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        self.operations.get(&(method, path))
    }

    /// Stands before every endpoint: lets in who may, and sees to it that the audit log learns of
    /// everything that is not only a question.
    pub(super) async fn guard(
        self: Arc<Self>,
        api: Arc<Api>,
        request: Request,
        next: Next,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        let Some(operation) = self.operation(&parts) else {
            return ApiError::internal("an endpoint is not described").into_response();
        };
        let Some(principal) = parts.extensions.get::<Principal>().cloned() else {
            return match operation.open {
                true => next.run(Request::from_parts(parts, body)).await,
                false => ApiError::internal("reached without a principal").into_response(),
            };
        };
        let target = Target::of(&mut parts).await;
        let allowed = operation.check(&principal, target.app.as_deref());
        if parts.method.is_safe() {
            return match allowed {
                Ok(()) => next.run(Request::from_parts(parts, body)).await,
                Err(error) => error.into_response(),
            };
        }
        let draft = audit::Draft::new(&operation.id, &principal, target, &parts);
        audit::recorded(api, draft, Request::from_parts(parts, body), allowed, next).await
    }
}

/// What a path names.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// Its `{app}`, whether or not that is a valid name.
    pub(super) app: Option<String>,
    /// Everything else it names.
    pub(super) object: Option<String>,
}

impl Target {
    async fn of(parts: &mut Parts) -> Self {
        // What is not UTF-8 is nobody's; the endpoint refuses it.
        let has_app = |parts: &Parts| {
            let path = parts.extensions.get::<MatchedPath>();
            path.is_some_and(|path| path.as_str().contains("{app}"))
        };
        let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else {
            return Self { app: has_app(parts).then(String::new), object: None };
        };
        let app = params.iter().find(|(name, _)| *name == "app");
        let others = params.iter().filter(|(name, _)| *name != "app");
        let others: Vec<&str> = others.map(|(_, value)| value).collect();
        Self {
            app: app.map(|(_, value)| value.to_owned()),
            object: (!others.is_empty()).then(|| others.join("/")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::openapi;

    #[test]
    fn roles() {
        for (role, need) in [
            ("any", Some(Need::Nothing)),
            ("read", Some(Need::Here(Verb::Read))),
            ("admin:any", Some(Need::Somewhere(Verb::Admin))),
            ("", None),
            ("write", None),
            ("any:any", None),
            ("read:all", None),
        ] {
            assert_eq!(Need::of(role), need, "{role}");
        }
    }

    /// A new endpoint that does not say who may use it fails here.
    #[test]
    fn every_operation_says_what_it_needs() {
        let description: Value = serde_json::from_slice(&openapi::describe()).unwrap();
        let access = Access::of(&description);
        assert!(access.operations.len() >= 16);
        for ((method, path), operation) in &access.operations {
            let at = format!("{method} {path}");
            let described = &description["paths"][path][method.as_str().to_ascii_lowercase()];
            let requirements = described["security"].as_array();
            let requirements = requirements.unwrap_or_else(|| panic!("{at} says nothing"));
            let mut roles = 0;
            for requirement in requirements {
                let requirement = requirement.as_object().unwrap();
                let Some(named) = requirement.get("bearer") else {
                    assert!(requirement.is_empty(), "{at}: {requirement:?}");
                    continue;
                };
                let named = named.as_array().unwrap();
                assert_eq!(named.len(), 1, "{at}: alternatives are requirements of their own");
                roles += named.len();
            }
            assert_eq!(operation.needs.len(), roles, "{at}: {requirements:?}");
            assert!(roles > 0 || path == "/v1/openapi.json", "{at} says nothing");
            assert!(!operation.open || method.is_safe(), "{at} changes things and is open");
            let has_app = path.contains("{app}");
            for need in &operation.needs {
                let narrow = matches!(need, Need::Here(_));
                assert!(!has_app || narrow, "{at}: {need:?} does not look at the app");
                let plain_read = *need == Need::Here(Verb::Read);
                assert!(method.is_safe() || !plain_read, "{at} changes things for readers");
            }
        }
    }

    #[test]
    fn what_says_nothing_is_for_the_mightiest_only() {
        let silent = Operation::of(&serde_json::json!({ "operationId": "new" }));
        assert!(silent.check(&Principal::Server, Some("shop")).is_ok());
        assert!(!silent.open);
    }
}
