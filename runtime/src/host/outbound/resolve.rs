//! From a host to addresses that may be connected to. Every address is looked at after the look-up,
//! and the connection goes to the very address that was looked at: a name server that gives another
//! answer the next time gains nothing.

use super::{
    address::{not_public, plain},
    config::OutboundConfig,
    target::Target,
};
use crate::config::ConfigError;
use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Semaphore;

/// Names that the system looks up at once, all apps together. Each occupies a thread until there is
/// an answer or the system gives up, which nobody can make it do earlier.
const LOOKUPS: usize = 64;
/// The same of one app, whoever is asked: name servers that do not answer are their app's trouble.
pub(super) const LOOKUPS_PER_APP: usize = 8;
/// How long a name server that is asked directly has for an answer, and how often it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const ASKED_AGAIN: usize = 1;
/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;

/// Where the node itself listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnAddresses {
    /// Where requests come in.
    pub(crate) ingress: SocketAddr,
    /// Where the API is.
    pub(crate) admin: SocketAddr,
}

/// Why a host has no address to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAddress {
    /// It has none.
    Unknown(String),
    /// All of them are out of bounds; the word says what they are.
    Prohibited(&'static str),
}

/// Finds addresses.
pub(super) struct Resolver {
    own: OwnAddresses,
    source: Source,
}

/// Who knows names.
enum Source {
    /// The system: its files, its name servers, and whatever else it was set up with.
    System(Arc<Semaphore>),
    /// Name servers that are asked directly. A look-up ends when nobody waits for it. Nothing is
    /// remembered: how long an answer is good is their business.
    Servers(Box<TokioResolver>),
}

impl Resolver {
    /// Asks whom the settings name.
    ///
    /// # Errors
    /// When those cannot be asked.
    pub(super) fn new(own: OwnAddresses, config: &OutboundConfig) -> Result<Self, ConfigError> {
        let source = match config.resolver.as_slice() {
            [] => Source::System(Arc::new(Semaphore::new(LOOKUPS))),
            servers => Source::Servers(Box::new(directly(servers).map_err(|error| {
                ConfigError::Value { key: "outbound.resolver", problem: error.to_string() }
            })?)),
        };
        Ok(Self { own, source })
    }

    /// The addresses of a server that may be connected to, in the order to try them. `lookups` are
    /// those of the app.
    pub(super) async fn resolve(
        &self,
        target: &Target,
        config: &OutboundConfig,
        lookups: &Arc<Semaphore>,
    ) -> Result<Vec<SocketAddr>, NoAddress> {
        let found = match literal(&target.host) {
            Some(address) => vec![SocketAddr::new(address, target.port)],
            None => self.look_up(&target.host, target.port, lookups).await?,
        };
        self.vetted(found, config)
    }

    /// Those of the addresses that may be connected to. One that may not does not spoil the others.
    fn vetted(
        &self,
        found: Vec<SocketAddr>,
        config: &OutboundConfig,
    ) -> Result<Vec<SocketAddr>, NoAddress> {
        let mut prohibited = None;
        let mut good = Vec::new();
        for address in found {
            match self.out_of_bounds(address, config) {
                Some(why) => prohibited = Some(why),
                None => good.push(address),
            }
        }
        good.truncate(ADDRESSES);
        match (good.is_empty(), prohibited) {
            (false, _) => Ok(good),
            (true, Some(why)) => Err(NoAddress::Prohibited(why)),
            (true, None) => Err(NoAddress::Unknown("the name has no address".to_owned())),
        }
    }

    async fn look_up(
        &self,
        host: &str,
        port: u16,
        lookups: &Arc<Semaphore>,
    ) -> Result<Vec<SocketAddr>, NoAddress> {
        let unknown = |why: String| NoAddress::Unknown(why);
        let own = lookups.clone().acquire_owned().await;
        let own = own.map_err(|error| unknown(error.to_string()))?;
        let all = match &self.source {
            Source::Servers(servers) => {
                // The dot: no domain of somebody's is tried behind the name.
                let found = servers.lookup_ip(format!("{host}.")).await.map_err(not_found)?;
                return Ok(by_turns(found.iter(), port));
            }
            Source::System(all) => all.clone().acquire_owned().await,
        };
        let all = all.map_err(|error| unknown(error.to_string()))?;
        let host = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // Held for as long as the thread is, and not only while somebody waits for it.
            let _turns = (own, all);
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        let found = lookup.await.map_err(|error| unknown(error.to_string()))?;
        found.map_err(|_| unknown("the name is not known".to_owned()))
    }

    /// What an address is, if it may not be connected to.
    fn out_of_bounds(&self, address: SocketAddr, config: &OutboundConfig) -> Option<&'static str> {
        let ip = plain(address.ip());
        let address = SocketAddr::new(ip, address.port());
        // The kernel takes it for this machine, whatever somebody meant who opened all networks.
        if ip.is_unspecified() {
            return not_public(ip);
        }
        // Whatever else is opened: who reaches this one with a token owns the node.
        if is_at(self.own.admin, address) {
            return Some("the server's own");
        }
        if config.allows(ip) {
            return None;
        }
        let own = is_at(self.own.ingress, address).then_some("the server's own");
        not_public(ip).or(own)
    }
}

/// Asks these name servers, over UDP and where that is too small over TCP.
fn directly(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let mut ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        ways.iter_mut().for_each(|way| way.port = address.port());
        NameServerConfig::new(address.ip(), true, ways.into())
    };
    let servers = servers.iter().map(server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut options = ResolverOpts::default();
    options.timeout = ANSWER_WITHIN;
    options.attempts = ASKED_AGAIN;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

fn not_found(error: NetError) -> NoAddress {
    NoAddress::Unknown(match error {
        NetError::Timeout => "no name server answers".to_owned(),
        error if error.is_nx_domain() || error.is_no_records_found() => {
            "the name is not known".to_owned()
        }
        _ => "the name servers have no answer that can be used".to_owned(),
    })
}

/// IPv4 and IPv6 in turn: a machine that lacks one of them gets to the other before all tries are
/// used up.
fn by_turns(found: impl Iterator<Item = IpAddr>, port: u16) -> Vec<SocketAddr> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = found.partition(IpAddr::is_ipv4);
    let longest = v4.len().max(v6.len());
    let pairs = (0..longest).flat_map(|at| [v4.get(at), v6.get(at)]);
    pairs.flatten().map(|address| SocketAddr::new(*address, port)).collect()
}

/// An address that stands for itself.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

/// Whether a listener answers at an address.
fn is_at(listener: SocketAddr, address: SocketAddr) -> bool {
    let own = plain(listener.ip());
    address.port() == listener.port()
        && (own == address.ip() || own.is_unspecified() && is_this_machine(address))
}

/// Whether an address is one of this machine's: then the kernel would send from the same one.
/// Nothing is sent to find out.
fn is_this_machine(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    address.ip().is_loopback() || from.is_ok_and(|from| from.ip() == address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use faas_api::OutboundScheme;

    fn resolver() -> Resolver {
        let own = OwnAddresses {
            ingress: "0.0.0.0:8080".parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
        };
        Resolver::new(own, &OutboundConfig::default()).unwrap()
    }

    async fn resolve(host: &str, port: u16, open: &[&str]) -> Result<usize, NoAddress> {
        let config = OutboundConfig {
            allow_private: open.iter().map(|network| network.parse().unwrap()).collect(),
            ..OutboundConfig::default()
        };
        let target = Target { scheme: OutboundScheme::Http, host: host.to_owned(), port };
        let lookups = Arc::new(Semaphore::new(1));
        resolver().resolve(&target, &config, &lookups).await.map(|addresses| addresses.len())
    }

    #[tokio::test]
    async fn what_is_not_public_is_out_of_bounds_unless_it_was_opened() {
        let loopback = Err(NoAddress::Prohibited("loopback"));
        assert_eq!(resolve("127.0.0.1", 80, &[]).await, loopback);
        assert_eq!(resolve("[::ffff:7f00:1]", 80, &[]).await, loopback);
        assert_eq!(resolve("localhost", 80, &[]).await, loopback);
        assert_eq!(resolve("127.0.0.1", 80, &["10.0.0.0/8"]).await, loopback);
        assert_eq!(resolve("127.0.0.1", 80, &["127.0.0.0/8"]).await, Ok(1));
        assert_eq!(resolve("[::ffff:7f00:1]", 80, &["127.0.0.1/32"]).await, Ok(1));
        assert_eq!(resolve("1.1.1.1", 80, &[]).await, Ok(1));
        let link_local = Err(NoAddress::Prohibited("link-local"));
        assert_eq!(resolve("169.254.169.254", 80, &[]).await, link_local);
    }

    /// A name server may mix them, and give others the next time: only what was vetted is used.
    #[test]
    fn a_prohibited_address_does_not_hide_among_others() {
        let config = OutboundConfig::default();
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let found = addresses(&["127.0.0.1:80", "1.1.1.1:80", "[::1]:80", "10.0.0.1:80"]);
        assert_eq!(resolver().vetted(found, &config), Ok(addresses(&["1.1.1.1:80"])));
        let found = addresses(&["10.0.0.1:80"]);
        let prohibited = Err(NoAddress::Prohibited("private"));
        assert_eq!(resolver().vetted(found, &config), prohibited);
        let none = resolver().vetted(Vec::new(), &config);
        assert!(matches!(none, Err(NoAddress::Unknown(_))));
    }

    #[test]
    fn both_families_get_their_turn() {
        let found = ["1.1.1.1", "1.1.1.2", "1.1.1.3", "2606:4700::1"];
        let addresses = by_turns(found.iter().map(|text| text.parse().unwrap()), 80);
        let told: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        assert_eq!(told, ["1.1.1.1:80", "[2606:4700::1]:80", "1.1.1.2:80", "1.1.1.3:80"]);
    }

    #[tokio::test]
    async fn the_api_is_never_reached() {
        let own = Err(NoAddress::Prohibited("the server's own"));
        assert_eq!(resolve("127.0.0.1", 8081, &["127.0.0.0/8"]).await, own);
        assert_eq!(resolve("127.0.0.1", 8080, &["127.0.0.0/8"]).await, Ok(1));
        // Connecting to nowhere is connecting to loopback.
        let nowhere = Err(NoAddress::Prohibited("unspecified"));
        for host in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"] {
            assert_eq!(resolve(host, 8081, &["0.0.0.0/0", "::/0"]).await, nowhere, "{host}");
        }
        assert!(is_at("0.0.0.0:8080".parse().unwrap(), "127.0.0.7:8080".parse().unwrap()));
        assert!(!is_at("0.0.0.0:8080".parse().unwrap(), "127.0.0.7:8082".parse().unwrap()));
        assert!(!is_at("127.0.0.1:8080".parse().unwrap(), "1.1.1.1:8080".parse().unwrap()));
    }
}
