//! What a deploy would change: functions, routes, grants, limits. New things that a function may
//! reach stand out.

use faas_api::{
    Domain, Function, FunctionSpec, Manifest, Settings, Version,
    manifest::{Auth, LimitWishes},
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Change {
    /// The function; absent: the app as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// Which key of the manifest it is about.
    pub(crate) key: &'static str,
    /// What is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// What will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Whether it lets a function reach more than before: a person should look at it.
    pub(crate) widens: bool,
}

impl Change {
    /// In one line, without its function.
    pub(crate) fn line(&self) -> String {
        let note = if self.widens { "   (new)" } else { "" };
        match (&self.from, &self.to) {
            (None, Some(to)) => format!("+ {:<12} {to}{note}", self.key),
            (Some(from), None) => format!("- {:<12} {from}", self.key),
            (Some(from), Some(to)) => format!("~ {:<12} {from} → {to}{note}", self.key),
            (None, None) => format!("~ {}", self.key),
        }
    }
}

/// Every difference between what is live and what a manifest says.
pub(crate) fn changes(live: Option<&Version>, wanted: &Manifest) -> Vec<Change> {
    let mut changes = Vec::new();
    let domains = live.map(|live| live.domains.as_slice()).unwrap_or_default();
    let texts = |domains: &[Domain]| domains.iter().map(ToString::to_string).collect();
    let mut app = Differences { function: None, changes: &mut changes };
    app.sets("domain", texts(domains), texts(&wanted.domains), false);
    let before: BTreeMap<&str, &Function> = live
        .map(|live| live.functions.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|function| (function.name.as_str(), function))
        .collect();
    for function in &wanted.functions {
        let known = before.get(function.name.as_str()).copied();
        let name = Some(function.name.to_string());
        Differences { function: name, changes: &mut changes }.of_function(known, function);
    }
    for (name, function) in before {
        if wanted.functions.iter().all(|other| other.name.as_str() != name) {
            let mut gone = Differences { function: Some(name.to_owned()), changes: &mut changes };
            gone.add("function", Some(function.digest.short()), None, false);
        }
    }
    changes
}

/// Collects the differences of one function, or of the app.
struct Differences<'a> {
    function: Option<String>,
    changes: &'a mut Vec<Change>,
}

impl Differences<'_> {
    fn add(&mut self, key: &'static str, from: Option<String>, to: Option<String>, widens: bool) {
        if from != to {
            let function = self.function.clone();
            self.changes.push(Change { function, key, from, to, widens });
        }
    }

    /// What is in one of two lists only.
    fn sets(&mut self, key: &'static str, from: Vec<String>, to: Vec<String>, widens: bool) {
        for text in to.iter().filter(|text| !from.contains(text)) {
            self.add(key, None, Some(text.clone()), widens);
        }
        for text in from.into_iter().filter(|text| !to.contains(text)) {
            self.add(key, Some(text), None, false);
        }
    }

    fn of_function(&mut self, before: Option<&Function>, after: &FunctionSpec) {
        let (key, was) = match before {
            Some(before) => ("code", Some(before.digest.short())),
            None => ("function", None),
        };
        self.add(key, was, Some(after.digest.short()), false);
        let none = Settings::default();
        let before_settings = before.map_or(&none, |before| &before.settings);
        let after_settings = &after.settings;
        let routes =
            |settings: &Settings| settings.routes.iter().map(ToString::to_string).collect();
        self.sets("route", routes(before_settings), routes(after_settings), false);
        let text = |settings: &Settings| settings.private.then(|| "yes".to_owned());
        self.add("private", text(before_settings), text(after_settings), false);
        let strip =
            |settings: &Settings| Some(if settings.strip_prefix { "yes" } else { "no" }.to_owned());
        if before.is_some() {
            self.add("strip_prefix", strip(before_settings), strip(after_settings), false);
        }
        let hosts = |settings: &Settings| {
            settings.grants.outbound.iter().map(ToString::to_string).collect::<Vec<String>>()
        };
        self.sets("outbound", hosts(before_settings), hosts(after_settings), true);
        let secrets =
            |settings: &Settings| settings.secrets.iter().map(ToString::to_string).collect();
        self.sets("secret", secrets(before_settings), secrets(after_settings), true);
        self.variables(before_settings, after_settings);
        self.limits(&before_settings.limits, &after_settings.limits);
        let auth = |settings: &Settings| match &settings.auth {
            Auth::Public => None,
            Auth::Key => Some("key".to_owned()),
            Auth::Jwt { issuer, .. } => Some(format!("jwt of {issuer}")),
        };
        let opens = before.is_some() && after_settings.auth == Auth::Public;
        let (was, is) = (auth(before_settings), auth(after_settings));
        match (opens, is) {
            (true, None) => self.add("auth", was.clone(), was.map(|_| "public".to_owned()), true),
            (_, is) => self.add("auth", was, is, false),
        }
        let json = |value: Option<String>| value.filter(|text| text != "null");
        let rate = |settings: &Settings| json(serde_json::to_string(&settings.rate_limit).ok());
        self.add("rate_limit", rate(before_settings), rate(after_settings), false);
        let cors = |settings: &Settings| json(serde_json::to_string(&settings.cors).ok());
        self.add("cors", cors(before_settings), cors(after_settings), false);
        let reuse = |reuse| json(serde_json::to_string(&reuse).ok());
        self.add("reuse", reuse(before.and_then(|b| b.reuse)), reuse(after.reuse), false);
    }

    fn variables(&mut self, before: &Settings, after: &Settings) {
        for (name, value) in &after.env {
            match before.env.get(name) {
                None => self.add("env", None, Some(format!("{name}={value}")), false),
                Some(was) if was != value => {
                    let (was, is) = (format!("{name}={was}"), format!("{name}={value}"));
                    self.add("env", Some(was), Some(is), false);
                }
                Some(_) => {}
            }
        }
        let gone = before.env.keys().filter(|name| !after.env.contains_key(*name));
        gone.for_each(|name| self.add("env", Some(name.to_string()), None, false));
    }

    fn limits(&mut self, before: &LimitWishes, after: &LimitWishes) {
        let ms = |value: Option<u64>| value.map(|value| format!("{value} ms"));
        let bytes = |value: Option<u64>| value.map(crate::format::size);
        let count = |value: Option<u32>| value.map(|value| value.to_string());
        self.add("cpu", ms(before.cpu_ms), ms(after.cpu_ms), false);
        self.add("first_byte", ms(before.first_byte_ms), ms(after.first_byte_ms), false);
        self.add("timeout", ms(before.wall_ms), ms(after.wall_ms), false);
        let (was, is) = (before.response_idle_ms, after.response_idle_ms);
        self.add("response_idle", ms(was), ms(is), false);
        self.add("memory", bytes(before.memory_bytes), bytes(after.memory_bytes), false);
        let (was, is) = (before.request_body_bytes, after.request_body_bytes);
        self.add("body", bytes(was), bytes(is), false);
        self.add("log", bytes(before.log_bytes), bytes(after.log_bytes), false);
        self.add("subrequests", count(before.subrequests), count(after.subrequests), false);
        self.add("concurrency", count(before.concurrency), count(after.concurrency), false);
    }
}

/// The changes for people, each function under its name.
pub(crate) fn to_text(changes: &[Change]) -> String {
    let mut text = String::new();
    let mut last = None;
    for change in changes {
        if last != Some(&change.function) {
            let name = change.function.as_deref().unwrap_or("app");
            text.push_str(&format!("  {name}\n"));
            last = Some(&change.function);
        }
        text.push_str(&format!("    {}\n", change.line()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::{Digest, Kind, manifest::Grants};

    fn live(settings: Settings) -> Version {
        Version {
            version: "v3".parse().unwrap(),
            created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            created_by: "ci".into(),
            message: None,
            size: 1,
            live_percent: 100,
            functions: vec![Function {
                name: "api".parse().unwrap(),
                kind: Kind::Http03,
                digest: Digest::of(b"1"),
                size: 1,
                route: "/api/*".into(),
                reuse: None,
                settings,
            }],
            domains: vec![],
            pinned: false,
            preview_url: String::new(),
        }
    }

    fn wanted(names: &[(&str, &[u8], Settings)]) -> Manifest {
        let functions = names.iter().map(|(name, code, settings)| FunctionSpec {
            name: name.parse().unwrap(),
            digest: Digest::of(code),
            reuse: None,
            settings: settings.clone(),
        });
        Manifest { functions: functions.collect(), ..Manifest::default() }
    }

    fn settings() -> Settings {
        Settings { routes: vec!["/api/*".parse().unwrap()], ..Settings::default() }
    }

    #[test]
    fn nothing_changes() {
        assert_eq!(changes(Some(&live(settings())), &wanted(&[("api", b"1", settings())])), []);
    }

    #[test]
    fn what_stands_out() {
        let mut after = settings();
        after.grants = Grants { outbound: vec!["https://api.stripe.com".parse().unwrap()] };
        after.secrets = vec!["STRIPE_KEY".parse().unwrap()];
        after.limits.memory_bytes = Some(64 << 20);
        after.routes.push("/v2".parse().unwrap());
        let found = changes(
            Some(&live(settings())),
            &wanted(&[("api", b"2", after), ("web", b"3", Settings::default())]),
        );
        let text = to_text(&found);
        let old = Digest::of(b"1").short();
        let new = Digest::of(b"2").short();
        let web = Digest::of(b"3").short();
        assert_eq!(
            text,
            format!(
                "  api\n    ~ code         {old} → {new}\n    + route        /v2\n    \
                 + outbound     https://api.stripe.com   (new)\n    \
                 + secret       STRIPE_KEY   (new)\n    \
                 + memory       64 MiB\n  web\n    + function     {web}\n"
            )
        );
        assert_eq!(found.iter().filter(|change| change.widens).count(), 2);
    }

    #[test]
    fn what_goes_away_and_what_opens() {
        let mut before = settings();
        before.auth = Auth::Key;
        let open = changes(Some(&live(before.clone())), &wanted(&[("api", b"1", settings())]));
        assert_eq!(to_text(&open), "  api\n    ~ auth         key → public   (new)\n");
        let gone = changes(Some(&live(before)), &wanted(&[("web", b"3", settings())]));
        assert!(to_text(&gone).contains("  api\n    - function "));
        assert!(
            changes(None, &wanted(&[("web", b"3", settings())])).iter().all(|c| c.from.is_none())
        );
    }
}
