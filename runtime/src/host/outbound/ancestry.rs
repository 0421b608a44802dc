//! How a call came about: through how many calls of other functions, and what those have sent.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// What a call may send, and what it has sent so far: that of the calls it makes counts, too.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    most: u32,
    sent: AtomicU32,
    /// That of the call which made it, on this node.
    around: Option<Arc<Allowance>>,
}

impl Allowance {
    /// That of a call which may send so many requests and lies inside of another one.
    fn new(most: u32, around: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { most, sent: AtomicU32::new(0), around })
    }

    /// Counts a request, for this call and all around it.
    ///
    /// # Errors
    /// What the first of them may send that has sent as many; then none has counted it.
    pub(super) fn spend(&self) -> Result<(), u32> {
        let more = |sent| (sent < self.most).then_some(sent + 1);
        self.sent.fetch_update(Relaxed, Relaxed, more).map_err(|_| self.most)?;
        let Some(around) = &self.around else {
            return Ok(());
        };
        around.spend().inspect_err(|_| {
            self.sent.fetch_sub(1, Relaxed);
        })
    }
}

/// Says which servers a request went through (RFC 8586), and so finds loops.
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The name of every faas server in that field.
const CDN_ID: &str = "faas";

/// How many calls of functions by functions may lie inside each other.
pub(crate) const MAX_DEPTH: u8 = 8;

/// The calls that led to a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ancestry {
    /// How many there are.
    depth: u8,
    /// What the last of them may still send; none when there are no others, or they are elsewhere.
    around: Option<Arc<Allowance>>,
}

/// There are too many calls inside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooDeep;

impl Ancestry {
    /// What a client's request says of it. A client that makes something up only harms itself.
    ///
    /// # Errors
    /// When it went through too many functions.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, TooDeep> {
        if !headers.contains_key(CDN_LOOP) {
            return Ok(Self::default());
        }
        let depth = members(headers).filter_map(depth).max().unwrap_or(0);
        match depth <= MAX_DEPTH {
            true => Ok(Self { depth, around: None }),
            false => Err(TooDeep),
        }
    }

    /// That of a call that such a call makes.
    ///
    /// # Errors
    /// When it would lie too deep.
    pub(crate) fn child(&self, around: Arc<Allowance>) -> Result<Self, TooDeep> {
        match self.depth < MAX_DEPTH {
            true => Ok(Self { depth: self.depth + 1, around: Some(around) }),
            false => Err(TooDeep),
        }
    }

    /// How many calls lie around a call that such a call makes.
    pub(super) fn child_depth(&self) -> u8 {
        self.depth.saturating_add(1)
    }

    /// What such a call may send, if its function may send so many requests.
    pub(super) fn allowance(&self, most: u32) -> Arc<Allowance> {
        Allowance::new(most, self.around.clone())
    }
}

/// The members of the field, over all its lines.
fn members(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CDN_LOOP).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// The depth that a member tells, if it is ours.
fn depth(member: &str) -> Option<u8> {
    let mut parts = member.split(';').map(str::trim);
    if parts.next()? != CDN_ID {
        return None;
    }
    let depth = parts.find_map(|part| part.strip_prefix("depth="));
    Some(depth.map_or(1, |depth| depth.parse().unwrap_or(u8::MAX)))
}

/// Says in a request's head that it comes from a function that lies so deep. What others said stays.
pub(super) fn cdn_loop(headers: &mut HeaderMap, depth_now: u8) {
    if headers.contains_key(CDN_LOOP) {
        let others: Vec<HeaderValue> = members(headers)
            .filter(|member| depth(member).is_none())
            .filter_map(|member| HeaderValue::from_str(member).ok())
            .collect();
        headers.remove(CDN_LOOP);
        for other in others {
            headers.append(CDN_LOOP, other);
        }
    }
    if let Ok(own) = HeaderValue::from_str(&format!("{CDN_ID};depth={depth_now}")) {
        headers.append(CDN_LOOP, own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CDN_LOOP, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn depth_is_the_largest_that_is_told() {
        let told = |lines: &[&'static str]| Ancestry::of(&head(lines)).map(|told| told.depth);
        assert_eq!(told(&[]), Ok(0));
        assert_eq!(told(&["other", "third; faas"]), Ok(0));
        assert_eq!(told(&["faas"]), Ok(1));
        assert_eq!(told(&["faas;depth=3, other", "faas ; depth=2"]), Ok(3));
        assert_eq!(told(&["faas;depth=8"]), Ok(8));
        assert_eq!(told(&["faas;depth=9"]), Err(TooDeep));
        assert_eq!(told(&["faas;depth=x"]), Err(TooDeep));
    }

    #[test]
    fn calls_end_somewhere() {
        let mut ancestry = Ancestry::default();
        for _ in 0..MAX_DEPTH {
            ancestry = ancestry.child(ancestry.allowance(1)).unwrap();
        }
        assert_eq!(ancestry.child(ancestry.allowance(1)).unwrap_err(), TooDeep);
    }

    #[test]
    fn requests_are_counted_over_all() {
        let first = Ancestry::default();
        let outer = first.allowance(3);
        assert_eq!(outer.spend(), Ok(()));
        let second = first.child(outer.clone()).unwrap();
        // Each call that is made has as many as its own function may.
        let (one, many) = (second.allowance(1), second.allowance(100));
        assert_eq!((one.spend(), one.spend()), (Ok(()), Err(1)));
        // But together they have no more than who called them.
        assert_eq!((many.spend(), many.spend()), (Ok(()), Err(3)));
        assert_eq!(outer.spend(), Err(3));
        assert_eq!(many.sent.load(Relaxed), 1, "what is refused is not counted");
    }

    #[test]
    fn own_members_are_replaced() {
        let mut headers = head(&["a, faas;depth=1", "faas"]);
        cdn_loop(&mut headers, 2);
        assert_eq!(members(&headers).collect::<Vec<_>>(), ["a", "faas;depth=2"]);
    }
}
