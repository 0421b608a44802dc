//! The test guest as a component of WASI 0.3.

mod attack;
mod fetch;
mod hoard;

use guest_common::{Answer, Plan, Seen, piece, plan, spin, surroundings, trap};

use std::time::Duration;
use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::sockets::{ip_name_lookup, types as sockets};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

wasip3::http::service::export!(Guest);

struct Guest;

/// How a body ends.
type End = Result<Option<Trailers>, ErrorCode>;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        Ok(match plan(&seen(&request)) {
            Plan::Answer(answer) => send(&answer),
            Plan::Echo => echo(request),
            Plan::Pass => {
                let (body, trailers) = consume(request);
                Response::new(Fields::new(), Some(body), trailers).0
            }
            Plan::Length => {
                let length = length(request).await;
                send(&Answer::text(format!("{length}\n")))
            }
            Plan::Ignore => send(&Answer::text("ignored\n")),
            Plan::Sleep(time) => {
                sleep(time).await;
                send(&Answer::text("slept\n"))
            }
            Plan::Pieces { pieces, bytes, pause, trap: ends_badly } => {
                let (response, mut body, end) = begin(200, &[])?;
                spawn_local(async move {
                    for number in 0..pieces {
                        if number > 0 && !pause.is_zero() {
                            sleep(pause).await;
                        }
                        let rest = body.write_all(piece(number * bytes as u64, bytes)).await;
                        if !rest.is_empty() {
                            return;
                        }
                    }
                    if ends_badly {
                        trap();
                    }
                    drop(body);
                    drop(end);
                });
                response
            }
            // There is no way to return without one, but to never return.
            Plan::NoResponse => std::future::pending().await,
            Plan::Bad(what) => bad(&what)?,
            Plan::Attack(what) => attack::attack(&request, &what).await?,
            Plan::After { wait } => {
                let (response, mut body, end) = begin(200, &[])?;
                spawn_local(async move {
                    let _ = body.write_all(b"ended\n".to_vec()).await;
                    drop((body, end));
                    match wait {
                        Some(time) => {
                            sleep(time).await;
                            eprintln!("went on");
                        }
                        None => spin(),
                    }
                });
                response
            }
            Plan::Hoard { what, most } => {
                hoard::hoard(&what, most);
                send(&Answer::text("held\n"))
            }
            Plan::Fetch(wanted) => fetch::fetch(&wanted).await,
            Plan::Environment { target } => {
                let text = format!("{}{}", surroundings(&target), reach(&target).await);
                send(&Answer::text(text))
            }
        })
    }
}

fn seen(request: &Request) -> Seen {
    let path = request.get_path_with_query().unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    let headers = request.get_headers().copy_all().into_iter();
    Seen {
        method: match request.get_method() {
            Method::Other(name) => name,
            known => format!("{known:?}").replace("Method::", "").to_uppercase(),
        },
        path: path.to_owned(),
        query: query.to_owned(),
        scheme: format!("{:?}", request.get_scheme()),
        authority: request.get_authority().unwrap_or_default(),
        headers: headers
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect(),
    }
}

async fn sleep(time: Duration) {
    monotonic_clock::wait_for(time.as_nanos() as u64).await;
}

/// A response, and both ends that its body is written with.
fn begin(
    status: u16,
    headers: &[(String, String)],
) -> Result<(Response, StreamWriter<u8>, FutureWriter<End>), ErrorCode> {
    let list: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let refused = |what: String| ErrorCode::InternalError(Some(what));
    let fields = Fields::from_list(&list).map_err(|error| refused(format!("{error:?}")))?;
    let (writer, body) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(body), trailers);
    response.set_status_code(status).map_err(|()| refused(format!("status {status}")))?;
    Ok((response, writer, end))
}

fn send(answer: &Answer) -> Response {
    let (response, mut writer, end) = begin(answer.status, &answer.headers).unwrap();
    let body = answer.body.clone();
    spawn_local(async move {
        // The client may not want it all.
        let _ = writer.write_all(body).await;
        drop(writer);
        drop(end);
    });
    response
}

fn consume(request: Request) -> (StreamReader<u8>, FutureReader<End>) {
    let (_, result) = wit_future::new(|| Ok(()));
    Request::consume_body(request, result)
}

fn echo(request: Request) -> Response {
    let (mut input, trailers) = consume(request);
    // Over HTTP/1.1 only trailers that were announced are sent (RFC 9110 §6.6.2).
    let announced = [("trailer".to_owned(), "x-sum".to_owned())];
    let (response, mut output, end) = begin(200, &announced).unwrap();
    spawn_local(async move {
        let mut buffer = Vec::with_capacity(64 << 10);
        loop {
            let (result, bytes) = input.read(buffer).await;
            if !bytes.is_empty() {
                buffer = output.write_all(bytes).await;
                if !buffer.is_empty() {
                    return;
                }
            } else {
                buffer = bytes;
            }
            if !matches!(result, StreamResult::Complete(_)) {
                break;
            }
        }
        drop(output);
        // A body that broke off must not look complete.
        let _ = end.write(trailers.await).await;
    });
    response
}

async fn length(request: Request) -> usize {
    let (mut input, trailers) = consume(request);
    let mut length = 0;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        let (result, mut bytes) = input.read(buffer).await;
        length += bytes.len();
        bytes.clear();
        buffer = bytes;
        if !matches!(result, StreamResult::Complete(_)) {
            break;
        }
    }
    match trailers.await {
        Ok(_) => length,
        Err(_) => trap(),
    }
}

fn bad(what: &str) -> Result<Response, ErrorCode> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (headers, body): (Vec<_>, &[u8]) = match what {
        "short" => (vec![pair("content-length", "10")], b"abc"),
        "long" => (vec![pair("content-length", "3")], b"abcdefghij"),
        "twice" => (vec![pair("content-length", "3"), pair("content-length", "4")], b"abc"),
        "chunked" => (vec![pair("transfer-encoding", "chunked")], b"3\r\nabc\r\n0\r\n\r\n"),
        "connection" => (vec![pair("connection", "upgrade")], b"abc"),
        "control" => (vec![pair("x-a", "a\u{1}b")], b"abc"),
        "error" => return Err(ErrorCode::InternalError(Some("xyzzy".into()))),
        "platform" => (
            vec![
                pair("x-request-id", "forged"),
                pair("x-faas-version", "v99"),
                pair("x-faas-error", "forged"),
            ],
            b"abc",
        ),
        _ => (vec![], b""),
    };
    let status = match what {
        "status" => 99,
        "informational" => 101,
        _ => 200,
    };
    let (response, mut writer, end) = begin(status, &headers)?;
    let body = body.to_vec();
    spawn_local(async move {
        let _ = writer.write_all(body).await;
        drop(writer);
        drop(end);
    });
    Ok(response)
}

/// What can be reached through the interfaces of WASI 0.3.
async fn reach(target: &str) -> String {
    let outcome = |result: Result<(), String>| match result {
        Ok(()) => "ALLOWED".to_owned(),
        Err(error) => format!("denied: {error}"),
    };
    let port = target.rsplit(':').next().and_then(|port| port.parse().ok());
    let address = sockets::IpSocketAddress::Ipv4(sockets::Ipv4SocketAddress {
        port: port.unwrap_or(9),
        address: (127, 0, 0, 1),
    });
    let socket = sockets::TcpSocket::create(sockets::IpAddressFamily::Ipv4);
    let tcp = match socket {
        Ok(socket) => {
            let connected = socket.connect(address).await;
            connected.map_err(|error| format!("{error:?}"))
        }
        Err(error) => Err(format!("{error:?}")),
    };
    let dns = ip_name_lookup::resolve_addresses("localhost".to_owned()).await;
    let dns = dns.map(drop).map_err(|error| format!("{error:?}"));
    format!(
        "tcp-0.3 {}\ndns-0.3 {}\nhttp {}\n",
        outcome(tcp),
        outcome(dns),
        outcome(outbound(target).await)
    )
}

async fn outbound(target: &str) -> Result<(), String> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(target));
    let _ = request.set_path_with_query(Some("/"));
    let answer = client::send(request).await;
    answer.map(drop).map_err(|error| format!("{error:?}"))
}
