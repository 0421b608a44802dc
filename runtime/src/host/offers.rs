//! What this host offers to import, by name, so that a deploy can be refused with a table instead
//! of failing at the first request.

use super::{
    environment::{CONFIG_STORE, CONFIG_VERSIONS},
    logging,
};
use faas_api::{Artifact, ImportProblem, Kind};

/// Interfaces of WASI 0.2, at the version this host has.
pub(super) const WASI_02: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];
/// The version of [`WASI_02`].
pub(super) const VERSION_02: &str = "0.2.12";

/// Interfaces of WASI 0.3, at the version this host has.
pub(super) const WASI_03: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/types",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/system-clock",
    "wasi:clocks/types",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/client",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/types",
];
/// The version of [`WASI_03`].
pub(super) const VERSION_03: &str = "0.3.0";

/// The one module a core module may import from.
const WASI_01: &str = "wasi_snapshot_preview1";

/// The imports of an artifact that nothing here implements.
pub(crate) fn missing(artifact: &Artifact, kind: Kind) -> Vec<ImportProblem> {
    artifact.imports.iter().filter_map(|import| problem(import, kind)).collect()
}

fn problem(import: &str, kind: Kind) -> Option<ImportProblem> {
    let with_03 = kind == Kind::Http03;
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    let (offered, hint) = match kind {
        Kind::Cgi01 => {
            let module = import.split_once('.').map_or(import, |(module, _)| module);
            if module == WASI_01 {
                return None;
            }
            let hint = match module {
                "env" => "a symbol was left undefined at link time; link the library that has it",
                _ => "build for WASI 0.1 (wasm32-wasi, wasm32-wasip1) without other imports",
            };
            (vec![], hint)
        }
        Kind::Http03 | Kind::Http02 | Kind::Cgi02 => {
            if logging::NAMES.contains(&import) {
                return None;
            }
            let offered = offered(interface, with_03);
            if offered.iter().any(|offer| same_track(version, offer)) {
                return None;
            }
            let hint = match (offered.is_empty(), interface.split_once(':')) {
                (false, _) => "rebuild with the WIT of an offered version",
                (true, Some(("wasi", _))) => "this host has no implementation of that interface",
                (true, _) => {
                    "compose the component with one that exports it, then deploy the result"
                }
            };
            (offered, hint)
        }
    };
    Some(ImportProblem {
        import: import.to_owned(),
        offered: offered.into_iter().map(str::to_owned).collect(),
        hint: hint.to_owned(),
    })
}

/// The versions of an interface that a component of this kind may import.
fn offered(interface: &str, with_03: bool) -> Vec<&'static str> {
    let mut offered = Vec::new();
    if interface == CONFIG_STORE {
        offered.extend(CONFIG_VERSIONS);
    }
    if WASI_02.contains(&interface) {
        offered.push(VERSION_02);
    }
    if with_03 && WASI_03.contains(&interface) {
        offered.push(VERSION_03);
    }
    let drafts = logging::NAMES.iter().filter_map(|name| name.split_once('@'));
    offered.extend(drafts.filter(|(name, _)| *name == interface).map(|(_, version)| version));
    offered
}

/// Whether an import of one version is served by another, as the engine's linker decides: releases
/// of one `0.MINOR` or `MAJOR` are one track, a pre-release is only itself.
fn same_track(import: &str, offer: &str) -> bool {
    if import == offer {
        return true;
    }
    if import.contains(['-', '+']) || offer.contains(['-', '+']) {
        return false;
    }
    let track = |version: &str| -> Option<(String, Option<String>)> {
        let mut parts = version.split('.');
        let major = parts.next()?.to_owned();
        let minor = parts.next()?.to_owned();
        let zero = major == "0";
        Some((major, zero.then_some(minor)))
    };
    match (track(import), track(offer)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;
    use wasmtime::{
        Config, Engine,
        component::{Component, Linker},
    };

    /// A component that imports an interface of that name and nothing from it.
    fn links(linker: &Linker<host::HostState>, interface: &str, version: &str) -> bool {
        let text = format!(r#"(component (import "{interface}@{version}" (instance)))"#);
        let component = Component::new(linker.engine(), wat::parse_str(text).unwrap()).unwrap();
        linker.instantiate_pre(&component).is_ok()
    }

    #[test]
    fn the_linkers_have_what_is_offered() {
        let engine = Engine::new(Config::new().concurrency_support(true)).unwrap();
        let mut linker = Linker::new(&engine);
        host::link_03(&mut linker).unwrap();
        for interface in WASI_02 {
            assert!(links(&linker, interface, VERSION_02), "{interface}");
            assert!(links(&linker, interface, "0.2.0"), "{interface}");
        }
        for interface in WASI_03 {
            assert!(links(&linker, interface, VERSION_03), "{interface}");
            assert!(links(&linker, interface, "0.3.2"), "{interface}");
        }
        for version in CONFIG_VERSIONS {
            assert!(links(&linker, CONFIG_STORE, version), "{version}");
        }
    }

    /// A component that logs, under this name of the interface.
    fn logs(interface: &str) -> String {
        format!(
            r#"(component
                (type $logging (instance
                    (type $cases (enum "trace" "debug" "info" "warn" "error" "critical"))
                    (export "level" (type $level (eq $cases)))
                    (export "log" (func
                        (param "level" $level) (param "context" string) (param "message" string)))))
                (import "{interface}" (instance (type $logging))))"#
        )
    }

    #[test]
    fn logging_is_offered_by_name() {
        let engine = Engine::new(Config::new().concurrency_support(true)).unwrap();
        for link in [host::link_02, host::link_03] {
            let mut linker = Linker::new(&engine);
            link(&mut linker).unwrap();
            for name in logging::NAMES {
                let component = Component::new(&engine, wat::parse_str(logs(name)).unwrap());
                let linked = linker.instantiate_pre(&component.unwrap());
                assert!(linked.is_ok(), "{name}: {:?}", linked.err());
            }
        }
        for kind in [Kind::Http02, Kind::Http03, Kind::Cgi02] {
            assert_eq!(problem("wasi:logging/logging@0.1.0-draft", kind), None);
            assert_eq!(problem("wasi:logging/logging", kind), None);
            let newer = problem("wasi:logging/logging@0.1.0", kind).unwrap();
            assert_eq!(newer.offered, ["0.1.0-draft"]);
        }
    }

    #[test]
    fn tracks() {
        assert!(same_track("0.2.3", "0.2.12"));
        assert!(same_track("1.2.0", "1.9.0"));
        assert!(!same_track("0.3.0", "0.2.12"));
        assert!(!same_track("0.2.0-rc-2023-11-10", "0.2.12"));
        assert!(!same_track("", "0.2.12"));
    }

    #[test]
    fn problems_say_what_is_offered() {
        let problem_of = |import: &str, kind| problem(import, kind);
        assert_eq!(problem_of("wasi:http/types@0.2.3", Kind::Http02), None);
        assert_eq!(problem_of("wasi:io/poll@0.2.0", Kind::Http03), None);
        let old = problem_of("wasi:http/types@0.2.0-rc-2023-11-10", Kind::Http02).unwrap();
        assert_eq!(old.offered, ["0.2.12"]);
        for kind in [Kind::Http02, Kind::Http03, Kind::Cgi02] {
            assert_eq!(problem_of("wasi:config/store@0.2.0-rc.1", kind), None);
            let unknown = problem_of("wasi:config/store@0.2.0", kind).unwrap();
            assert_eq!(unknown.offered, CONFIG_VERSIONS);
        }
        assert!(problem_of("wasi:http/client@0.3.0", Kind::Http02).unwrap().offered.is_empty());
        assert!(problem_of("my:own/thing", Kind::Http02).unwrap().hint.contains("compose"));
        assert_eq!(problem_of("wasi_snapshot_preview1.fd_write", Kind::Cgi01), None);
        assert!(problem_of("env.puts", Kind::Cgi01).unwrap().hint.contains("link"));
    }
}
