//! An ACME authority (RFC 8555): Pebble, the one that Let's Encrypt makes for tests, with what it
//! needs around it – names that all lead to this machine, and port 443 of them to the node.

use crate::{eventually, tls::Authority};
use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Somebody else may take a free port between the look and the start.
const ATTEMPTS: u32 = 5;

/// The authority. It forgets everything, its own key too, whenever it is stopped.
pub struct Pebble {
    folder: PathBuf,
    process: Option<Child>,
    ports: [u16; 2],
    names: SocketAddr,
    door: Door,
    /// Seconds that its certificates are valid.
    validity: u32,
}

impl Pebble {
    /// Starts one whose certificates are valid for so many seconds. It keeps its files in a folder.
    ///
    /// # Panics
    /// When it is not installed (Debian: `apt install pebble`).
    pub fn start(folder: &Path, validity: u32) -> Self {
        let folder = folder.join("pebble");
        fs::create_dir(&folder).unwrap();
        let own = Authority::new();
        fs::write(folder.join("ca.pem"), own.pem()).unwrap();
        own.issue(&["localhost", "127.0.0.1"]).write(&folder);
        let (names, door) = (answer_every_name(), Door::open());
        let mut pebble = Self { folder, process: None, ports: [0; 2], names, door, validity };
        pebble.launch(ATTEMPTS);
        pebble
    }

    /// Starts it again, at the same address.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        self.launch(1);
    }

    /// Stops it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where port 443 of every domain leads.
    pub fn leads_to(&self, node: SocketAddr) {
        *self.door.to.lock().unwrap() = Some(node);
    }

    /// The address of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.ports[0])
    }

    /// The certificate its own server is known by.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn launch(&mut self, attempts: u32) {
        for _ in 0..attempts {
            if self.ports[0] == 0 {
                self.ports = free_ports();
            }
            if self.try_launch() {
                return;
            }
            self.stop();
            self.ports = [0; 2];
        }
        panic!("pebble does not start:\n{}", self.log());
    }

    fn try_launch(&mut self) -> bool {
        let file = |name: &str| self.folder.join(name);
        let [directory, management] = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let config = serde_json::json!({ "pebble": {
            "listenAddress": directory,
            "managementListenAddress": management,
            "certificate": file("cert.pem"),
            "privateKey": file("key.pem"),
            "httpPort": 1,
            "tlsPort": self.door.address.port(),
            "certificateValidityPeriod": self.validity,
        }});
        fs::write(file("config.json"), config.to_string()).unwrap();
        let log = File::options().create(true).append(true).open(file("log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(file("config.json"))
            .args(["-dnsserver", &self.names.to_string()])
            // It would think for seconds before it looks.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pebble is missing (Debian: apt install pebble)");
        let child = self.process.insert(child);
        eventually("pebble listens", PATIENCE, || {
            let ended = child.try_wait().unwrap().is_some();
            (ended || TcpStream::connect(&directory).is_ok()).then_some(!ended)
        })
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("pebble's log:\n{}", self.log());
        }
    }
}

fn free_ports() -> [u16; 2] {
    let any = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    any.map(|listener| listener.local_addr().unwrap().port())
}

/// A name server that knows one address for all names (RFC 1035 §4).
fn answer_every_name() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut query) {
            // Whoever asked may be gone.
            let _ = socket.send_to(&dns_answer(&query[..length]), peer);
        }
    });
    address
}

fn dns_answer(query: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    const ADDRESS: [u8; 2] = [0, 1];
    let name = query[HEADER..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[HEADER..HEADER + name + 4];
    let known = question[name..name + 2] == ADDRESS;
    let mut answer = query[..2].to_vec();
    // A response without error; one question, and one answer or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    answer.extend(question);
    if known {
        // The name of the question, type, class, a second to keep it, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    answer
}

/// A port that leads to another one, which may change.
struct Door {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Door {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let target = to.clone();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let target = target.clone();
                thread::spawn(move || forward(&client, &target));
            }
        });
        Self { address, to }
    }
}

/// Carries bytes both ways until one end closes.
fn forward(client: &TcpStream, to: &Mutex<Option<SocketAddr>>) {
    // A node may ask for a certificate before the test knows its address.
    let to = eventually("the door leads somewhere", PATIENCE, || *to.lock().unwrap());
    let Ok(server) = TcpStream::connect(to) else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
