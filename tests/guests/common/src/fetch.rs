//! Requests that a guest sends.

use crate::{Answer, Seen, parameter};

/// What to send. `/fetch?…&url=URL`: the URL is the rest of the query, as it is; with `coded=1` its
/// `%xx` are characters.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub url: String,
    pub method: String,
    /// As many as there are `header=NAME:VALUE`; `%0d` and its like stand for what they code.
    pub headers: Vec<(String, String)>,
    /// Bytes of the request's body.
    pub body: usize,
    /// How many requests; with more than one, only a line about each is answered.
    pub times: usize,
    /// All at once, or one after the other.
    pub together: bool,
    /// Read no body before all heads are there.
    pub hold: bool,
    /// Begin it, wait for the answer to `/ready` of the same server, and drop it.
    pub abandon: bool,
}

impl Fetch {
    pub(crate) fn new(seen: &Seen) -> Self {
        let (parameters, url) = seen.query.split_once("url=").unwrap_or((&seen.query, ""));
        let number = |name| parameter(parameters, name).and_then(|value| value.parse().ok());
        // `/again?url=X` asks X for the same again, so that a function which asks itself never ends.
        let url = match seen.path.as_str() {
            "/again" => format!("{url}/again?url={url}"),
            _ if parameter(parameters, "coded").is_some() => decoded(url),
            _ => url.to_owned(),
        };
        let headers = parameters.split('&').filter_map(|pair| pair.strip_prefix("header="));
        let headers = headers.filter_map(|header| header.split_once(':'));
        let abandon = number("abandon").is_some();
        Self {
            url,
            method: decoded(parameter(parameters, "method").unwrap_or("GET")),
            headers: headers.map(|(name, value)| (decoded(name), decoded(value))).collect(),
            body: number("body").unwrap_or(0),
            times: number("times").unwrap_or(if abandon { 2 } else { 1 }),
            together: number("together").is_some(),
            hold: number("hold").is_some(),
            abandon,
        }
    }

    /// What says that the abandoned request has arrived.
    pub fn ready(&self) -> Self {
        let (scheme, authority, _) = self.parts();
        Self { url: format!("{scheme}://{authority}/ready"), body: 0, ..self.clone() }
    }

    /// Scheme, authority, path with query.
    pub fn parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let path = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path);
        (scheme, authority, if path.is_empty() { "/" } else { path })
    }
}

/// A text whose `%xx` are characters.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        out.extend(part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
        out.extend(part.get(2..).unwrap_or_default().bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The answer about requests that have none of their own.
pub fn fetched(lines: &[String]) -> Answer {
    Answer::text(lines.join("\n") + "\n")
}
