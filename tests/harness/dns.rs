//! A name server (RFC 1035 §4) that answers as a test likes.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

/// The type of a question for an IPv4 address.
const A: u16 = 1;
const CNAME: u16 = 5;
/// That of one for an IPv6 address.
const AAAA: u16 = 28;

/// What a name server says about a name.
#[derive(Debug, Clone)]
pub enum Said {
    /// These addresses, good for no time at all; those of the other family are left out.
    Addresses(Vec<IpAddr>),
    /// It is another name for this one, whose addresses these are.
    Alias(String, Vec<IpAddr>),
    /// There is no such name.
    Unknown,
    /// Nothing at all.
    Silence,
}

impl Said {
    /// These addresses.
    ///
    /// # Panics
    /// When one is none.
    pub fn addresses(texts: &[&str]) -> Self {
        Self::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
    }
}

/// A name server on loopback, until the process ends.
pub struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// One that says this about a name, which is in lower case. The second value counts the
    /// questions for IPv4 addresses of any name so far, this one not included.
    ///
    /// # Panics
    /// When the machine has no port.
    pub fn start(says: impl Fn(&str, usize) -> Said + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let server = Self { address: socket.local_addr().unwrap(), asked: asked.clone() };
        let turns = AtomicUsize::new(0);
        thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet) {
                let Some((name, end, kind)) = question(&packet[..length]) else { continue };
                asked.lock().unwrap().push(name.clone());
                let turn = turns.fetch_add(usize::from(kind == A), SeqCst);
                // Both questions about a name get the answer of one turn.
                let turn = if kind == A { turn } else { turns.load(SeqCst).saturating_sub(1) };
                if let Some(answer) = answer(&packet[..end], kind, says(&name, turn)) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names it was asked for so far.
    ///
    /// # Panics
    /// When its thread did.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The name that is asked for, where the question ends, and its type.
fn question(packet: &[u8]) -> Option<(String, usize, u16)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), at + 4, kind))
}

fn answer(question: &[u8], kind: u16, said: Said) -> Option<Vec<u8>> {
    let (alias, addresses, code) = match said {
        Said::Addresses(addresses) => (None, addresses, 0),
        Said::Alias(name, addresses) => (Some(name), addresses, 0),
        Said::Unknown => (None, Vec::new(), 3),
        Said::Silence => return None,
    };
    // The name as it was asked: a pointer to the question.
    let (asked, mut owner) = (vec![0xc0, 12], vec![0xc0, 12]);
    let mut records = Vec::new();
    if let Some(alias) = alias {
        owner = encoded(&alias);
        records.push(record(&asked, CNAME, &owner));
    }
    for address in addresses {
        match address {
            IpAddr::V4(v4) if kind == A => records.push(record(&owner, A, &v4.octets())),
            IpAddr::V6(v6) if kind == AAAA => records.push(record(&owner, AAAA, &v6.octets())),
            _ => {}
        }
    }
    let mut packet = question.to_vec();
    // An answer, recursion was and is possible.
    packet[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    let count = u16::try_from(records.len()).unwrap();
    packet[4..6].copy_from_slice(&1_u16.to_be_bytes());
    packet[6..8].copy_from_slice(&count.to_be_bytes());
    packet[8..12].fill(0);
    records.iter().for_each(|record| packet.extend(record));
    Some(packet)
}

/// A record that is good for no time.
fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let head = [kind.to_be_bytes(), 1_u16.to_be_bytes(), [0; 2], [0; 2], length.to_be_bytes()];
    [owner, &head.concat(), data].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}
