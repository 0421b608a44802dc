//! From a host to addresses that may be connected to. Every address is looked at after the look-up,
//! and the connection goes to the very address that was looked at: a name server that gives another
//! answer the next time gains nothing.

use super::{
    address::{not_public, plain},
    config::OutboundConfig,
    target::Target,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
};
use tokio::sync::Semaphore;

/// Names that are looked up at once, all apps together. A look-up occupies a thread, and one that
/// nobody waits for any more still does.
const LOOKUPS: usize = 64;
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
    lookups: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(own: OwnAddresses) -> Self {
        Self { own, lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }

    /// The addresses of a server that may be connected to, in the order to try them.
    pub(super) async fn resolve(
        &self,
        target: &Target,
        config: &OutboundConfig,
    ) -> Result<Vec<SocketAddr>, NoAddress> {
        let found = match literal(&target.host) {
            Some(address) => vec![SocketAddr::new(address, target.port)],
            None => self.look_up(target.host.clone(), target.port).await?,
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

    async fn look_up(&self, host: String, port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let unknown = |why: String| NoAddress::Unknown(why);
        let permit = self.lookups.clone().acquire_owned().await;
        let permit = permit.map_err(|error| unknown(error.to_string()))?;
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        let found = lookup.await.map_err(|error| unknown(error.to_string()))?;
        found.map_err(|_| unknown("the name is not known".to_owned()))
    }

    /// What an address is, if it may not be connected to.
    fn out_of_bounds(&self, address: SocketAddr, config: &OutboundConfig) -> Option<&'static str> {
        let ip = plain(address.ip());
        let address = SocketAddr::new(ip, address.port());
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
        Resolver::new(OwnAddresses {
            ingress: "0.0.0.0:8080".parse().unwrap(),
            admin: "127.0.0.1:8081".parse().unwrap(),
        })
    }

    async fn resolve(host: &str, port: u16, open: &[&str]) -> Result<usize, NoAddress> {
        let config = OutboundConfig {
            allow_private: open.iter().map(|network| network.parse().unwrap()).collect(),
            ..OutboundConfig::default()
        };
        let target = Target { scheme: OutboundScheme::Http, host: host.to_owned(), port };
        resolver().resolve(&target, &config).await.map(|addresses| addresses.len())
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

    #[tokio::test]
    async fn the_api_is_never_reached() {
        let own = Err(NoAddress::Prohibited("the server's own"));
        assert_eq!(resolve("127.0.0.1", 8081, &["127.0.0.0/8"]).await, own);
        assert_eq!(resolve("127.0.0.1", 8080, &["127.0.0.0/8"]).await, Ok(1));
        assert!(is_at("0.0.0.0:8080".parse().unwrap(), "127.0.0.7:8080".parse().unwrap()));
        assert!(!is_at("0.0.0.0:8080".parse().unwrap(), "127.0.0.7:8082".parse().unwrap()));
        assert!(!is_at("127.0.0.1:8080".parse().unwrap(), "1.1.1.1:8080".parse().unwrap()));
    }
}
