//! Which version a request gets while traffic is split: a lot from 0 to 99, drawn anew, or the same
//! for the same client.
//!
//! The lot stays with the client and not the version. So whoever is moved to a new version when its
//! share grows stays there when it grows again.

use crate::functions::snapshot::StickyBy;
use http::{HeaderMap, HeaderValue, header};
use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

/// The cookie that carries a client's lot.
pub(super) const COOKIE: &str = "faas_lot";

/// The lot of a request, and the one to give to the client if it has none yet.
pub(super) fn lot(sticky: Option<&StickyBy>, headers: &HeaderMap) -> (u8, Option<u8>) {
    match sticky {
        None => (draw(), None),
        Some(StickyBy::Header(name)) => match headers.get(name) {
            Some(value) => (of_text(value.as_bytes()), None),
            None => (draw(), None),
        },
        Some(StickyBy::Cookie) => match in_cookie(headers) {
            Some(lot) => (lot, None),
            None => {
                let lot = draw();
                (lot, Some(lot))
            }
        },
    }
}

/// The cookie with a lot, for whatever stands below a path.
pub(super) fn cookie(lot: u8, below: &str) -> Option<HeaderValue> {
    let path = if below.is_empty() { "/" } else { below };
    HeaderValue::from_str(&format!("{COOKIE}={lot}; Path={path}; HttpOnly; SameSite=Lax")).ok()
}

fn in_cookie(headers: &HeaderMap) -> Option<u8> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == COOKIE)?;
    value.trim().parse().ok().filter(|lot| *lot < 100)
}

/// The same for the same text, on every node and after every start (FNV-1a, 64 bits).
fn of_text(text: &[u8]) -> u8 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    scale(mix(text.iter().fold(0xcbf2_9ce4_8422_2325, fold)))
}

/// Fair and fast; nothing secret depends on it.
fn draw() -> u8 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        scale(mix(next))
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// To 0 … 99, by multiplication.
fn scale(mixed: u64) -> u8 {
    u8::try_from(((mixed >> 33) * 100) >> 31).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), value.parse().unwrap())
        };
        fields.iter().map(pair).collect()
    }

    #[test]
    fn lots_are_drawn_evenly() {
        let mut drawn = [0u32; 100];
        for _ in 0..100_000 {
            drawn[usize::from(draw())] += 1;
        }
        assert!(drawn.iter().all(|n| (800..1200).contains(n)), "{drawn:?}");
        let mut hashed = [0u32; 100];
        for user in 0..100_000 {
            hashed[usize::from(of_text(format!("user-{user}").as_bytes()))] += 1;
        }
        assert!(hashed.iter().all(|n| (800..1200).contains(n)), "{hashed:?}");
    }

    #[test]
    fn a_header_decides_for_good() {
        let by = StickyBy::Header(http::HeaderName::from_static("x-user"));
        let first = lot(Some(&by), &headers(&[("x-user", "ada")]));
        assert_eq!(first, lot(Some(&by), &headers(&[("x-user", "ada"), ("x-other", "1")])));
        assert_eq!(first.1, None);
        assert_eq!(of_text(b"ada"), 48, "a new release would move every client");
    }

    #[test]
    fn a_cookie_is_given_once() {
        let (first, given) = lot(Some(&StickyBy::Cookie), &HeaderMap::new());
        assert_eq!(given, Some(first));
        let value = cookie(first, "/shop").unwrap();
        let text = value.to_str().unwrap();
        assert_eq!(text, format!("faas_lot={first}; Path=/shop; HttpOnly; SameSite=Lax"));
        let back = format!("a=b; faas_lot={first}; c=d");
        assert_eq!(lot(Some(&StickyBy::Cookie), &headers(&[("cookie", &back)])), (first, None));
        for bad in ["faas_lot=100", "faas_lot=", "faas_lot=-1", "faas_lot", "faas_lot_=7"] {
            let (_, given) = lot(Some(&StickyBy::Cookie), &headers(&[("cookie", bad)]));
            assert!(given.is_some(), "{bad}");
        }
    }
}
