//! The files that run a node for real: the unit and the image recipe in docs/deploy are what they
//! say, and start the binary as it is.

use faas_runtime::Config;
use faas_tests::{artifacts::repository, eventually, faas_binary};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// The exposure that `systemd-analyze security` may find at most, in tenths.
const MOST_EXPOSURE: &str = "--threshold=15";

fn file(name: &str) -> PathBuf {
    repository().join("docs/deploy").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

#[track_caller]
fn systemd_analyze(args: &[&str]) -> Output {
    let ran = Command::new("systemd-analyze").args(args).env("SYSTEMD_PAGER", "").output();
    ran.expect("systemd-analyze is missing (Debian: apt install systemd)")
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The value of a setting of the unit that is there once.
fn setting(name: &str) -> String {
    let unit = text("faas.service");
    let values: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{name}");
    values[0].to_owned()
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    // It looks for the program, which is not installed here.
    let binary = faas_binary();
    let paths = ["faas.service", "faas.socket", "faas-admin.socket"].map(|name| {
        let unit = text(name).replace("/usr/local/bin/faas", binary.to_str().unwrap());
        let path = folder.path().join(name);
        fs::write(&path, unit).unwrap();
        path.display().to_string()
    });
    let mut args = vec!["verify", "--recursive-errors=no"];
    args.extend(paths.iter().map(String::as_str));
    let verified = systemd_analyze(&args);
    assert!(verified.status.success(), "{}", said(&verified));
    assert_eq!(said(&verified), "", "it has a remark");
}

/// The sockets are those of the configuration, by the names that the node knows.
#[test]
fn the_sockets_are_those_that_are_configured() {
    let config = Config::load(&file("config.toml")).unwrap();
    for (unit, name, address) in [
        ("faas.socket", "ingress", config.ingress.listen),
        ("faas-admin.socket", "admin", config.admin.listen),
    ] {
        let unit = text(unit);
        for line in [
            format!("ListenStream={address}"),
            format!("FileDescriptorName={name}"),
            "Service=faas.service".to_owned(),
        ] {
            assert!(unit.lines().any(|there| there == line), "{line}");
        }
    }
}

#[test]
fn the_unit_is_sealed() {
    let unit = file("faas.service");
    let args = ["security", "--offline=true", "--no-pager", MOST_EXPOSURE, unit.to_str().unwrap()];
    let judged = systemd_analyze(&args);
    assert!(judged.status.success(), "{}", said(&judged));
    assert!(said(&judged).contains("Overall exposure level"), "{}", said(&judged));
}

#[test]
fn the_unit_waits_for_the_drain() {
    let config = Config::load(&file("config.toml")).unwrap();
    let patience: u64 = setting("TimeoutStopSec").parse().unwrap();
    // Clients are told for a second, and answers that are being sent have five seconds more.
    assert!(patience > config.ingress.drain_delay_s + config.ingress.drain_timeout_s + 6);
}

#[test]
fn the_configurations_are_valid() {
    for name in ["config.toml", "container.toml"] {
        let config = Config::load(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        config.check().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Runs `faas` with these arguments, moved into a folder and to free ports, until it serves.
#[track_caller]
fn serves(args: &[String], home: &Path) {
    let any = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let log = fs::File::create(home.join("node.log")).unwrap();
    let out = fs::File::create(home.join("out")).unwrap();
    let mut child = Command::new(faas_binary())
        .args(args)
        .args(any)
        .env_clear()
        .env("FAAS_DATA_DIR", home.join("data"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log)
        .spawn()
        .unwrap();
    let outcome = eventually("it serves or ends", PATIENCE, || {
        let said = fs::read_to_string(home.join("out")).unwrap();
        match said.contains("admin http://") {
            true => Some(true),
            false => child.try_wait().unwrap().map(|_ended| false),
        }
    });
    let _ = child.kill();
    child.wait().unwrap();
    assert!(outcome, "{}", fs::read_to_string(home.join("node.log")).unwrap());
    assert!(home.join("data/state.db").is_file());
}

fn home_with(config: &str, path: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join(path.trim_start_matches('/'));
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(file(config), target).unwrap();
    home
}

#[test]
fn the_unit_starts_the_binary() {
    let home = home_with("config.toml", "/etc/faas/config.toml");
    let command = setting("ExecStart");
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/faas");
    let moved = |word: &&str| {
        let inside = |path: &str| home.path().join(path).display().to_string();
        match *word {
            "/etc/faas/config.toml" => inside("etc/faas/config.toml"),
            "/var/lib/faas" => inside("data"),
            other => other.to_owned(),
        }
    };
    serves(&words[1..].iter().map(moved).collect::<Vec<_>>(), home.path());
}

#[test]
fn the_image_starts_the_binary() {
    let recipe = text("Containerfile");
    let instruction = |name: &str| {
        let mut lines = recipe.lines().filter_map(|line| line.strip_prefix(name));
        let value = lines.next().unwrap_or_else(|| panic!("{name}")).trim().to_owned();
        assert_eq!(lines.next(), None, "{name}");
        value
    };
    assert_eq!(instruction("FROM"), "scratch");
    assert_eq!(instruction("ENTRYPOINT"), r#"["/faas"]"#);
    assert_eq!(instruction("ENV"), "FAAS_DATA_DIR=/data");
    assert!(instruction("USER").parse::<u32>().is_err() && !instruction("USER").starts_with('0'));
    let home = home_with("container.toml", "/etc/faas/config.toml");
    let args: Vec<String> = serde_json::from_str(&instruction("CMD")).unwrap();
    let config = home.path().join("etc/faas/config.toml").display().to_string();
    let moved = |word: String| match word.as_str() {
        "/etc/faas/config.toml" => config.clone(),
        _ => word,
    };
    serves(&args.into_iter().map(moved).collect::<Vec<_>>(), home.path());
}
