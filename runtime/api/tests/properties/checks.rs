//! What must hold of names, routes, grants, scopes and manifests, whatever bytes somebody chose. Each
//! function panics where it does not: tests call them with small random inputs, `fuzz/` with many.

use faas_api::{
    AppName, Artifact, ArtifactError, Digest, Domain, FunctionName, KeyName, Manifest, NewToken,
    OutboundHost, Route, Scope, TokenId, VarName, Verb, VersionId,
    manifest::NewVersion,
    outbound::{OutboundScheme, normal_host},
};
use std::{fmt::Display, str::FromStr};

/// A name is refused, or is exactly what was written and of the alphabet that its documentation names:
/// nothing that a path, a header, a terminal or a shell would take for something else.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_label = |text: &str| {
        let edges = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-');
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        edges && text.len() <= 40 && text.chars().all(allowed) && !text.contains("--")
    };
    let reserved = ["faas", "admin", "api", "internal", "www"];
    assert_eq!(same::<AppName>(text), is_label(text) && !reserved.contains(&text), "{text:?}");
    assert_eq!(same::<FunctionName>(text), is_label(text), "{text:?}");
    if same::<KeyName>(text) {
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        assert!(!text.contains(['/', '\\', '%']) && text != "." && text != "..", "{text:?}");
    }
    if same::<VarName>(text) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        assert!((1..=128).contains(&text.len()) && text.bytes().all(word), "{text:?}");
        assert!(!text.starts_with(|c: char| c.is_ascii_digit()), "{text:?}");
        assert!(!text.starts_with("HTTP_"), "{text:?} would be a client's field");
    }
    if same::<Domain>(text) {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        assert!(text.len() <= 253 && text.contains('.') && text.bytes().all(allowed), "{text:?}");
        assert!(text.split('.').all(|label| (1..=63).contains(&label.len())), "{text:?}");
        assert!(text.parse::<std::net::IpAddr>().is_err(), "{text:?}");
    }
    let version = text.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok());
    let version = version.filter(|number| *number > 0 && text == format!("v{number}"));
    assert_eq!(text.parse::<VersionId>().ok().map(VersionId::number), version, "{text:?}");
    let hex = |length: usize| {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == length && text.bytes().all(digit)
    };
    assert_eq!(same::<TokenId>(text), hex(10), "{text:?}");
    if text.parse::<Digest>().is_ok() {
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text.to_ascii_lowercase());
    }
}

/// Whether it is one; then it is shown as it was written.
fn same<T: FromStr + Display>(text: &str) -> bool {
    let Ok(name) = text.parse::<T>() else { return false };
    assert_eq!(name.to_string(), text);
    true
}

/// A route is refused, or shown as it was written; it takes the path that it spells.
pub(crate) fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(route) = text.parse::<Route>() else { return };
    assert_eq!(route.as_str(), text);
    assert!(text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    assert!(route.same_as(&route) && route.by_precedence(&route).is_eq());
    let path = route.path();
    assert!(path.starts_with('/') && path.starts_with(route.fixed()), "{text:?}");
    assert!(!path.split('/').any(|part| part == ".." || part == "."), "{text:?}");
    let spelled = path.replace('*', "rest");
    assert!(route.takes_path(&spelled), "{text:?} takes {spelled:?}");
    assert!(!route.takes_path(""), "{text:?}");
    if let Some(host) = route.host() {
        assert!(host.parse::<Domain>().is_ok(), "{text:?}");
    }
}

/// A grant is refused, or is for one server and none that only looks like it.
pub(crate) fn grants(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(host) = normal_host(text) {
        assert_eq!(normal_host(&host).as_deref(), Some(&*host), "{text:?}: once is enough");
    }
    let Ok(grant) = text.parse::<OutboundHost>() else { return };
    let again: OutboundHost = grant.as_str().parse().expect("its own short form");
    assert_eq!(again, grant, "{text:?}");
    let (scheme, rest) = grant.as_str().split_once("://").expect("a scheme");
    assert!(!rest.contains(['/', '@', '?', '#', ' ', '\\', '%']), "{text:?}");
    let other = if scheme == "http" { OutboundScheme::Https } else { OutboundScheme::Http };
    let scheme = if scheme == "http" { OutboundScheme::Http } else { OutboundScheme::Https };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().expect("a port")),
        _ => (rest, scheme.default_port()),
    };
    let (wild, host) = match host.strip_prefix("*.") {
        Some(domain) => (true, domain.to_owned()),
        None => (false, host.to_owned()),
    };
    let below = format!("below.{host}");
    assert_eq!(grant.covers(scheme, &host, port), !wild, "{text:?}");
    assert_eq!(grant.covers(scheme, &below, port), wild, "{text:?}");
    let lookalikes =
        [format!("evil{host}"), format!("{host}.evil"), format!("{host}evil"), String::new()];
    for lookalike in &lookalikes {
        assert!(!grant.covers(scheme, lookalike, port), "{text:?} covers {lookalike:?}");
    }
    for name in [&host, &below] {
        assert!(
            !grant.covers(other, name, port) && !grant.covers(scheme, name, port ^ 1),
            "{text:?}"
        );
    }
}

/// Bytes that somebody uploads are refused, or are what they are said to be.
pub(crate) fn artifact(data: &[u8]) {
    match Artifact::inspect(data) {
        Ok(artifact) => {
            assert_eq!((artifact.digest, artifact.size), (Digest::of(data), data.len() as u64));
            assert!(data.starts_with(b"\0asm"));
            let text = serde_json::to_string(&artifact).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Artifact>(&text).expect("what was written"),
                artifact
            );
            // Nobody can call half of it.
            let half = Artifact::inspect(&data[..data.len() - 1]);
            assert!(!half.is_ok_and(|half| half.digest == artifact.digest));
        }
        Err(ArtifactError::Damaged { offset, .. }) => {
            assert!(data.starts_with(b"\0asm") && offset <= data.len() as u64, "{offset}");
        }
        Err(_) => assert!(!data.starts_with(b"\0asm")),
    }
}

/// What a scope covers is what it allows and no more, over all verbs and these apps.
pub(crate) fn scopes(data: &[u8]) {
    const APPS: [&str; 4] = ["a", "a-b", "ab", "b"];
    let Some((own, other)) = data.split_at_checked(data.len() / 2) else { return };
    let read = |bytes: &[u8]| {
        let text = serde_json::from_slice::<NewToken>(bytes).map(|token| token.scope);
        text.or_else(|_| serde_json::from_slice::<Scope>(bytes)).ok()
    };
    let small = |bytes: &[u8]| {
        let (apps, verbs) = (*bytes.first()?, *bytes.get(1)?);
        let some = |bits: u8| move |(at, _): &(usize, _)| bits >> at & 1 == 1;
        let named = APPS.into_iter().enumerate().filter(move |(at, _)| apps >> at & 1 == 1);
        let named = named.map(|(_, app)| app.parse().unwrap()).collect();
        let can = Verb::ALL.into_iter().enumerate().filter(some(verbs)).map(|(_, verb)| verb);
        Some(Scope { apps: (apps < 128).then_some(named), can: can.collect() })
    };
    let (Some(own), Some(other)) =
        (read(own).or_else(|| small(own)), read(other).or_else(|| small(other)))
    else {
        return;
    };
    let Ok(checked) = own.clone().checked() else { return };
    let text = serde_json::to_string(&checked).unwrap();
    assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), checked);
    assert!(checked.covers(&checked) && Scope::everything().covers(&checked));
    let mut names: Vec<&str> = APPS.to_vec();
    names.extend(checked.apps.iter().chain(&other.apps).flatten().map(AppName::as_str));
    // An app that nobody named stands for all that will be.
    names.push("nobody");
    for verb in Verb::ALL {
        let can = own.can.contains(&verb) || own.can.contains(&Verb::Admin);
        assert_eq!(checked.allows_somewhere(verb), can);
        assert_eq!(checked.allows_everywhere(verb), can && own.apps.is_none());
        for name in &names {
            let named =
                own.apps.as_ref().is_none_or(|apps| apps.iter().any(|app| app.as_str() == *name));
            assert_eq!(checked.allows(verb, name), can && named, "{checked} {verb} {name}");
        }
    }
    let Ok(other) = other.clone().checked() else { return };
    if checked.covers(&other) {
        for verb in Verb::ALL {
            for name in &names {
                assert!(!other.allows(verb, name) || checked.allows(verb, name));
            }
            assert!(!other.allows_everywhere(verb) || checked.allows_everywhere(verb));
        }
    }
}

/// A manifest is refused, or what is written of it is read as the same; checking it again finds nothing.
pub(crate) fn manifest(data: &[u8]) {
    if let Ok(version) = serde_json::from_slice::<NewVersion>(data) {
        let text = serde_json::to_string(&version).expect("JSON");
        assert_eq!(serde_json::from_str::<NewVersion>(&text).expect("what was written"), version);
        manifest(&serde_json::to_vec(&version.manifest).expect("JSON"));
    }
    let Ok(mut manifest) = serde_json::from_slice::<Manifest>(data) else { return };
    let text = serde_json::to_string(&manifest).expect("JSON");
    assert_eq!(serde_json::from_str::<Manifest>(&text).expect("what was written"), manifest);
    match manifest.check() {
        Err(problem) => {
            let told = format!("{problem} {:?}", problem.hint);
            let control = told.chars().find(|c| c.is_control());
            assert_eq!(control, None, "{told:?}");
        }
        Ok(()) => {
            let before = manifest.clone();
            assert_eq!(manifest.check(), Ok(()));
            assert_eq!(manifest, before);
            assert!(!manifest.digests().is_empty());
            for function in &manifest.functions {
                assert_eq!(manifest.function(&function.name), Some(function));
                let settings = &function.settings;
                assert_eq!(settings.routes.is_empty(), settings.private);
                assert!(settings.secrets.iter().all(|name| !settings.env.contains_key(name)));
            }
        }
    }
}
