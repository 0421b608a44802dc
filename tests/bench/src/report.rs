//! The table, and the same as JSON.

use crate::paced::Paced;
use serde::Serialize;
use std::{fs, path::Path};

/// What one round saw of one row. CPU time and faults are per request.
pub(crate) struct Sample {
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) faults: f64,
    pub(crate) calls: Option<f64>,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) resident_mib: f64,
    pub(crate) problem: Option<String>,
}

impl Sample {
    pub(crate) fn brief(&self) -> String {
        match &self.problem {
            Some(problem) => format!("void: {problem}"),
            None => format!(
                "{:7.1} µs ({:.1} + {:.1})  {:8.0}/s  {:.2} faults",
                self.user_us + self.system_us,
                self.user_us,
                self.system_us,
                self.per_second,
                self.faults
            ),
        }
    }
}

/// A row of the table: medians of its rounds.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) isolation: &'static str,
    pub(crate) void: Option<String>,
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) faults: f64,
    pub(crate) system_calls: Option<f64>,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) resident_mib: f64,
    pub(crate) paced: Option<Paced>,
}

impl Figures {
    pub(crate) fn new(name: &str, isolation: &'static str, samples: &[Sample]) -> Self {
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value).collect());
        Self {
            name: name.to_owned(),
            isolation,
            void: samples.iter().find_map(|sample| sample.problem.clone()),
            cpu_us: of(|sample| sample.user_us + sample.system_us),
            user_us: of(|sample| sample.user_us),
            system_us: of(|sample| sample.system_us),
            faults: of(|sample| sample.faults),
            system_calls: samples
                .iter()
                .all(|sample| sample.calls.is_some())
                .then(|| of(|sample| sample.calls.unwrap_or_default())),
            per_second: of(|sample| sample.per_second),
            p50_ms: of(|sample| sample.p50_ms),
            p99_ms: of(|sample| sample.p99_ms),
            resident_mib: of(|sample| sample.resident_mib),
            paced: None,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The row that the others are compared with.
pub(crate) const LIMIT: &str = "native hyper";

/// Prints the table as Markdown.
pub(crate) fn print(figures: &[Figures]) {
    let limit = figures.iter().find(|row| row.name == LIMIT).map(|row| row.cpu_us);
    println!(
        "| server | isolation | CPU-µs | user + sys | ÷ {LIMIT} | req/s | p50 / p99 ms | paced p50 / p99 / p99.9 ms | faults | calls | RSS MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for row in figures {
        if let Some(problem) = &row.void {
            println!("| {} | {} | void: {problem} |||||||||", row.name, row.isolation);
            continue;
        }
        println!(
            "| {} | {} | {:.1} | {:.1} + {:.1} | {} | {:.0} | {:.2} / {:.2} | {} | {:.2} | {} | {:.0} |",
            row.name,
            row.isolation,
            row.cpu_us,
            row.user_us,
            row.system_us,
            limit.map_or("–".to_owned(), |limit| format!("{:.2}", row.cpu_us / limit)),
            row.per_second,
            row.p50_ms,
            row.p99_ms,
            row.paced.as_ref().map_or("–".to_owned(), Paced::cell),
            row.faults,
            row.system_calls.map_or("–".to_owned(), |calls| format!("{calls:.1}")),
            row.resident_mib,
        );
    }
}

/// Writes the same figures as JSON.
pub(crate) fn store(path: &Path, figures: &[Figures]) {
    let text = serde_json::to_string_pretty(figures).expect("figures are JSON");
    fs::write(path, text + "\n").expect("the folder takes files");
    eprintln!("{} has the figures", path.display());
}
