//! What lies between a client and a server: a test decides what gets through.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What becomes of a piece that a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The server gets it.
    Pass,
    /// Nobody gets it, and the connection ends on both sides.
    Cut,
    /// Nobody gets it; the connection stays.
    Swallow,
}

type Meddle = Box<dyn FnMut(&[u8]) -> Fate + Send>;

/// An address whose connections lead to a server.
pub struct Relay {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
}

impl Relay {
    /// Leads to this server. `meddle` sees each piece that a client sends before the server does.
    ///
    /// # Panics
    /// When there is no port.
    pub fn to(server: SocketAddr, meddle: impl FnMut(&[u8]) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Mutex::new(server));
        let (leads_to, meddle) = (server.clone(), Arc::new(Mutex::new(Box::new(meddle) as Meddle)));
        // It ends with the tests.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = *leads_to.lock().unwrap();
                let meddle = meddle.clone();
                thread::spawn(move || connect(client, server, &meddle));
            }
        });
        Self { address, server }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections elsewhere.
    ///
    /// # Panics
    /// When a thread of it has panicked.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }
}

fn connect(mut client: TcpStream, server: SocketAddr, meddle: &Mutex<Meddle>) {
    // A server that is not there is one that hangs up.
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        // Whoever ends it first, there is nobody left to tell.
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = client.read(&mut piece) {
        let fate = meddle.lock().unwrap()(&piece[..length]);
        let ended = match fate {
            Fate::Pass => server.write_all(&piece[..length]).is_err(),
            Fate::Swallow => false,
            Fate::Cut => true,
        };
        if ended {
            break;
        }
    }
    for stream in [client, server] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
