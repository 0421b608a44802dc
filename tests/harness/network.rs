//! A network of a test's own, in which every address is this machine's.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

/// Every address leads to loopback: what listens on all addresses sees each attempt to connect to
/// any, and nothing leaves.
const SETUP: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && \
                     ip -6 route add local ::/0 dev lo && echo ready && exec sleep 3600";

/// Such a network. The thread that has entered it, the threads and processes that it starts, and
/// their sockets are in it.
pub struct Network(Child);

impl Network {
    /// Moves this thread, for as long as it lives, into a network of its own. `None` where that is not
    /// allowed, or `unshare` and `ip` are not there: it takes root.
    ///
    /// # Panics
    /// When the network is there and cannot be entered.
    pub fn enter() -> Option<Self> {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", SETUP])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let network = Self(child);
        if line.trim() != "ready" {
            return None;
        }
        let file = File::open(format!("/proc/{}/ns/net", network.0.id())).unwrap();
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).unwrap();
        Some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
