//! Requests that a guest sends.

use crate::{Answer, Seen, parameter};

/// What to send. `/fetch?…&url=URL`: the URL is the rest of the query, as it is.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub url: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    /// Bytes of the request's body.
    pub body: usize,
    /// How many requests; with more than one, only a line about each is answered.
    pub times: usize,
    /// All at once, or one after the other.
    pub together: bool,
    /// Read no body before all heads are there.
    pub hold: bool,
}

impl Fetch {
    pub(crate) fn new(seen: &Seen) -> Self {
        let (parameters, url) = seen.query.split_once("url=").unwrap_or((&seen.query, ""));
        let number = |name| parameter(parameters, name).and_then(|value| value.parse().ok());
        // `/again?url=X` asks X for the same again, so that a function which asks itself never ends.
        let url = match seen.path.as_str() {
            "/again" => format!("{url}/again?url={url}"),
            _ => url.to_owned(),
        };
        let header = parameter(parameters, "header").and_then(|header| header.split_once(':'));
        Self {
            url,
            method: parameter(parameters, "method").unwrap_or("GET").to_owned(),
            headers: header.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            body: number("body").unwrap_or(0),
            times: number("times").unwrap_or(1),
            together: number("together").is_some(),
            hold: number("hold").is_some(),
        }
    }

    /// Scheme, authority, path with query.
    pub fn parts(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let path = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path);
        (scheme, authority, if path.is_empty() { "/" } else { path })
    }
}

/// The answer about requests that have none of their own.
pub fn fetched(lines: &[String]) -> Answer {
    Answer::text(lines.join("\n") + "\n")
}
