//! Measures what a request costs the server: CPU time, page faults, latency, memory; in turn for
//! `faas`, for the limit (`native-hyper`) and for whatever peers are installed.
//!
//! Servers get one core, the load the other one. Rounds are interleaved, so that what the machine
//! does meanwhile happens to all; figures are medians, and only their ratios mean something
//! elsewhere. An answer that is not the expected one voids its row.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for whoever works on faas: a failure ends it, its output is text"
)]

mod load;
mod many;
mod paced;
mod process;
mod report;
mod rows;

use clap::Parser;
use report::Sample;
use rows::{Bench, Builds};
use std::path::PathBuf;

/// What a request costs the server, side by side.
#[derive(Parser)]
struct Args {
    /// How often each row is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for each row and round; CPU time is counted in steps of 10 ms.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections that are kept busy.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Requests per second of the run at a fixed rate; 0 leaves it out.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Only rows whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Instead of the table: one node with so many functions; first calls; requests asleep.
    #[arg(long, default_value_t = 0)]
    many: usize,
    /// Measures nothing: works through every function, for a binary that writes a profile.
    #[arg(long)]
    train: bool,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// The `faas` to measure.
    #[arg(long, default_value = "target/release/faas")]
    faas: PathBuf,
    /// The same built another way, measured beside it where it is there.
    #[arg(long, default_value = "target/pgo/faas")]
    guided: PathBuf,
    /// Where peers are installed: `bin/wasmtime`, `node_modules/.bin/{workerd,deno}`.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
}

fn main() {
    let args = Args::parse();
    rows::require_artifacts();
    if args.many > 0 {
        let many = serde_json::to_string_pretty(&many::run(&args.faas, args.many));
        return println!("{}", many.expect("numbers"));
    }
    if args.train {
        return rows::train(&args.faas, args.connections, args.seconds);
    }
    let builds = Builds { plain: &args.faas, guided: &args.guided, peers: &args.peers };
    let bench = Bench::start(&builds, &args.only);
    let rows = &bench.rows;
    assert!(!rows.is_empty(), "no row is left");
    let mut samples: Vec<Vec<Sample>> = rows.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        for step in 0..rows.len() {
            // Nobody is always first, or always behind the same other.
            let index = (round + step) % rows.len();
            let sample = bench.measure(&rows[index], args.connections, args.seconds);
            eprintln!("round {} {:<44} {}", round + 1, rows[index].name, sample.brief());
            samples[index].push(sample);
        }
    }
    let mut figures: Vec<_> =
        rows.iter().zip(&samples).map(|(row, samples)| row.figures(samples)).collect();
    if args.rate > 0 {
        for (row, figures) in rows.iter().zip(&mut figures).filter(|(row, _)| row.is_small()) {
            // Half of what it can do, at most: a queue that only grows measures nothing.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "requests per second are a small positive number"
            )]
            let rate = args.rate.min((figures.per_second / 2.0) as u64).max(1);
            let paced = paced::run(row.address, &row.path, rate, args.seconds);
            eprintln!("paced {:<44} {}", row.name, paced.brief());
            figures.paced = Some(paced);
        }
    }
    report::print(&figures);
    report::store(&args.json, &figures);
}
