//! The description of the API, generated from the endpoints. The file `openapi.json` beside this
//! one is what it was when it was last looked at.

use super::State;
use axum::http::{HeaderName, header::CONTENT_TYPE};
use bytes::Bytes;
use faas_api::{ErrorBody, ErrorCode, ImportProblem};
use std::{collections::BTreeMap, time::Duration};
use utoipa::{
    IntoParams, IntoResponses, Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        self, Content, HeaderBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

/// A router that knows what all endpoints have in common.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::with_openapi(Frame::openapi())
}

/// The description of every endpoint, as JSON.
pub(super) fn describe() -> Bytes {
    let mut api = super::routes(Duration::ZERO).into_openapi();
    // The words on the wire, which the derived description does not know.
    let codes = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(ErrorCode::ALL.iter().map(|code| code.as_str())))
        .description(Some("What went wrong, as a word that stays the same."));
    let components = api.components.get_or_insert_default();
    components.schemas.insert("ErrorCode".to_owned(), codes.into());
    // Derived from types that JSON can say.
    serde_json::to_vec(&api).unwrap_or_default().into()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "faas admin API",
        description = "Deploys, lists, rolls back and observes the apps of one node.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "apps", description = "Apps, their deploys and their logs."),
        (name = "keys", description = "API keys: who may call functions that want one."),
        (name = "versions", description = "Versions, and which of them are live."),
        (name = "usage", description = "What functions used, to be billed."),
        (name = "access", description = "Tokens, and who changed what."),
        (name = "configuration", description = "Variables and secrets of apps."),
        (name = "observe", description = "The node itself."),
    ),
    components(schemas(ErrorBody, ErrorCode, ImportProblem)),
    modifiers(&Bearer),
    security(("bearer" = [])),
)]
struct Frame;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some(
            "A token: one that `POST /v1/tokens` made, or the text of the file `admin.token` in \
                 the server's data directory, which may do everything. The roles of an operation \
                 say what it needs: a verb on the app of the path (on every app where there is \
                 none), `VERB:any` for a verb on some app, or `any` good token. Several are \
                 alternatives; `admin` includes every verb."
                .into(),
        );
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(http));
    }
}

/// This description
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", tag = "observe",
    security(()),
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = Object), Open))]
pub(super) async fn document(
    axum::extract::State(api): State,
) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(CONTENT_TYPE, "application/json")], api.openapi.clone())
}

/// What app and function names look like. The reserved ones are not worth a longer pattern.
pub(super) const NAME: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// An uploaded file, for the description.
pub(super) struct Binary;

impl ToSchema for Binary {}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

/// Declares parameters that many operations share.
macro_rules! parameters {
    ($($(#[$doc:meta])* $name:ident = $parameter:expr;)*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl IntoParams for $name {
                fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                    vec![$parameter]
                }
            }
        )*
    };
}

parameters! {
    /// The `{app}` of a path.
    App = parameter("app", ParameterIn::Path, "The app's name.", |schema| schema
        .pattern(Some(NAME))
        .max_length(Some(faas_api::names::MAX_NAME_LEN))
        .examples(["hello"]));
    /// The `{version}` of a path.
    Version = parameter("version", ParameterIn::Path, "The version.", |schema| schema
        .pattern(Some("^v[1-9][0-9]{0,8}$"))
        .examples(["v3"]));
    /// The `{sha256}` of a path.
    Blob = parameter("sha256", ParameterIn::Path, "SHA-256 of the content.", |schema| schema
        .pattern(Some("^[0-9a-f]{64}$")));
    /// The `{name}` of a path.
    VariableName = parameter("name", ParameterIn::Path, "A variable's or a secret's name.",
        |schema| schema
        .pattern(Some("^[A-Za-z_][A-Za-z0-9_]*$"))
        .max_length(Some(faas_api::names::MAX_VAR_LEN))
        .examples(["LOG_LEVEL"]));
    /// What a client calls a deploy.
    IdempotencyKey = parameter("idempotency-key", ParameterIn::Header,
        "Sent again with the same key, the same deploy makes no second version.", |schema| schema
        .pattern(Some("^[!-~]{1,128}$")));
    /// The `{id}` of a path.
    TokenId = parameter("id", ParameterIn::Path, "The token's id.", |schema| schema
        .pattern(Some("^[0-9a-f]{10}$"))
        .examples(["3fa91c07be"]));
    /// The `{key}` of a path.
    Key = parameter("key", ParameterIn::Path, "The key's id, or its name.", |schema| schema
        .max_length(Some(faas_api::names::MAX_NAME_LEN))
        .examples(["ci"]));
    /// The precondition of a change.
    IfMatch = parameter("if-match", ParameterIn::Header,
        "Change it only if the app still has this `etag`.", |schema| schema
        .pattern(Some("^(\\*|\"[0-9]{1,19}\")$"))
        .examples(["\"17\""]));
}

fn parameter(
    name: &str,
    place: ParameterIn,
    description: &str,
    shape: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
) -> Parameter {
    let schema = shape(ObjectBuilder::new().schema_type(Type::String));
    let required = match place {
        ParameterIn::Path => Required::True,
        _ => Required::False,
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// Declares which errors a group of endpoints may answer.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($code:ident),*;)*) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problems(&[$(ErrorCode::$code),*])
                }
            }
        )*
    };
}

problems! {
    /// What needs no token.
    Open: BadRequest, Forbidden, Internal;
    /// What needs no token unless a setting says so.
    Probe: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, Internal;
    /// What needs a token.
    Common: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, Internal, Overloaded;
    /// What reads an app.
    AppRead: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, NotFound,
        InvalidName, Internal, Overloaded;
    /// What changes an app that must be there.
    AppChange: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, NotFound, Conflict,
        InvalidName, Internal, Overloaded, StorageFull;
    /// What makes a token.
    TokenWrite: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, Conflict,
        Internal, Overloaded, StorageFull;
    /// What ends a token.
    TokenChange: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, NotFound,
        InvalidName, Internal, Overloaded, StorageFull;
    /// What takes a JSON body besides.
    JsonBody: RequestTimeout, BodyTooLarge, UnsupportedMediaType, Unprocessable, InvalidName;
    /// What copies the whole node.
    TakeBackup: Conflict, StorageFull;
    /// What tells usage.
    UsageRead: Unprocessable;
    /// What tells the usage of an app.
    AppUsageRead: InvalidName, Unprocessable;
    /// What makes versions live.
    GoesLive: InvalidName, Unprocessable, MissingSecret;
    /// What changes variables or secrets of an app.
    ConfigChange: BadRequest, Unauthorized, Forbidden, NotFound, Conflict, SecretInUse,
        InvalidName, Internal, Overloaded, StorageFull;
    /// What makes an app if there is none.
    AppWrite: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, Conflict,
        RouteConflict, Manifest, LimitAboveMaximum, MissingSecret, Unhealthy, InvalidName, InvalidWasm, Precompiled,
        UnknownKind, UnknownImport, CompileFailed, Internal, Overloaded, ShuttingDown, StorageFull;
    /// What takes an artifact and nothing else.
    BlobProblems: BadRequest, Unauthorized, TokenExpired, Forbidden, MissingScope, RequestTimeout, BodyTooLarge,
        UnsupportedMediaType, InvalidName, DigestMismatch, UploadQuota, Internal, Overloaded, ShuttingDown,
        StorageFull;
    /// What takes an artifact besides.
    Upload: RequestTimeout, BodyTooLarge, UnsupportedMediaType, InvalidName, Unprocessable,
        InvalidWasm, Precompiled, UnknownKind, UnknownImport, CompileFailed;
}

/// The responses of these codes; codes of one status share one.
fn problems(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<&ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status()).or_default().push(code);
    }
    let response = |(status, codes): (u16, Vec<&ErrorCode>)| {
        let says = codes.iter().map(|code| format!("`{code}`: {}.", code.title()));
        let says: Vec<String> = says.collect();
        let response = ResponseBuilder::new()
            .description(says.join(" "))
            .header(
                "x-request-id",
                HeaderBuilder::new()
                    .schema(Some(Object::with_type(Type::String)))
                    .description(Some("The id under which the log knows the request."))
                    .build(),
            )
            .header(
                "x-faas-error",
                HeaderBuilder::new()
                    .schema(Some(Ref::from_schema_name("ErrorCode")))
                    .description(Some("The code."))
                    .build(),
            )
            .content(super::error::PROBLEM, Content::new(Some(Ref::from_schema_name("ErrorBody"))));
        (status.to_string(), response.build().into())
    };
    by_status.into_iter().map(response).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn described() -> Value {
        serde_json::from_slice(&describe()).unwrap()
    }

    #[test]
    fn the_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/openapi.json");
        let current = serde_json::to_string_pretty(&described()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &current).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap();
        assert!(
            stored == current,
            "openapi.json is not what the endpoints say; run the test with UPDATE=1 and look at \
             the difference"
        );
    }

    #[test]
    fn every_operation_says_what_it_must() {
        let api = described();
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let at = format!("{method} {path}");
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{at}: `{id}` is taken");
                assert!(operation["summary"].is_string(), "{at} has no summary");
                let responses = operation["responses"].as_object().unwrap();
                let open = *path == "/v1/openapi.json";
                assert_eq!(responses.contains_key("401"), !open, "{at}");
                assert!(responses.contains_key("403") && responses.contains_key("500"), "{at}");
                for (status, response) in responses {
                    let problem = &response["content"][super::super::error::PROBLEM];
                    let expected =
                        status.as_str() >= "400" && response["content"]["text/plain"].is_null();
                    assert_eq!(problem.is_object(), expected, "{at}: {status}");
                }
                for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                    let name = part.trim_end_matches('}');
                    let parameters = operation["parameters"].as_array().unwrap();
                    let described =
                        parameters.iter().any(|p| p["name"] == name && p["in"] == "path");
                    assert!(described, "{at}: {name}");
                }
            }
        }
        assert_eq!(api["security"][0]["bearer"], serde_json::json!([]));
        assert_eq!(api["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }

    #[test]
    fn codes_are_described_as_they_are_sent() {
        let codes = &described()["components"]["schemas"]["ErrorCode"]["enum"];
        assert_eq!(*codes, serde_json::to_value(ErrorCode::ALL).unwrap());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let api = described();
        let text = api.to_string();
        for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(api["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
