//! `faas serve`: the host, in this process.

use super::no_runtime;
use crate::{
    args,
    context::Context,
    documents::Serving,
    error::{CliError, Exit, Result},
    format, service,
    ui::{Outcome, Ui},
};
use faas_runtime::{Config, Ready, RunError, Shutdown, Sockets};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

/// How long a node that was told to stop at once may take to do so.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(context: &Context, args: args::Serve) -> Result<Outcome> {
    let config = config(args)?;
    // Before there is a second thread.
    let sockets = Sockets::from_env().map_err(explain)?;
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    let result = runtime.block_on(Box::pin(serve(&context.ui, config, sockets)));
    runtime.shutdown_background();
    result
}

fn config(args: args::Serve) -> Result<Config> {
    let mut config = match &args.config {
        Some(file) => Config::load(file).map_err(|error| explain(RunError::Config(error)))?,
        None => Config::default(),
    };
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(listen) = args.listen {
        config.ingress.listen = listen;
    }
    if let Some(listen) = args.admin_listen {
        config.admin.listen = listen;
    }
    Ok(config)
}

async fn serve(ui: &Ui, config: Config, sockets: Sockets) -> Result<Outcome> {
    let shutdown = Shutdown::new();
    let stop = StopSignals::listen(shutdown.clone())?;
    let node = faas_runtime::run(config, sockets, shutdown.clone(), |ready| {
        announce(ui, ready);
        // Whoever was told to stop before does not become ready any more.
        if !shutdown.is_draining() {
            let (ingress, admin) = (ready.ingress_url(), ready.admin_url());
            tell(ui, &format!("READY=1\nSTATUS=ingress {ingress}, admin {admin}"));
        }
    });
    let stopping = async {
        shutdown.draining().await;
        tell(ui, "STOPPING=1\nSTATUS=finishing what is in flight");
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = stopping => {}
        ended = stop.guard(node) => ended?,
    }
    Ok(Outcome::streamed())
}

/// Tells the service manager.
fn tell(ui: &Ui, state: &str) {
    if let Err(error) = service::notify(state) {
        ui.notice(&format!("cannot tell the service manager (NOTIFY_SOCKET): {error}"));
    }
}

/// The banner for people, then the two lines that scripts wait for.
fn announce(ui: &Ui, ready: &Ready) {
    let (ingress, admin) = (ready.ingress_url(), ready.admin_url());
    let redirect = ready.redirect.map(|address| format!("http://{address}"));
    ui.banner(&banner(ready));
    let said = if ui.is_json() {
        ui.json_result(&Serving { ingress, admin, redirect })
    } else {
        let redirect = redirect.map(|address| format!("redirect {address}\n"));
        let redirect = redirect.unwrap_or_default();
        ui.text(&format!("ingress {ingress}\nadmin {admin}\n{redirect}"))
    };
    if let Err(error) = said {
        ui.error(&error);
    }
}

fn banner(ready: &Ready) -> [String; 3] {
    let release = env!("CARGO_PKG_VERSION");
    let engine = ready.engine;
    let data = format::tilde(&ready.data_dir);
    let state = match (ready.new, ready.apps) {
        (true, _) => "new".to_owned(),
        (false, apps) => format::counted(apps, "app"),
    };
    let token = format::tilde(&ready.token_file);
    [
        format!("faas {release} · wasmtime {engine} · data {data} ({state})"),
        format!("pool   {}", ready.pool),
        format!("token  {token}   (clients on this machine find it themselves)"),
    ]
}

/// SIGTERM and SIGINT: the first drains the node, the second stops it at once.
pub(super) struct StopSignals {
    shutdown: Shutdown,
    stopped: Arc<AtomicBool>,
}

impl StopSignals {
    /// From now on, signals are heard.
    pub(super) fn listen(shutdown: Shutdown) -> Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(no_runtime)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (switch, second) = (shutdown.clone(), stopped.clone());
        tokio::spawn(async move {
            either(&mut interrupt, &mut terminate).await;
            switch.drain();
            either(&mut interrupt, &mut terminate).await;
            second.store(true, Ordering::Relaxed);
            switch.stop();
        });
        Ok(Self { shutdown, stopped })
    }

    /// Runs a node to its end, which a second signal brings about without regard.
    pub(super) async fn guard(
        self,
        node: impl Future<Output = std::result::Result<(), RunError>>,
    ) -> Result<()> {
        let deadline = async {
            self.shutdown.stopped().await;
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        let result = tokio::select! {
            result = node => result,
            () = deadline => Ok(()),
        };
        if self.stopped.load(Ordering::Relaxed) {
            return Err(CliError::interrupted());
        }
        result.map_err(explain)
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Why a node did not start, or ended badly.
fn explain(error: RunError) -> CliError {
    let (exit, code) = match error {
        RunError::Config(_) => (Exit::Usage, "config"),
        RunError::Sockets(_) => (Exit::Usage, "sockets"),
        RunError::InUse(_) => (Exit::Conflict, "in_use"),
        RunError::Taken(_) => (Exit::Conflict, "listen"),
        RunError::Unsafe(_) => (Exit::Usage, "unsafe_data_dir"),
        RunError::Failed(_) => (Exit::Failed, "failed"),
    };
    let told = CliError::several_lines(exit, code, &error.to_string());
    match code {
        "listen" => told.hint("--listen and --admin-listen take others; port 0 is a free one"),
        _ => told,
    }
}
