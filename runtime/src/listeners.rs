//! The sockets that clients come in by: bound by the node itself, or given to it by whoever started it.
//!
//! A service manager that holds the sockets (systemd.socket(5)) keeps them while one node ends and the
//! next one starts; clients wait in their queues meanwhile, and none is refused. It hands them over as
//! open files from number 3 on, and says how many in `LISTEN_FDS`, to which process in `LISTEN_PID`,
//! and what they are called in `LISTEN_FDNAMES` (sd_listen_fds(3)).

use crate::{
    Config,
    host::outbound::OwnAddresses,
    ingress::{Door, Doors, FAREWELL},
    node::RunError,
};
use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use std::{
    env, fmt, io,
    net::{SocketAddr, TcpListener as GivenListener},
    process,
    time::Duration,
};
use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait to be accepted, if the system permits it (`net.core.somaxconn`). Beyond
/// that a client's first packet is lost, and it tries again after a second.
const BACKLOG: u32 = 4096;

/// How long a node may take to end besides what is configured: to cut off clients, to wait for deploys
/// that are under way, and for its disk.
const OTHER_ENDS: Duration = Duration::from_secs(60);

/// Listeners that a node is given. The default is none: the node binds its addresses itself.
#[derive(Debug, Default)]
pub struct Sockets {
    ingress: Option<Given>,
    admin: Option<Given>,
    redirect: Option<Given>,
}

#[derive(Debug)]
struct Given {
    listener: GivenListener,
    address: SocketAddr,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Ingress,
    Admin,
    Redirect,
}

impl Role {
    /// In the order that counts where sockets have no names.
    const ALL: [Self; 3] = [Self::Ingress, Self::Admin, Self::Redirect];

    /// Its name in `LISTEN_FDNAMES`.
    fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Admin => "admin",
            Self::Redirect => "redirect",
        }
    }
}

impl Sockets {
    /// Takes the sockets that whoever started this process left for it, and removes the variables that
    /// tell of them. None were left when `LISTEN_PID` is not this process's own number.
    ///
    /// They are called `ingress`, `admin` and `redirect` (`ingress.http_redirect`). Without names – or
    /// with the one that systemd makes up, its unit's – they have this order.
    ///
    /// To be called before there is a second thread, because it changes the environment.
    ///
    /// # Errors
    /// [`RunError::Sockets`] when there are more sockets than uses for them, a name is not known or
    /// there twice, or one is no TCP socket that listens.
    pub fn from_env() -> Result<Self, RunError> {
        let own = |pid: String| pid.parse() == Ok(process::id());
        if !env::var("LISTEN_PID").is_ok_and(own) {
            return Ok(Self::default());
        }
        let count = env::var("LISTEN_FDS").unwrap_or_default();
        let names = env::var("LISTEN_FDNAMES").ok();
        let roles = roles(&count, names.as_deref()).map_err(RunError::Sockets)?;
        let mut passed = ListenFd::from_env();
        let mut sockets = Self::default();
        for (index, role) in roles.into_iter().enumerate() {
            let unfit = |why: &dyn fmt::Display| {
                let name = role.name();
                RunError::Sockets(format!("the socket that was given as `{name}` {why}"))
            };
            let listener = passed.take_tcp_listener(index);
            let listener = listener.map_err(|error| unfit(&format!("is none for TCP: {error}")))?;
            let listener = listener.ok_or_else(|| unfit(&"is not there"))?;
            if !socket_acceptconn(&listener).unwrap_or(false) {
                return Err(unfit(&"does not listen"));
            }
            let address = listener.local_addr().map_err(|error| unfit(&error))?;
            let given = Some(Given { listener, address });
            match role {
                Role::Ingress => sockets.ingress = given,
                Role::Admin => sockets.admin = given,
                Role::Redirect => sockets.redirect = given,
            }
        }
        Ok(sockets)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.admin.is_none() && self.redirect.is_none()
    }

    /// Puts their addresses in place of those that are configured, so that what depends on these is
    /// checked and told as if they were. Returns what to say about it.
    pub(crate) fn take_over(&self, config: &mut Config) -> Vec<String> {
        let mut told = Vec::new();
        let mut tell = |role: Role, given: &Given, configured: &dyn fmt::Display| {
            let (name, address) = (role.name(), given.address);
            told.push(format!("{name} {address} instead of {configured}"));
        };
        if let Some(given) = &self.ingress {
            tell(Role::Ingress, given, &config.ingress.listen);
            config.ingress.listen = given.address;
        }
        if let Some(given) = &self.admin {
            tell(Role::Admin, given, &config.admin.listen);
            config.admin.listen = given.address;
        }
        if let Some(given) = &self.redirect {
            let configured = config.ingress.http_redirect.map(|address| address.to_string());
            tell(Role::Redirect, given, &configured.as_deref().unwrap_or("none"));
            config.ingress.http_redirect = Some(given.address);
        }
        told
    }
}

/// What each of the sockets is for, in their order.
fn roles(count: &str, names: Option<&str>) -> Result<Vec<Role>, String> {
    let count: usize = count
        .parse()
        .map_err(|_| format!("LISTEN_FDS: `{}` is no number", count.escape_debug()))?;
    let unnamed = |name: &&str| ["", "unknown"].contains(name) || name.ends_with(".socket");
    let names: Vec<&str> = names.map(|names| names.split(':').collect()).unwrap_or_default();
    let known = "the sockets of a node are `ingress`, `admin` and `redirect`";
    if count > Role::ALL.len() {
        return Err(format!("LISTEN_FDS: {count} sockets were given: {known}"));
    }
    if names.iter().all(unnamed) {
        return Ok(Role::ALL.into_iter().take(count).collect());
    }
    if names.len() != count {
        let named = names.len();
        return Err(format!("LISTEN_FDNAMES: there are {named} names for {count} sockets"));
    }
    let mut roles = Vec::new();
    for name in names {
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        let name = name.escape_debug();
        let role = role.ok_or_else(|| format!("LISTEN_FDNAMES: `{name}` is not known: {known}"))?;
        if roles.contains(&role) {
            return Err(format!("LISTEN_FDNAMES: `{name}` is there twice: {known}, one of each"));
        }
        roles.push(role);
    }
    Ok(roles)
}

/// How long a node waits for the one before it to end, which may take all the time it has.
pub(crate) fn patience(config: &Config) -> Duration {
    let (delay, drain) = (config.ingress.drain_delay_s, config.ingress.drain_timeout_s);
    Duration::from_secs(delay.saturating_add(drain)).saturating_add(FAREWELL + OTHER_ENDS)
}

/// Where everybody comes in.
pub(crate) struct Listeners {
    /// Requests.
    pub(crate) doors: Doors,
    /// The API.
    pub(crate) admin: TcpListener,
}

impl Listeners {
    /// Takes the given sockets, and binds the addresses of the others.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub(crate) fn open(config: &Config, sockets: Sockets) -> Result<Self, RunError> {
        let Sockets { ingress, admin, redirect } = sockets;
        let requests = open("ingress", "listen", config.ingress.listen, ingress)?;
        let redirect = match config.ingress.http_redirect {
            Some(address) => Some(open("ingress", "http_redirect", address, redirect)?),
            None => None,
        };
        let admin = open("admin", "listen", config.admin.listen, admin)?.listener;
        Ok(Self { doors: Doors { requests, redirect }, admin })
    }

    /// The node's own addresses, which its functions may not reach.
    ///
    /// # Errors
    /// When the system does not tell them.
    pub(crate) fn own(&self) -> io::Result<OwnAddresses> {
        let (ingress, admin) =
            (self.doors.requests.listener.local_addr()?, self.admin.local_addr()?);
        Ok(OwnAddresses { ingress, admin })
    }
}

fn open(
    section: &str,
    key: &str,
    address: SocketAddr,
    given: Option<Given>,
) -> Result<Door, RunError> {
    let Some(Given { listener, .. }) = given else {
        return bind(section, key, address).map(Door::own);
    };
    let adopted = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = adopted.map_err(|error| {
        RunError::Failed(format!("cannot use the {section} socket that was given: {error}"))
    })?;
    Ok(Door { listener, shared: true })
}

fn bind(section: &str, key: &str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listen(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => RunError::Taken(format!(
            "the {section} address {address} (`{section}.{key}`) is taken already"
        )),
        io::ErrorKind::PermissionDenied => RunError::Failed(format!(
            "the {section} address {address} is not for this user ({error}); ports below 1024 \
             need the capability CAP_NET_BIND_SERVICE, or choose another with `{section}.{key}`"
        )),
        _ => RunError::Failed(format!("cannot listen on the {section} address {address}: {error}")),
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // The next node need not wait until the connections of this one are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_name_or_else_by_order() {
        use Role::{Admin, Ingress, Redirect};
        let named = |count, names| roles(count, Some(names)).unwrap();
        assert_eq!(named("2", "admin:ingress"), [Admin, Ingress]);
        assert_eq!(named("3", "ingress:redirect:admin"), [Ingress, Redirect, Admin]);
        assert_eq!(named("1", "admin"), [Admin]);
        assert_eq!(roles("2", None).unwrap(), [Ingress, Admin]);
        // What systemd says where nobody gave a name.
        assert_eq!(named("2", "faas.socket:faas.socket"), [Ingress, Admin]);
        assert_eq!(named("2", "unknown:unknown"), [Ingress, Admin]);
        assert_eq!(named("1", ""), [Ingress]);
        assert_eq!(named("0", ""), []);
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for (count, names, says) in [
            ("two", None, "`two` is no number"),
            ("", None, "`` is no number"),
            ("4", None, "4 sockets were given"),
            ("4000000000", None, "4000000000 sockets were given"),
            ("2", Some("ingress:metrics"), "`metrics` is not known"),
            ("2", Some("ingress:ingress"), "`ingress` is there twice"),
            ("2", Some("ingress:faas.socket"), "`faas.socket` is not known"),
            ("2", Some("ingress"), "1 names for 2 sockets"),
        ] {
            let error = roles(count, names).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn given_addresses_win_and_are_told() {
        let give = || {
            let listener = GivenListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            Some(Given { listener, address })
        };
        let sockets = Sockets { ingress: give(), admin: None, redirect: give() };
        let mut config = Config::default();
        let told = sockets.take_over(&mut config);
        let ingress = sockets.ingress.as_ref().unwrap().address;
        assert_eq!(config.ingress.listen, ingress);
        assert_eq!(config.admin, Config::default().admin);
        assert_eq!(config.ingress.http_redirect, Some(sockets.redirect.as_ref().unwrap().address));
        assert_eq!(told[0], format!("ingress {ingress} instead of 127.0.0.1:8080"));
        assert!(told[1].ends_with("instead of none"), "{told:?}");
        // They are checked as if they were configured.
        assert!(config.check().unwrap_err().to_string().contains("ingress.http_redirect"));
    }

    #[test]
    fn a_successor_waits_longer_than_an_end_takes() {
        let mut config = Config::default();
        config.ingress.drain_delay_s = 10;
        assert!(patience(&config) > Duration::from_secs(10 + 30 + 5 + 30 + 5 + 2));
        config.ingress.drain_delay_s = u64::MAX;
        assert!(patience(&config) > Duration::from_secs(1 << 40));
    }
}
