//! One request of the API, top to bottom.

use super::{
    Api,
    access::Access,
    auth::{self, Principal},
    error::{self, ApiError},
    origin, revocation, routes,
};
use crate::{clock, request_id::RequestId};
use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
};
use faas_api::ErrorCode;
use futures::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tracing::Instrument as _;

/// Answers requests that come in through a listener.
pub(super) struct Gate {
    api: Arc<Api>,
    listener: IpAddr,
    router: TowerToHyperService<axum::Router>,
}

impl Gate {
    pub(super) fn new(api: Arc<Api>, listener: IpAddr) -> Self {
        let (router, _) = routes(api.patience.request).split_for_parts();
        let description = serde_json::from_slice(&api.openapi).unwrap_or_default();
        let access = Arc::new(Access::of(&description));
        let guard = {
            let api = api.clone();
            from_fn(move |request, next| access.clone().guard(api.clone(), request, next))
        };
        let router = router
            // Only what is there is guarded; what is not has nothing to hide from a token.
            .route_layer(guard)
            .fallback(async || ApiError::no_route())
            .method_not_allowed_fallback(async || ApiError::wrong_method())
            .with_state(api.clone());
        let router = TowerToHyperService::new(router);
        Self { api, listener, router }
    }

    /// Answers one request. Every failure becomes a response here.
    pub(super) async fn answer(&self, mut request: Request) -> Response {
        let id = RequestId::new();
        request.extensions_mut().insert(id);
        let span = tracing::info_span!("api", request_id = %id, method = %request.method());
        let has_body = !request.body().is_end_stream();
        let answered = AssertUnwindSafe(self.admit(request)).catch_unwind().instrument(span).await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(_) => ApiError::internal("a handler panicked").into_response(),
        };
        let mut response = error::finish(response, id);
        let failed = response.status().is_client_error() || response.status().is_server_error();
        if failed && has_body {
            // The rest of the body would be read as the next request, or for nothing.
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Looks at the head alone: nothing of a body is read before the token is known. Without one
    /// every address looks the same, whether there is anything or not.
    async fn admit(&self, mut request: Request) -> Result<Response, ApiError> {
        let (version, uri, headers) = (request.version(), request.uri(), request.headers());
        origin::check(self.listener, version, uri, headers)?;
        let parts = &self.api.parts;
        if !auth::is_open(uri.path(), parts.config.open_probes) {
            let principal = auth::check(&parts.token, &parts.tokens, headers, clock::now())?;
            request.extensions_mut().insert(principal);
        }
        let id = request.extensions().get::<Principal>().and_then(Principal::id).cloned();
        match self.router.call(request).await {
            Ok(response) => Ok(revocation::watched(response, id, &self.api)),
            Err(never) => match never {},
        }
    }
}

/// Gives an answer within the time that answers may take.
pub(super) async fn in_time(limit: Duration, request: Request<Body>, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(ErrorCode::Overloaded)
            .because(format!("no answer within {limit:?}"))
            .into_response(),
    }
}
