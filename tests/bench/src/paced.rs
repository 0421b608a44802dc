//! Load at a fixed rate: requests leave when they are due, whether or not earlier ones are
//! answered, and latency counts from when they were due. A server that stalls cannot hide it by
//! slowing its clients down.

use crate::process::LOAD_CORE;
use serde::Serialize;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

const CONNECTIONS: u32 = 64;

/// What clients saw of a fixed rate.
#[derive(Serialize, Clone)]
pub(crate) struct Paced {
    rate: u64,
    sent: usize,
    failed: usize,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
}

impl Paced {
    pub(crate) fn brief(&self) -> String {
        format!(
            "{}/s: p50 {:.2} p99 {:.2} p99.9 {:.2} ms, {} of {} failed",
            self.rate, self.p50_ms, self.p99_ms, self.p999_ms, self.failed, self.sent
        )
    }

    pub(crate) fn cell(&self) -> String {
        match self.failed {
            0 => format!(
                "{:.2} / {:.2} / {:.2} at {}/s",
                self.p50_ms, self.p99_ms, self.p999_ms, self.rate
            ),
            failed => format!("{failed} failed"),
        }
    }
}

/// Asks `rate` times a second for some seconds.
pub(crate) fn run(address: SocketAddr, path: &str, rate: u64, seconds: u64) -> Paced {
    pin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let begin = Instant::now() + Duration::from_millis(100);
    let clients = LocalSet::new();
    let total = u32::try_from(rate * seconds).unwrap_or(u32::MAX);
    let gap = Duration::from_secs_f64(1.0 / f64::from(u32::try_from(rate).unwrap_or(u32::MAX)));
    for first in 0..CONNECTIONS {
        let (latencies, head) = (latencies.clone(), head.clone());
        clients.spawn_local(async move {
            let mut stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let mut buffer = vec![0; 64 << 10];
            for number in (first..total).step_by(CONNECTIONS as usize) {
                let due = begin + gap * number;
                until(due).await;
                stream.write_all(head.as_bytes()).await.ok()?;
                read_answer(&mut stream, &mut buffer).await?;
                latencies.borrow_mut().push(due.elapsed().as_secs_f64() * 1000.0);
            }
            Some(())
        });
    }
    runtime.block_on(clients);
    let mut latencies = latencies.take();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list"
        )]
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).or(latencies.last()).copied().unwrap_or(f64::NAN)
    };
    Paced {
        rate,
        sent: total as usize,
        failed: total as usize - latencies.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
    }
}

/// Timers are good for a millisecond; the last ones are spent looking at the clock.
async fn until(due: Instant) {
    let early = due.checked_sub(Duration::from_millis(2)).unwrap_or(due);
    tokio::time::sleep_until(early.into()).await;
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// Reads one successful answer with a length or in chunks.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(buffer.get_mut(filled..)?).await.ok().filter(|read| *read > 0)?;
        filled += read;
        let so_far = buffer.get(..filled)?;
        let Some(end) = so_far.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(so_far.get(..end)?).ok()?.to_ascii_lowercase();
        head.starts_with("http/1.1 200").then_some(())?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let whole = match length {
            Some(length) => filled >= end + 4 + length.trim().parse::<usize>().ok()?,
            None => so_far.ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return Some(());
        }
    }
}

/// The load's core is this thread's.
fn pin() {
    let core = LOAD_CORE.parse().expect("a number");
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores).expect("two cores");
}
