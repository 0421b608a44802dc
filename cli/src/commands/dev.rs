//! `faas dev`: a node in this process, fed by the files of one project.

use super::{deploy, logs, no_runtime, serve::StopSignals};
use crate::{
    args,
    artifact::io_text,
    build::{self, Purpose},
    client::{self, Client, LogQuery, LogStream},
    context::{Context, file_token},
    dotenv,
    error::{CliError, Exit, Result},
    format,
    log_view::{LogView, Style},
    project::{MANIFEST, Project},
    release::{Artifacts, Released, Wish, release},
    ui::{Loudness, Outcome, Ui},
    watch,
};
use faas_api::{AppName, Deployed, Manifest, manifest::NewVersion};
use faas_runtime::{Config, Ready, Shutdown, Sockets};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch as latest},
};

/// Where the state of a project's own node is, below the project.
const DATA_DIR: &str = ".faas";
const USUAL_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

pub(crate) fn run(context: &Context, args: &args::Dev) -> Result<Outcome> {
    let project = match &args.project {
        Some(dir) => Project::load(dir, args.env.as_deref())?,
        None => Project::find(Path::new("."), args.env.as_deref())?,
    };
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    let result = runtime.block_on(Box::pin(dev(&context.ui, project, args)));
    runtime.shutdown_background();
    result
}

/// Runs the node and the developer's session side by side until one of them ends.
async fn dev(ui: &Ui, project: Project, args: &args::Dev) -> Result<Outcome> {
    let shutdown = Shutdown::new();
    let stop = StopSignals::listen(shutdown.clone())?;
    let listen = choose_address(args.listen)?;
    let config = config(ui, &project, listen);
    let (tell, ready) = oneshot::channel();
    let node = faas_runtime::run(config, Sockets::default(), shutdown.clone(), |ready| {
        // The session has ended already when nobody is there to be told.
        let _ = tell.send(ready.clone());
    });
    let mut node = std::pin::pin!(stop.guard(node));
    let session = async {
        let Ok(ready) = ready.await else {
            // The node did not start, and says why when it ends.
            return std::future::pending().await;
        };
        if args.listen.is_none() && listen != USUAL_ADDRESS {
            ui.notice(&format!("{USUAL_ADDRESS} is taken; using {}", ready.ingress));
        }
        let session = Session::new(ui, project, &ready)?;
        tokio::select! {
            () = shutdown.draining() => Ok(()),
            result = session.run(args.once) => result,
        }
    };
    tokio::select! {
        ended = &mut node => ended?,
        result = session => {
            shutdown.drain();
            let ended = node.await;
            result.and(ended)?;
        }
    }
    Ok(Outcome::streamed())
}

/// The address that was asked for, else the usual one, else any that is free.
fn choose_address(wanted: Option<SocketAddr>) -> Result<SocketAddr> {
    let address = wanted.unwrap_or(USUAL_ADDRESS);
    match (TcpListener::bind(address), wanted) {
        (Ok(_free), _) => Ok(address),
        (Err(_), None) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        (Err(error), Some(_)) => {
            let exit = match error.kind() {
                ErrorKind::AddrInUse => Exit::Conflict,
                _ => Exit::Failed,
            };
            let message = format!("cannot listen on {address}: {}", io_text(&error));
            Err(CliError::new(exit, "listen", message).hint("--listen takes another address"))
        }
    }
}

fn config(ui: &Ui, project: &Project, listen: SocketAddr) -> Config {
    let mut config = Config { data_dir: project.dir.join(DATA_DIR), ..Config::default() };
    config.ingress.listen = listen;
    config.ingress.drain_timeout_s = 5;
    config.engine.line_numbers = true;
    // The session shows requests itself.
    if let Ok(off) = serde_json::from_value(json!("off")) {
        config.ingress.access_log = off;
    }
    config.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.log.filter = if ui.is_verbose() { "info" } else { "warn" }.to_owned();
    config
}

/// One developer at work on one project.
struct Session<'a> {
    ui: &'a Ui,
    /// For what is told in one line instead.
    silent: Ui,
    client: Client,
    project: Project,
    live: Option<Deployed>,
    /// What `live` was made of.
    manifest: Option<Manifest>,
    /// The app that was deployed last; its log is followed.
    app: latest::Sender<Option<AppName>>,
}

impl<'a> Session<'a> {
    fn new(ui: &'a Ui, project: Project, ready: &Ready) -> Result<Self> {
        let ignore = ready.data_dir.join(".gitignore");
        if !ignore.exists() {
            // Only tidiness is lost where this cannot be written.
            let _ = std::fs::write(ignore, "*\n");
        }
        let server = client::parse_server(&format!("http://{}", ready.admin))?;
        let client = Client::new(server, file_token(&ready.token_file))?;
        let silent = Ui::new("dev", ui.is_json(), Loudness::Quiet);
        let app = latest::Sender::new(None);
        Ok(Self { ui, silent, client, project, live: None, manifest: None, app })
    }

    async fn run(self, once: bool) -> Result<()> {
        let (ui, app) = (self.ui, self.app.subscribe());
        // The log has a client of its own to borrow while the session changes.
        let log_client = self.client.clone();
        // Frames of traps name files as the developer does.
        let folder = format!("{}/", self.project.dir.display());
        tokio::select! {
            result = self.work(once) => result,
            result = follow(ui, &log_client, app, &folder) => result,
        }
    }

    async fn work(mut self, once: bool) -> Result<()> {
        let mut changes = watch::changes(&self.project)?;
        build::prepare(self.ui, &self.project).await?;
        match self.first().await {
            Err(error) if once => return Err(error),
            Err(error) => self.complain(&error)?,
            Ok(()) if once => return Ok(()),
            Ok(()) => {}
        }
        self.say_what_is_watched();
        while let Some(changed) = changes.recv().await {
            // Several changes while the last build ran are one.
            let mut all = vec![changed];
            while let Ok(later) = changes.try_recv() {
                all.push(later);
            }
            all.sort();
            all.dedup();
            if all.iter().any(|path| path.ends_with(MANIFEST)) {
                let environment = self.project.environment.clone();
                match Project::load(&self.project.dir, environment.as_deref()) {
                    Ok(project) => self.project = project,
                    Err(error) => {
                        self.complain(&error)?;
                        continue;
                    }
                }
                changes = watch::changes(&self.project)?;
            }
            if let Err(error) = self.again(&all).await {
                self.complain(&error)?;
            }
        }
        Ok(())
    }

    /// Builds and deploys, telling each step.
    async fn first(&mut self) -> Result<()> {
        dotenv::dev::apply(self.ui, &self.client, &self.project, &[]).await?;
        deploy::built(self.ui, &self.project, Purpose::Development).await?;
        let (artifacts, manifest) = self.read()?;
        let deployed = self.upload(self.ui, &artifacts, &manifest).await?;
        self.went_live(deployed, manifest)
    }

    /// Builds and deploys after a change, telling all in one line.
    async fn again(&mut self, changed: &[PathBuf]) -> Result<()> {
        let started = Instant::now();
        if self.ui.is_json() {
            self.ui.json_line(&json!({ "event": "changed", "paths": changed }))?;
        }
        dotenv::dev::apply(self.ui, &self.client, &self.project, changed).await?;
        if changed.iter().any(|path| path.ends_with(MANIFEST)) {
            build::prepare(self.ui, &self.project).await?;
        }
        deploy::built(&self.silent, &self.project, Purpose::Development).await?;
        let shown = match changed {
            [one] => self.relative(one).display().to_string(),
            more => format!("{} files", more.len()),
        };
        let built = format!("changed {shown} → built {}", format::duration(started.elapsed()));
        let (artifacts, manifest) = self.read()?;
        let same = |live: &&Deployed| {
            live.app == self.project.app && self.manifest.as_ref() == Some(&manifest)
        };
        if let Some(live) = self.live.as_ref().filter(same) {
            self.ui.notice(&format!("{built} → the same, {} stays live", live.version));
            return match self.ui.is_json() {
                true => self.ui.json_line(&event("unchanged", json!(live))),
                false => Ok(()),
            };
        }
        let started = Instant::now();
        let deployed = self.upload(&self.silent, &artifacts, &manifest).await?;
        let took = format::duration(started.elapsed());
        self.ui.notice(&format!("{built} → {} live {took}", deployed.version));
        self.went_live(deployed, manifest)
    }

    /// A path as the manifest would name it.
    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.project.dir).unwrap_or(path)
    }

    fn read(&self) -> Result<(Artifacts, Manifest)> {
        let artifacts = Artifacts::read(&self.project)?;
        let manifest = deploy::wire(&self.project, &artifacts)?;
        Ok((artifacts, manifest))
    }

    async fn upload(
        &self,
        ui: &Ui,
        artifacts: &Artifacts,
        manifest: &Manifest,
    ) -> Result<Deployed> {
        let new = NewVersion {
            manifest: manifest.clone(),
            message: None,
            activate: true,
            canary: None,
            dry_run: false,
        };
        let key = deploy::random_key()?;
        let wish = Wish { artifacts, key: &key, patience: std::time::Duration::ZERO };
        let released = release(ui, &self.client, &self.project.app, &new, &wish).await;
        match released.map_err(dotenv::dev::explain)? {
            Released::Deployed(deployed) => Ok(*deployed),
            Released::Planned(_) => Err(CliError::failed("nothing was deployed")),
        }
    }

    fn went_live(&mut self, deployed: Deployed, manifest: Manifest) -> Result<()> {
        self.app.send_replace(Some(deployed.app.clone()));
        let known = self.live.as_ref().is_some_and(|live| live.url == deployed.url);
        if self.ui.is_json() {
            self.ui.json_line(&event("deployed", json!(deployed)))?;
        } else if !known {
            self.ui.text(&format!("{}\n", deployed.url))?;
        }
        self.live = Some(deployed);
        self.manifest = Some(manifest);
        Ok(())
    }

    fn say_what_is_watched(&self) {
        let shown = |path: &PathBuf| {
            let slash = if path.is_dir() { "/" } else { "" };
            match self.relative(path) {
                whole if whole.as_os_str().is_empty() => "./".to_owned(),
                path => format!("{}{slash}", path.display()),
            }
        };
        let watched: Vec<String> = self.project.watch.iter().map(shown).collect();
        let watched = watched.join(", ");
        self.ui.notice(&format!(
            "watching {watched}, {MANIFEST}   (data in {DATA_DIR}/, ctrl-c to stop)"
        ));
    }

    /// A failure that the next change may mend.
    fn complain(&self, error: &CliError) -> Result<()> {
        if self.ui.is_json() {
            return self.ui.json_line(&json!({ "event": "failed", "error": error.to_json() }));
        }
        self.ui.error(error);
        match &self.live {
            Some(live) => self.ui.notice(&format!("{} stays live", live.version)),
            None => self.ui.notice("nothing is live yet"),
        }
        Ok(())
    }
}

/// Shows the log of the app that was deployed last.
async fn follow(
    ui: &Ui,
    client: &Client,
    mut app: latest::Receiver<Option<AppName>>,
    folder: &str,
) -> Result<()> {
    // Not what an earlier session has left.
    let since = Timestamp::now().to_string();
    let query = LogQuery { follow: true, filters: vec![("since", since)] };
    let mut view = LogView::new(Style::Brief);
    let mut stream: Option<(AppName, LogStream<'_>)> = None;
    loop {
        tokio::select! {
            changed = app.changed() => {
                let wanted = app.borrow_and_update().clone();
                match (changed, wanted) {
                    (Err(_), _) => return Ok(()),
                    (Ok(()), Some(app)) => stream = open(ui, client, &query, stream, app).await,
                    (Ok(()), None) => {}
                }
            }
            line = next(&mut stream) => match line {
                Some(line) if ui.is_json() => ui.json_line(&event("log", line))?,
                Some(line) => {
                    // A line that only a newer `faas` can read is not shown.
                    let text = serde_json::from_value(line).map(|line| view.push(line));
                    ui.aside(&text.unwrap_or_default().replace(folder, ""));
                }
                None => stream = None,
            },
            () = logs::overdue(&view) => ui.aside(&view.overdue()),
        }
    }
}

/// The log of this app: the stream that is open, or a new one.
async fn open<'a>(
    ui: &Ui,
    client: &'a Client,
    query: &LogQuery,
    stream: Option<(AppName, LogStream<'a>)>,
    app: AppName,
) -> Option<(AppName, LogStream<'a>)> {
    if let Some((open, stream)) = stream
        && open == app
    {
        return Some((open, stream));
    }
    match client.logs(Some(&app), query).await {
        Ok(stream) => Some((app, stream)),
        Err(error) => {
            ui.notice(&format!("the log of `{app}` cannot be followed: {error}"));
            None
        }
    }
}

/// The next line; nothing when the log has ended.
async fn next(stream: &mut Option<(AppName, LogStream<'_>)>) -> Option<Value> {
    match stream {
        Some((_, stream)) => stream.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// A JSON line of what happened.
fn event(name: &str, mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.insert("event".to_owned(), json!(name));
    }
    value
}
