//! What a service manager does for a node: holds its sockets, passes them on, and is told of its state.

use crate::{Node, eventually};
use rustix::{net::listen, process::Signal};
use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Time in which a node must say what it has to.
const PATIENCE: Duration = Duration::from_secs(60);
/// As systemd has it.
const BACKLOG: i32 = 4096;

/// Something that is passed on under a name.
pub struct Passed {
    /// Its name; none where nobody gave one.
    pub name: Option<&'static str>,
    /// The open file.
    pub file: OwnedFd,
}

/// Starts a command with these open files, as sd_listen_fds(3) describes it.
///
/// They travel as standard input, output and error, so that no other child of this process can inherit
/// one; a shell puts them in place, tells the command its own number and becomes it.
///
/// # Panics
/// With more than three, or when there is no shell.
pub fn spawn_with(command: &[String], files: Vec<Passed>, home: &Path, notify: &str) -> Child {
    assert!(files.len() <= 3, "there are three to travel as");
    let count = files.len();
    let names: Option<Vec<&str>> = files.iter().map(|passed| passed.name).collect();
    let moves: String = (0..count).map(|from| format!(" {}<&{from}", from + 3)).collect();
    let names = names.map(|names| format!("export LISTEN_FDNAMES={}; ", names.join(":")));
    let script = format!(
        "exec{moves} </dev/null >>\"$0.out\" 2>>\"$0.log\"; {}export LISTEN_FDS={count}; \
         export LISTEN_PID=$$; exec \"$@\"",
        names.unwrap_or_default()
    );
    let mut files = files.into_iter().map(|passed| Stdio::from(passed.file));
    let mut next = || files.next().unwrap_or_else(Stdio::null);
    Command::new("/bin/sh")
        .args(["-c", &script])
        .arg(home.join("node"))
        .args(command)
        .env_clear()
        .env("HOME", home)
        .env("RUST_BACKTRACE", "1")
        .env("NOTIFY_SOCKET", notify)
        .stdin(next())
        .stdout(next())
        .stderr(next())
        .spawn()
        .unwrap()
}

/// The manager of one node and its successors.
pub struct Parent {
    ingress: TcpListener,
    admin: TcpListener,
    /// Whether it gives the sockets their names.
    named: bool,
    notify: UnixDatagram,
    notify_name: String,
}

impl Parent {
    /// A manager with a socket for requests and one for the API, both called by name, that is told of a
    /// node's state at a path.
    ///
    /// # Panics
    /// When there are no sockets.
    pub fn new(node: &Node) -> Self {
        let path = node.home().join("notify");
        let notify = UnixDatagram::bind(&path).unwrap();
        Self::with(notify, path.display().to_string(), true)
    }

    /// One that gives no names, and is told at an abstract address.
    ///
    /// # Panics
    /// When there are no sockets.
    pub fn nameless(node: &Node) -> Self {
        let name = node.home().join("notify").display().to_string();
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        Self::with(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"), false)
    }

    fn with(notify: UnixDatagram, notify_name: String, named: bool) -> Self {
        notify.set_nonblocking(true).unwrap();
        let open = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            // The one of the standard library is short.
            listen(&listener, BACKLOG).unwrap();
            listener
        };
        Self { ingress: open(), admin: open(), named, notify, notify_name }
    }

    /// Where requests go.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ingress(&self) -> SocketAddr {
        self.ingress.local_addr().unwrap()
    }

    /// Starts a process for a node, with the sockets.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&self, node: &Node) -> Child {
        let pass = |name, listener: &TcpListener| Passed {
            name: self.named.then_some(name),
            file: listener.try_clone().unwrap().into(),
        };
        let files = vec![pass("ingress", &self.ingress), pass("admin", &self.admin)];
        spawn_with(&node.serve_command(), files, node.home(), &self.notify_name)
    }

    /// What it was told next.
    ///
    /// # Panics
    /// When it is told nothing.
    pub fn told(&self) -> String {
        eventually("the node says something", PATIENCE, || self.told_already())
    }

    /// What it was told, if there is something.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn told_already(&self) -> Option<String> {
        let mut message = [0; 4096];
        match self.notify.recv(&mut message) {
            Ok(length) => Some(String::from_utf8(message[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits until a node says that it serves.
    ///
    /// # Panics
    /// When it says something else.
    #[track_caller]
    pub fn ready(&self) {
        let told = self.told();
        assert!(told.starts_with("READY=1\nSTATUS=ingress http://"), "{told}");
    }

    /// Waits until a node says that it ends.
    ///
    /// # Panics
    /// When it says something else.
    #[track_caller]
    pub fn stopping(&self) {
        let told = self.told();
        assert!(told.starts_with("STOPPING=1\n"), "{told}");
    }

    /// Starts a node that does not run.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch(&self, node: &mut Node) {
        let child = self.spawn(node);
        self.adopt(node, child);
    }

    /// Makes a process that was started the one of a node that has ended, and waits until it serves.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn adopt(&self, node: &mut Node, child: Child) {
        node.adopt(child, self.ingress(), self.admin.local_addr().unwrap());
        self.ready();
    }

    /// Starts a node's successor first, and then has the node end.
    ///
    /// # Panics
    /// When one of them fails to.
    pub fn hand_over(&self, node: &mut Node) {
        let before = self.waits(node);
        let successor = self.spawn(node);
        eventually("the successor waits", PATIENCE, || (self.waits(node) > before).then_some(()));
        node.signal(Signal::TERM);
        self.stopping();
        let status = node.wait();
        assert!(status.success(), "{status}");
        self.adopt(node, successor);
    }

    /// How many nodes have said that they wait for the one before.
    fn waits(&self, node: &Node) -> usize {
        node.log().matches("waits for the node before to end").count()
    }

    /// Restarts a node as systemd does: the next one is started when the one before has ended.
    ///
    /// # Panics
    /// When one of them fails to.
    pub fn restart(&self, node: &mut Node) {
        node.signal(Signal::TERM);
        self.stopping();
        let status = node.wait();
        assert!(status.success(), "{status}");
        self.launch(node);
    }
}

/// An open file that is no socket.
///
/// # Panics
/// When it cannot be made.
pub fn no_socket(folder: &Path) -> OwnedFd {
    let path = folder.join("no-socket");
    fs::write(&path, "").unwrap();
    File::open(path).unwrap().into()
}
