//! Requests that functions send: to hosts they were granted, and to functions of their own app.
//!
//! Nothing is granted by default, and what is granted is a name: where it leads is looked at anew
//! for each connection, and an address that is not public is out of bounds unless the operator opened
//! its network. A request passes, in this order:
//!
//! | step | file |
//! |---|---|
//! | whom it is for | `target` |
//! | is that granted, and is the call within its limits | this file, `account`, `ancestry` |
//! | the address, and may it be reached | `resolve`, `address` |
//! | a connection, or one that the same app has left | `connection`, `sockets`, `tls` |
//! | what may be in the head | `head` |
//! | both bodies, streamed | `body` |
//! | what went wrong | `failure` |
//!
//! HTTP/1.1 only. Redirects are answers like any other. Nothing is decompressed, and no proxy of the
//! environment is asked.

mod account;
mod address;
mod ancestry;
mod body;
mod config;
mod connection;
mod failure;
mod head;
mod resolve;
mod sockets;
mod target;
mod tls;

pub(crate) use account::{Account, Sender};
pub(crate) use address::is_public;
pub(crate) use ancestry::{Ancestry, MAX_DEPTH, TooDeep};
pub use config::OutboundConfig;
pub(crate) use head::{CALLER, NOT_IN_TRAILERS, clean, clean_trailers};
pub(crate) use resolve::OwnAddresses;

use crate::config::ConfigError;
use body::{Bounds, Download, Held, Progress, Upload};
use connection::{AppSide, Connection, Lease};
use dashmap::DashMap;
use faas_api::{AppName, OutboundScheme, outbound::Sibling};
use failure::Failure;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use resolve::{NoAddress, Resolver};
use sockets::Sockets;
use std::{sync::Arc, time::Duration};
use target::Target;
use tls::Tls;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

/// What sends functions' requests.
pub(crate) struct Outbound {
    config: OutboundConfig,
    resolver: Resolver,
    tls: Tls,
    sockets: Arc<Sockets>,
    /// Apps that have sent something lately.
    apps: DashMap<AppName, Arc<AppSide>>,
}

impl Outbound {
    /// Puts it together. `open` tells how many connections there are.
    ///
    /// # Errors
    /// When `outbound.ca` or `outbound.resolver` cannot be used.
    pub(crate) fn new(
        config: &OutboundConfig,
        own: OwnAddresses,
        open: IntGauge,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            config: config.clone(),
            resolver: Resolver::new(own, config)?,
            tls: Tls::new(config)?,
            sockets: Arc::new(Sockets::new(config.max_connections, open)),
            apps: DashMap::new(),
        })
    }

    /// An account for a call that may send so many requests.
    pub(crate) fn account(&self, ancestry: &Ancestry, most: u32) -> Arc<Account> {
        Account::new(ancestry, most, self.config.at_once_per_call)
    }

    /// Drops connections that nobody has used for a while.
    pub(crate) fn expire(&self) {
        self.apps
            .retain(|_, app| app.expire(self.config.at_once_per_app) || Arc::strong_count(app) > 1);
    }

    /// Closes an idle connection, whosever it is.
    fn make_room(&self) {
        let _ = self.apps.iter().any(|app| app.give_up_one());
    }

    fn app(&self, name: &AppName) -> Arc<AppSide> {
        if let Some(app) = self.apps.get(name) {
            return app.clone();
        }
        let new = || Arc::new(AppSide::new(self.config.at_once_per_app));
        self.apps.entry(name.clone()).or_insert_with(new).clone()
    }

    /// How long a function is willing to wait, which may be less than what the node allows.
    fn patience(&self, options: Option<RequestOptions>) -> Patience {
        let options = options.unwrap_or_default();
        let least = |wish: Option<Duration>, most: Duration| {
            wish.map_or(most, |wish| wish.clamp(Duration::from_millis(1), most))
        };
        Patience {
            connect: least(options.connect_timeout, self.config.connect_timeout()),
            first_byte: least(options.first_byte_timeout, self.config.first_byte_timeout()),
            idle: least(options.between_bytes_timeout, self.config.idle_timeout()),
        }
    }
}

/// How long an exchange may take where.
struct Patience {
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
}

/// Sends a function's request.
///
/// # Errors
/// What the function is told; why stands in its log.
pub(crate) async fn send(
    outbound: Arc<Outbound>,
    sender: Sender,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Response<WasiBody>, Error> {
    let Some(target) = Target::of(request.uri()) else {
        sender.tell("outbound: a request has no host that can be reached");
        sender.caller.count("denied");
        return Err(Error::HttpRequestUriInvalid);
    };
    let to_sibling = target.sibling().is_some();
    let outcome = match to_sibling {
        true => to_function(&outbound, &sender, &target, request, options).await,
        false => to_server(&outbound, &sender, &target, request, options).await,
    };
    match outcome {
        Ok(response) => {
            if !to_sibling {
                sender.caller.count(class(response.status()));
            }
            Ok(response)
        }
        Err(Failure { error, why, denied, limit }) => {
            sender.tell(&format!("outbound {target} {why}"));
            if let Some(limit) = limit {
                sender.caller.reached(limit);
            }
            sender.caller.count(if denied { "denied" } else { "error" });
            Err(error)
        }
    }
}

/// Calls a function of the same version of the same app, which needs no grant. Which one follows from
/// the name in the URL, or from the app's routes: no header has a say.
async fn to_function(
    outbound: &Outbound,
    sender: &Sender,
    target: &Target,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Response<WasiBody>, Failure> {
    let nobody = |why: &str| Failure::failed(Error::DestinationNotFound, why);
    let Some(callee) = target.sibling() else {
        return Err(nobody("it is no function"));
    };
    if (target.scheme, target.port) != (OutboundScheme::Http, 80) {
        let why = format!("is refused: a function of the app is `http://{}`", target.host);
        return Err(Failure::denied(Error::HttpRequestDenied, why));
    }
    if request.method() == Method::CONNECT {
        return Err(no_tunnel());
    }
    let too_deep = |TooDeep| {
        let why = format!("is refused: {MAX_DEPTH} calls lie inside each other already");
        Failure::denied(Error::LoopDetected, why)
    };
    let ancestry = sender.ancestry.child(sender.account.allowance.clone()).map_err(too_deep)?;
    let patience = outbound.patience(options);
    let turn = admit(outbound, sender, &patience).await?;
    let call = sender.caller.call_sibling(callee, sender.id, ancestry, request);
    let Some(call) = call else {
        return Err(nobody(match callee {
            Sibling::Function(_) => "the app's version has no function of that name",
            Sibling::Route => "no route of the app's version takes the request",
        }));
    };
    let response = call.await.map_err(|error| Failure::failed(error, "the call was given up"))?;
    Ok(response.map(|body| Held { body, turn: Some(turn) }.boxed_unsync()))
}

/// Counts a request of a call, and waits for its turn among the others.
async fn admit(
    outbound: &Outbound,
    sender: &Sender,
    patience: &Patience,
) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
    sender.account.allowance.spend().map_err(Failure::subrequests)?;
    let turn = sender.account.turn(patience.connect).await;
    turn.ok_or_else(|| Failure::limit("at_once_per_call", outbound.config.at_once_per_call))
}

/// Sends a request to another server, if that was granted.
async fn to_server(
    outbound: &Arc<Outbound>,
    sender: &Sender,
    target: &Target,
    request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Response<WasiBody>, Failure> {
    if !target.is_granted(sender.caller.grants()) {
        let why = "is not granted; add it to `grants.outbound`";
        return Err(Failure::denied(Error::HttpRequestDenied, why));
    }
    if request.method() == Method::CONNECT {
        return Err(no_tunnel());
    }
    let patience = outbound.patience(options);
    let own_turn = admit(outbound, sender, &patience).await?;
    let app = outbound.app(sender.caller.app());
    let turn = account::turn(&app.turns, patience.connect)
        .await
        .ok_or_else(|| Failure::limit("at_once_per_app", outbound.config.at_once_per_app))?;
    let progress = Progress::new();
    let request = prepared(request, target, sender.ancestry.child_depth(), &progress)?;
    sender.meter.sends();
    let total = outbound.config.total_timeout();
    let over = (Instant::now() + total, total);
    let exchange = exchange(outbound, &app, target, &patience, (request, progress));
    let exchanged = timeout_at(over.0, exchange).await;
    let (response, connection) = exchanged.unwrap_or_else(|_| Err(Failure::total(total)))?;
    let sockets = outbound.sockets.clone();
    let turns = [own_turn, turn];
    let lease = Lease { connection, target: target.clone(), app, sockets, _turns: turns };
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::failed(Error::HttpUpgradeFailed, "it answered with another protocol"));
    }
    head::from_server(&mut parts.headers)?;
    parts.extensions.clear();
    let bounds = Bounds { idle: patience.idle, over, bytes: outbound.config.body_limit() };
    if body.size_hint().lower() > bounds.bytes {
        return Err(Failure::too_large(body.size_hint().lower(), bounds.bytes));
    }
    let body = Download::new(body, bounds, sender.witness(), lease).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

fn no_tunnel() -> Failure {
    let why = "is refused: a function cannot ask for a tunnel";
    Failure::denied(Error::HttpRequestMethodInvalid, why)
}

/// The request as it is written to a connection.
fn prepared(
    request: Request<WasiBody>,
    target: &Target,
    depth: u8,
    progress: &Progress,
) -> Result<Request<Upload>, Failure> {
    let invalid = || Failure::denied(Error::HttpRequestUriInvalid, "has a path that is none");
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // `OPTIONS *` has no path.
    parts.uri = match path {
        "*" => Uri::from_static("*"),
        path => path.parse().map_err(|_| invalid())?,
    };
    let host = HeaderValue::from_str(&target.authority()).map_err(|_| invalid())?;
    let length = head::for_server(&mut parts.headers, host, depth)?;
    // Its server would take what the connection carries next for the body.
    if body.is_end_stream() && length.is_some_and(|length| length > 0) {
        let why = "is refused: its `content-length` names a body, and it has none";
        return Err(Failure::denied(Error::HttpRequestBodySize(length), why));
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, Upload::new(body, progress.clone())))
}

/// Sends a request over a connection, and waits for the head of the response.
async fn exchange(
    outbound: &Arc<Outbound>,
    app: &AppSide,
    target: &Target,
    patience: &Patience,
    (mut request, progress): (Request<Upload>, Progress),
) -> Result<(Response<hyper::body::Incoming>, Connection), Failure> {
    loop {
        let kept = app.take(target);
        let is_new = kept.is_none();
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(outbound, app, target, patience.connect).await?,
        };
        progress.moved();
        let response = tokio::select! {
            biased;
            response = connection.sender.try_send_request(request) => response,
            () = progress.stalled(patience.first_byte) => {
                return Err(Failure::timeout(Error::HttpResponseTimeout, "before it answered"));
            }
        };
        match response {
            Ok(response) => return Ok((response, connection)),
            // The server closed it before anything was sent: nobody has seen the request.
            Err(mut error) => match error.take_message() {
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(Failure::http(&error.into_error())),
            },
        }
    }
}

/// Makes a connection in a task of its own: what that computes is not the function's time.
async fn connect(
    outbound: &Arc<Outbound>,
    app: &AppSide,
    target: &Target,
    patience: Duration,
) -> Result<Connection, Failure> {
    let (outbound, target, lookups) = (outbound.clone(), target.clone(), app.lookups.clone());
    let connecting = tokio::spawn(async move {
        let Outbound { config, resolver, tls, sockets, .. } = &*outbound;
        let until = Instant::now() + patience;
        let late = || Failure::timeout(Error::ConnectionTimeout, "while connecting");
        let found = timeout_at(until, resolver.resolve(&target, config, &lookups)).await;
        let addresses = found.map_err(|_| late())?.map_err(no_address)?;
        let left = until.saturating_duration_since(Instant::now());
        let socket = sockets.take(left, || outbound.make_room()).await?;
        let connecting = connection::connect(&target, &addresses, socket, config, tls);
        timeout_at(until, connecting).await.unwrap_or_else(|_| Err(late()))
    });
    AbortOnDropHandle::new(connecting)
        .await
        .unwrap_or_else(|error| Err(Failure::failed(Error::InternalError(None), error.to_string())))
}

fn no_address(problem: NoAddress) -> Failure {
    match problem {
        NoAddress::Unknown(why) => {
            Failure::failed(Error::DnsError { rcode: None, info_code: None }, why)
        }
        NoAddress::Prohibited(what) => Failure::denied(
            Error::DestinationIpProhibited,
            format!(
                "is refused: its address is {what}, which the server's operator has not opened \
                 (`outbound.allow_private`)"
            ),
        ),
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        0 | 1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
