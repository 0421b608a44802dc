//! Wasm to native code, through the compile process.

use super::{
    cache::CodeCache,
    failures::Failures,
    pool::Flavor,
    worker::{Job, MAX_CODE_BYTES, Outcome},
};
use crate::{functions::DeployConfig, telemetry::metrics::Metrics};
use faas_api::Digest;
use rustix::process::Signal;
use std::{
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::{Mutex, Semaphore},
    time::timeout,
};

/// Bytes of the compile process's own words that are kept.
const MAX_OUTPUT: u64 = 64 << 10;

/// Why there is no native code.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CompileError {
    /// The artifact is at fault.
    #[error("{0}")]
    Refused(String),
    /// It would have taken more than is allowed.
    #[error("{0}")]
    OverLimit(String),
    /// The disk has no room for it.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Somebody or something stopped the compile process: the next one may come to its end.
    #[error("the compile process was stopped: {0}")]
    Killed(String),
    /// The platform is at fault.
    #[error("the compile process failed: {0}")]
    Failed(String),
}

impl CompileError {
    /// What a failure to do something with a file means.
    fn of_file(doing: &str, error: &std::io::Error) -> Self {
        let text = format!("cannot {doing} the native code: {error}");
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(text),
            _ => Self::Failed(text),
        }
    }
}

/// Runs compile processes, a few at once.
pub(crate) struct Compiler {
    /// One of these is held for each artifact, by its digest: who comes second for the same one
    /// finds it done.
    lanes: [Mutex<()>; 16],
    seats: Semaphore,
    failures: Failures,
    cpu_s: u64,
    memory_bytes: u64,
    line_numbers: bool,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl Compiler {
    /// A compiler with these limits.
    pub(crate) fn new(config: &DeployConfig, line_numbers: bool, metrics: Arc<Metrics>) -> Self {
        Self {
            lanes: Default::default(),
            seats: Semaphore::new(config.compile_concurrency.max(1)),
            failures: Failures::default(),
            cpu_s: config.compile_cpu_s,
            memory_bytes: config.compile_memory_bytes,
            line_numbers,
            patience: Duration::from_secs(config.compile_timeout_s),
            metrics,
        }
    }

    /// The next request to compile this artifact is tried, whatever became of earlier ones.
    pub(super) fn forget_failure(&self, digest: &Digest) {
        self.failures.forget(digest);
    }

    /// Puts the native code of an artifact into a cache.
    ///
    /// # Errors
    /// When the artifact cannot be compiled, or not within the limits. Nothing is left behind, and the
    /// next request for the same artifact gets the same answer for a while.
    pub(crate) async fn compile(
        &self,
        input: &Path,
        digest: &Digest,
        (flavor, component): (Flavor, bool),
        cache: &CodeCache,
    ) -> Result<(), CompileError> {
        let closed = |_| CompileError::Failed("the node is stopping".to_owned());
        let lane = usize::from(digest.as_bytes().first().copied().unwrap_or(0)) % self.lanes.len();
        let _lane = match self.lanes.get(lane) {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        if cache.contains(digest) {
            return Ok(());
        }
        if let Some(error) = self.failures.of(digest, Instant::now()) {
            return Err(error);
        }
        let _seat = self.seats.acquire().await.map_err(closed)?;
        let started = Instant::now();
        let job = Job {
            input: input.to_owned(),
            digest: *digest,
            output: cache.temporary(digest),
            flavor,
            component,
            line_numbers: self.line_numbers,
            host: rustix::process::getpid().as_raw_pid(),
            cpu_s: self.cpu_s,
            memory_bytes: self.memory_bytes,
        };
        let adopt = |()| cache.adopt(digest).map_err(|error| CompileError::of_file("keep", &error));
        let made = self.run(&job).await.and_then(adopt);
        match &made {
            Ok(()) => self.metrics.compile_seconds.observe(started.elapsed().as_secs_f64()),
            Err(error) => {
                cache.remove(digest);
                self.failures.note(digest, error, Instant::now());
            }
        }
        made
    }

    async fn run(&self, job: &Job) -> Result<(), CompileError> {
        let failed = |error: std::io::Error| CompileError::Failed(error.to_string());
        let job_text = serde_json::to_vec(job).map_err(|error| failed(error.into()))?;
        // The name of the file that runs, even if another was put in its place since.
        let mut child = Command::new("/proc/self/exe")
            .arg0("faas")
            .arg("compile-worker")
            .env_clear()
            // An allocator that reserves a gigabyte at a time would use up the limit by itself.
            .env("MIMALLOC_ARENA_RESERVE", "65536")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let Ok(ended) = timeout(self.patience, converse(&mut child, &job_text)).await else {
            // Before anybody is told: what was refused runs no longer. An error says that it had
            // ended already.
            let _ = child.kill().await;
            return Err(CompileError::OverLimit(format!(
                "compiling it takes more than {} s (limit `deploy.compile_timeout_s`)",
                self.patience.as_secs()
            )));
        };
        let (status, stdout, stderr) = ended.map_err(failed)?;
        match serde_json::from_slice(&stdout) {
            Ok(Outcome::Compiled) => Ok(()),
            Ok(Outcome::Refused(why)) => Err(CompileError::Refused(why)),
            Ok(Outcome::Full(why)) => Err(CompileError::Full(why)),
            Ok(Outcome::Failed(why)) => Err(CompileError::Failed(why)),
            Err(_) => Err(self.explain(status, &stderr)),
        }
    }

    /// What stopped a process that could not say it.
    fn explain(&self, status: ExitStatus, stderr: &[u8]) -> CompileError {
        let words = String::from_utf8_lossy(stderr);
        let words = words.trim();
        let out_of_memory = words.contains("memory allocation") || words.contains("annot allocate");
        match status.signal().map(Signal::from_named_raw) {
            // Before its hard limit, at which the kernel would kill: that signal is somebody else's.
            Some(Some(Signal::XCPU)) => CompileError::OverLimit(format!(
                "compiling it takes more than {} s of CPU time (limit `deploy.compile_cpu_s`)",
                self.cpu_s
            )),
            Some(Some(Signal::XFSZ)) => CompileError::OverLimit(format!(
                "its native code has more than {} MiB",
                MAX_CODE_BYTES >> 20
            )),
            Some(Some(
                signal @ (Signal::KILL | Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT),
            )) => CompileError::Killed(format!(
                "signal {}, of somebody or of a system that is short of memory",
                signal.as_raw()
            )),
            Some(Some(Signal::ABORT | Signal::SEGV | Signal::BUS))
                if words.is_empty() || out_of_memory =>
            {
                self.out_of_memory()
            }
            None if out_of_memory => self.out_of_memory(),
            // Whatever the compiler stumbled over came from the artifact.
            Some(_) => {
                tracing::error!(%status, words, "the compile process crashed");
                CompileError::OverLimit("the compiler crashed on it".to_owned())
            }
            None => CompileError::Failed(format!("{status}: {words}")),
        }
    }

    fn out_of_memory(&self) -> CompileError {
        CompileError::OverLimit(format!(
            "compiling it takes more than {} MiB of memory (limit `deploy.compile_memory_bytes`)",
            self.memory_bytes >> 20
        ))
    }
}

/// Gives the job, takes both outputs, and waits for the end.
async fn converse(
    child: &mut Child,
    job: &[u8],
) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A process that ended already says more by its status than this error does.
        let _ = stdin.write_all(job).await;
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async |stream: Option<&mut (dyn tokio::io::AsyncRead + Unpin + Send)>| {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            stream.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
        }
        std::io::Result::Ok(bytes)
    };
    let (mut stdout, mut stderr) = (stdout, stderr);
    let (stdout, stderr) = tokio::try_join!(
        read(stdout.as_mut().map(|s| s as &mut (dyn tokio::io::AsyncRead + Unpin + Send))),
        read(stderr.as_mut().map(|s| s as &mut (dyn tokio::io::AsyncRead + Unpin + Send))),
    )?;
    Ok((child.wait().await?, stdout, stderr))
}
