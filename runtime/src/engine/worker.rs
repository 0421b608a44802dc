//! The compile process: the host's own executable, run again with the verb `compile-worker`.
//!
//! Compiling is the one thing a hostile artifact can make expensive before it ever runs, and
//! compilers have bugs. So it happens in a process with limits of its own, no environment, and
//! nothing to lose; it reads one artifact and writes one file.

use super::pool::Flavor;
use faas_api::Digest;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
};
use wasmtime::Engine;

/// What the host asks for, as JSON on the standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// The artifact.
    pub(super) input: PathBuf,
    /// What its content must be.
    pub(super) digest: Digest,
    /// Where the native code goes.
    pub(super) output: PathBuf,
    /// Which engine it is for.
    pub(super) flavor: Flavor,
    /// Whether it is a component, or a core module.
    pub(super) component: bool,
    /// Whether the code tells lines of its source.
    pub(super) line_numbers: bool,
    /// The process id of the host.
    pub(super) host: i32,
    /// The most CPU time, in seconds.
    pub(super) cpu_s: u64,
    /// The most address space, in bytes.
    pub(super) memory_bytes: u64,
}

/// How it went, as JSON on the standard output. A process that was stopped says nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The native code is there.
    Compiled,
    /// The artifact is at fault; the text says why.
    Refused(String),
    /// The process could not do its work.
    Failed(String),
}

/// The whole life of the compile process.
pub(crate) fn main() -> ExitCode {
    let outcome = match read_job().and_then(|job| limit(&job).map(|()| job)) {
        Ok(job) => compile(&job),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let done = matches!(outcome, Outcome::Compiled);
    let told = serde_json::to_vec(&outcome)
        .map_err(io::Error::from)
        .and_then(|line| io::stdout().write_all(&line));
    if done && told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_job() -> io::Result<Job> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::from)
}

fn limit(job: &Job) -> io::Result<()> {
    let at_most = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, at_most(job.memory_bytes))?;
    setrlimit(Resource::Cpu, at_most(job.cpu_s))?;
    setrlimit(Resource::Core, at_most(0))?;
    // A host that is gone wants nothing any more, and its successor may write the same file.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid().map(|pid| pid.as_raw_pid()) != Some(job.host) {
        return Err(io::Error::other("the host is gone"));
    }
    // Requests come first. That it may fail changes nothing else.
    let _ = rustix::process::nice(10);
    Ok(())
}

fn compile(job: &Job) -> Outcome {
    let engine = match job.flavor.compiler(job.line_numbers) {
        Ok(engine) => engine,
        Err(error) => return Outcome::Failed(format!("{error:#}")),
    };
    let wasm = match fs::read(&job.input) {
        Ok(wasm) => wasm,
        Err(error) => return Outcome::Failed(format!("the artifact cannot be read: {error}")),
    };
    // Long after it was uploaded a disk may have other bytes than it was given.
    if Digest::of(&wasm) != job.digest {
        return Outcome::Failed("the stored artifact does not match its digest: upload the same file again, or restore it from a backup".to_owned());
    }
    match native_code(&engine, &wasm, job.component, job.line_numbers) {
        Ok(code) => match write(job, &code) {
            Ok(()) => Outcome::Compiled,
            Err(error) => Outcome::Failed(format!("the code cannot be written: {error}")),
        },
        Err(error) => Outcome::Refused(format!("{error:#}")),
    }
}

/// The native code of an artifact.
pub(super) fn native_code(
    engine: &Engine,
    wasm: &[u8],
    is_component: bool,
    line_numbers: bool,
) -> wasmtime::Result<Vec<u8>> {
    match is_component {
        // What is merged has no lines any more.
        true if !line_numbers => component(engine, wasm),
        true => engine.precompile_component(wasm),
        false => engine.precompile_module(wasm),
    }
}

/// A component is compiled with its core modules merged, which makes instances of it cheaper. One that
/// cannot be merged is compiled as it is, and whatever is wrong with it is told of what was uploaded.
fn component(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let merged = faas_merge::merge(wasm).ok();
    merged
        .and_then(|merged| engine.precompile_component(&merged).ok())
        .map_or_else(|| engine.precompile_component(wasm), Ok)
}

fn write(job: &Job, code: &[u8]) -> io::Result<()> {
    // A leftover of a process that was stopped; absent is fine.
    let _ = fs::remove_file(&job.output);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&job.output)?.write_all(code)
}
