//! A server that plays the admin API: it answers what a test tells it to, and remembers what it
//! was asked.

use faas_api::{ErrorBody, ErrorCode};
use serde::Serialize;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// What was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `GET /v1/apps`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What is answered.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// Sent piece by piece; ends when the sender is dropped.
    Pieces(mpsc::Receiver<String>),
    /// Some bytes, then the connection breaks.
    Cut(Vec<u8>),
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::new(200, serde_json::to_vec(value).unwrap())
    }

    /// JSON lines.
    pub(crate) fn lines<T: Serialize>(values: &[T]) -> Self {
        Self::new(200, lines(values))
    }

    pub(crate) fn cut_lines<T: Serialize>(values: &[T]) -> Self {
        let body = Body::Cut(lines(values));
        Self { status: 200, headers: Vec::new(), body }
    }

    pub(crate) fn pieces(pieces: mpsc::Receiver<String>) -> Self {
        Self { status: 200, headers: Vec::new(), body: Body::Pieces(pieces) }
    }

    pub(crate) fn error(code: ErrorCode) -> Self {
        Self::problem(&ErrorBody::new(code))
    }

    pub(crate) fn problem(body: &ErrorBody) -> Self {
        Self::new(body.status, serde_json::to_vec(body).unwrap())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn lines<T: Serialize>(values: &[T]) -> Vec<u8> {
    let line = |value| serde_json::to_string(value).unwrap() + "\n";
    values.iter().map(line).collect::<String>().into_bytes()
}

pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by this function, on a free port.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || {
                    let request = read(&connection);
                    seen.lock().unwrap().push(request.clone());
                    // The client may have left; that is its affair.
                    let _ = reply(&connection, answer(&request));
                });
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same server by an address that is not a loopback one.
    pub(crate) fn other_url(&self) -> String {
        format!("http://0.0.0.0:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The lines of what was asked, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

/// An address where nothing listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn read(connection: &TcpStream) -> Request {
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let start = line();
    let mut words = start.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let header = line();
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").unwrap_or("0");
    request.body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut request.body).unwrap();
    request
}

fn reply(mut connection: &TcpStream, reply: Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Words\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.body {
        Body::Whole(bytes) => {
            // No length with 204 (RFC 9110 §8.6).
            if reply.status != 204 {
                head.push_str(&format!("content-length: {}\r\n", bytes.len()));
            }
            write!(connection, "{head}\r\n")?;
            connection.write_all(&bytes)
        }
        Body::Pieces(pieces) => {
            write!(connection, "{head}transfer-encoding: chunked\r\n\r\n")?;
            for piece in pieces {
                write!(connection, "{:x}\r\n{piece}\r\n", piece.len())?;
            }
            write!(connection, "0\r\n\r\n")
        }
        Body::Cut(bytes) => {
            write!(connection, "{head}content-length: {}\r\n\r\n", bytes.len() + 1)?;
            connection.write_all(&bytes)
        }
    }
}
