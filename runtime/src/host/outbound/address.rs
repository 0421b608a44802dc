//! Which addresses are the public Internet, and which are somebody's own network.
//!
//! The list is the registry of special-purpose addresses (RFC 6890) as of 2026. Addresses that
//! carry another one inside are judged by that one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address, however it is written, is one of the public Internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    not_public(plain(address)).is_none()
}

/// The word for an address that is not public; `None` for one that is.
pub(super) fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

/// An address as the network sees it: `::ffff:10.0.0.1` is `10.0.0.1`.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    // The platform's own server of a large cloud, at a public address.
    const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    match address.octets() {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [100, 64..=127, ..] => Some("shared (carrier-grade NAT)"),
        [169, 254, ..] => Some("link-local"),
        [192, 0, 0, _] => Some("reserved"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("documentation"),
        [192, 88, 99, _] => Some("relay"),
        [198, 18..=19, ..] => Some("benchmarking"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ if address == WIRE_SERVER => Some("metadata"),
        _ => None,
    }
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // IPv4 inside: compatible, mapped, translated, NAT64 (RFC 4291 §2.5.5, RFC 6052 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => not_public_v4(from(high, low)),
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => not_public_v4(from(high, low)),
        [0xfc00..=0xfdff, ..] => Some("private (unique local)"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("private (site-local)"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("documentation"),
        // Protocol assignments; Teredo (RFC 4380) has an address inside that cannot be trusted.
        [0x2001, 0..=0x1ff, ..] => Some("reserved"),
        [0x2000..=0x3fff, ..] => None,
        // Only 2000::/3 is handed out as global unicast.
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Option<&'static str> {
        not_public(text.parse().unwrap())
    }

    #[test]
    fn what_is_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:1::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "e000::1",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_public() {
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450:4001::1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    proptest! {
        /// However an IPv4 address is written as one of IPv6, it is no more public than by itself.
        #[test]
        fn no_form_opens_an_address(bits: u32, low: u64) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets().map(u16::from);
            let (high, low4) = (a << 8 | b, c << 8 | d);
            let rest = (low >> 48) as u16;
            let own = not_public(v4.into());
            for form in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low4),
                Ipv6Addr::new(0x2002, high, low4, rest, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(not_public(form.into()), own, "{}", form);
            }
        }
    }
}
