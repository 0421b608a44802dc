//! Proxies before the node that are believed: who the client is, what it speaks, and the request's
//! id.
//!
//! Whoever is not on the list is the client, whatever its request says.

use crate::request_id::RequestId;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const FOR: &str = "x-forwarded-for";
const HOST: &str = "x-forwarded-host";
const PROTO: &str = "x-forwarded-proto";
const ID: &str = "x-request-id";

/// The networks whose word is taken.
pub(super) struct Proxies(Vec<IpNet>);

/// Who sent a request.
pub(super) struct Client {
    pub(super) ip: IpAddr,
    /// The same, as `x-forwarded-for` carries it.
    pub(super) address: HeaderValue,
    /// What it speaks, where a proxy has said so.
    pub(super) scheme: Option<&'static str>,
    /// The host it asked for, where a proxy has said so.
    pub(super) host: Option<HeaderValue>,
}

impl Client {
    /// Who sends a request without anybody in between.
    pub(super) fn of_connection(ip: IpAddr) -> Self {
        // An address is visible ASCII.
        let address = HeaderValue::from_str(&ip.to_string());
        let address = address.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { ip, address, scheme: None, host: None }
    }
}

impl Proxies {
    /// Those of the settings.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self(networks.to_vec())
    }

    /// Whether what comes from an address is believed.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client, as a trusted peer tells it: the last address in `x-forwarded-for` that is not
    /// of a trusted proxy. What stands before it was written by somebody who is not trusted.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let lines = headers.get_all(FOR).iter();
        let hops = lines.rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut ip = peer;
        for hop in hops {
            let Some(address) = address(hop) else {
                break;
            };
            ip = address;
            if !self.trust(address) {
                break;
            }
        }
        let scheme = match headers.get(PROTO).map(HeaderValue::as_bytes) {
            Some(b"https") => Some("https"),
            Some(b"http") => Some("http"),
            _ => None,
        };
        let host = headers.get(HOST).cloned();
        Client { scheme, host, ..Client::of_connection(ip) }
    }
}

/// The id that a trusted peer has given a request, if it is one that can be kept.
pub(super) fn request_id(headers: &HeaderMap) -> Option<RequestId> {
    RequestId::parse(headers.get(ID)?.to_str().ok()?)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:5000`, `2001:db8::1`,
/// `[2001:db8::1]:5000`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let plain = bare.parse::<IpAddr>().ok();
    let address = plain.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FOR, line.parse().unwrap());
        }
        let peer = "10.0.0.1".parse().unwrap();
        Proxies::new(&networks).client(peer, &headers).address.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_client_is_the_last_that_is_not_trusted() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 10.9.9.9"], "192.0.2.1"),
            (&["192.0.2.1,10.9.9.9 , ::1"], "192.0.2.1"),
            // What a client has written itself stands before what its proxy has.
            (&["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.7", "192.0.2.1"], "192.0.2.1"),
            (&["10.0.0.3, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1:5000"], "192.0.2.1"),
            (&["[2001:db8::1]:5000"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            // Everybody is trusted: the first one.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Nobody has said anything that can be read.
            (&[], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown"], "10.0.0.1"),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&[",,"], "10.0.0.1"),
        ] {
            assert_eq!(client(lines), expected, "{lines:?}");
        }
    }
}
