//! `faas invoke APP[/PATH]`

use crate::{
    args,
    artifact::io_text,
    client,
    context::Context,
    documents::Invoked,
    error::{CliError, Exit, Result},
    format,
    ui::{Outcome, Ui},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use faas_api::AppName;
use reqwest::{
    Method, Response, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use std::{io::Read, time::Instant};

pub(crate) async fn run(context: &Context, args: args::Invoke) -> Result<Outcome> {
    let (app, path) = split_target(&args.target)?;
    let method = method(&args)?;
    let headers = headers(&args.headers)?;
    let body = args.data.as_deref().map(body).transpose()?;

    let (found, _etag) = context.client()?.app(&app).await?;
    let url = address(found.urls.first().map_or("", String::as_str), &path)?;
    let http = context.http_client(&url)?;
    // No time limit: a function may stream for long, and the server has limits of its own.
    let mut request = http.request(method, url.clone()).headers(headers);
    if let Some(body) = body {
        request = request.body(body);
    }
    let started = Instant::now();
    let response = request.send().await.map_err(|error| broken(&url, &error))?;
    let failure = failure(&app, &response);
    if context.ui.is_json() {
        collect(&url, response, failure).await
    } else {
        show(&context.ui, &args, (started, response), failure).await
    }
}

/// `hello/greet?name=ada` is the app `hello` and the path `/greet?name=ada`.
fn split_target(target: &str) -> Result<(AppName, String)> {
    let (app, path) = match target.find(['/', '?']) {
        Some(place) => target.split_at(place),
        None => (target, "/"),
    };
    let app = app.parse().map_err(|error| {
        CliError::new(Exit::Usage, "invalid_name", format!("`{app}` cannot name an app: {error}"))
    })?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((app, path))
}

fn method(args: &args::Invoke) -> Result<Method> {
    match &args.method {
        None if args.data.is_some() => Ok(Method::POST),
        None => Ok(Method::GET),
        Some(method) => Method::from_bytes(method.as_bytes())
            .map_err(|_invalid| CliError::usage(format!("`{method}` is no HTTP method"))),
    }
}

fn headers(given: &[String]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for header in given {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let Some((name, value)) = parsed else {
            return Err(CliError::usage(format!("`{header}` is no header"))
                .hint("write it as 'name: value'"));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// The text itself, `@FILE`, or `@-` for standard input.
fn body(data: &str) -> Result<Vec<u8>> {
    let read = match data.strip_prefix('@') {
        None => return Ok(data.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map(|_length| bytes)
        }
        Some(file) => std::fs::read(file),
    };
    read.map_err(|error| {
        let message = format!("cannot read `{data}`: {}", io_text(&error));
        CliError::new(Exit::Usage, "no_such_file", message)
    })
}

fn address(app: &str, path: &str) -> Result<Url> {
    Url::parse(&format!("{}{path}", app.trim_end_matches('/'))).map_err(|error| {
        CliError::failed(format!("the server gave no usable address, `{app}`: {error}"))
    })
}

fn broken(url: &Url, error: &reqwest::Error) -> CliError {
    client::unreachable(&url.origin().ascii_serialization(), error)
        .hint_if_none("the admin API answers, but the app's own address does not")
}

/// Anything but a 2xx or a 3xx.
fn failure(app: &AppName, response: &Response) -> Option<CliError> {
    let status = response.status();
    if status.is_success() || status.is_redirection() || status.is_informational() {
        return None;
    }
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let code = header("x-faas-error");
    let error = CliError::new(
        Exit::Failed,
        "http_status",
        match code {
            Some(code) => format!("`{app}` answered {status} ({code})"),
            None => format!("`{app}` answered {status}"),
        },
    );
    Some(match header("x-request-id") {
        Some(id) => error.hint(format!("faas logs {app} --request-id {id}")),
        None => error,
    })
}

async fn collect(url: &Url, response: Response, failure: Option<CliError>) -> Result<Outcome> {
    let status = response.status().as_u16();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| [name.to_string(), text(value)]);
    let headers = headers.collect();
    let body = response.bytes().await.map_err(|error| broken(url, &error))?;
    let (body, body_base64) = match String::from_utf8(body.into()) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    let data = Invoked { url: url.to_string(), status, headers, body, body_base64 };
    Ok(Outcome::new(&data, "")?.failure(failure))
}

async fn show(
    ui: &Ui,
    args: &args::Invoke,
    (started, mut response): (Instant, Response),
    failure: Option<CliError>,
) -> Result<Outcome> {
    let url = response.url().clone();
    let took = format::duration(started.elapsed());
    ui.head(&format!("{:?} {}   {took}", response.version(), response.status()));
    if args.include {
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            ui.head(&format!("{name}: {}", format::printable(&value)));
        }
        ui.head("");
    }
    let mut ends_a_line = true;
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&url, &error))? {
        ui.bytes(&chunk)?;
        ends_a_line = chunk.ends_with(b"\n");
    }
    ui.end_line(ends_a_line);
    Ok(Outcome::streamed().failure(failure))
}
