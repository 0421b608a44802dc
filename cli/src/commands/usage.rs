//! `faas usage [APP]`

use super::logs;
use crate::{
    args,
    context::Context,
    error::{CliError, Result},
    format::{self, Table},
    ui::Outcome,
};
use faas_api::{Usage, UsageBy, UsageGroup, UsageReport, UsageRow};
use jiff::{Timestamp, tz::TimeZone};

pub(crate) async fn run(context: &Context, args: args::Usage) -> Result<Outcome> {
    let args::Usage { app, all, since, until, by, group, csv } = args;
    if csv && context.ui.is_json() {
        return Err(CliError::usage("`--csv` and `-o json` are two forms of one result")
            .hint("leave out one of them"));
    }
    for (name, time) in [("--since", &since), ("--until", &until)] {
        time.as_deref().map_or(Ok(()), |time| logs::check_time(name, time))?;
    }
    let app = logs::app(app, all)?;
    let mut query = vec![("by", by)];
    query.extend(since.map(|since| ("since", since)));
    query.extend(until.map(|until| ("until", until)));
    query.extend(group.map(|group| ("group", group)));
    let report = context.client()?.usage(app.as_ref(), &query).await?;
    if csv {
        return Outcome::new(&report, report.to_csv());
    }
    if report.rows.is_empty() {
        let since = moment(report.since, UsageBy::Hour);
        context.ui.notice(&format!("nothing was used since {since} UTC"));
        return Outcome::new(&report, "");
    }
    Outcome::new(&report, table(&report, app.is_none()).to_text())
}

fn table(report: &UsageReport, of_all_apps: bool) -> Table {
    let UsageReport { by, group, rows, total, .. } = report;
    let shows = Shows {
        start: *by != UsageBy::Total,
        app: of_all_apps || *group == UsageGroup::App,
        function: *group != UsageGroup::App,
        version: *group == UsageGroup::Version,
        outbound: total.outbound_requests > 0,
    };
    let header = [
        (shows.start, if *by == UsageBy::Day { "DAY (UTC)" } else { "HOUR (UTC)" }),
        (shows.app, "APP"),
        (shows.function, "FUNCTION"),
        (shows.version, "VERSION"),
        (true, "REQUESTS"),
        (true, "FAILED"),
        (true, "CPU"),
        (true, "MEMORY"),
        (true, "IN"),
        (true, "OUT"),
        (shows.outbound, "OUTBOUND"),
    ];
    let mut table = Table::of(chosen(header.map(|(shown, text)| (shown, text.to_owned()))));
    for row in rows {
        let UsageRow { start, app, function, version, usage } = row;
        let names = [
            start.map(|start| moment(start, *by)).unwrap_or_default(),
            app.to_string(),
            function.as_ref().map(ToString::to_string).unwrap_or_default(),
            version.map(|version| version.to_string()).unwrap_or_default(),
        ];
        table.push(shows.cells(names, usage));
    }
    if rows.len() > 1 {
        let names: [String; 4] = Default::default();
        let mut cells = shows.cells(names, total);
        if let Some(first) = cells.first_mut() {
            "total".clone_into(first);
        }
        table.push(cells);
    }
    table
}

/// Which columns there are, besides those that always are.
#[expect(clippy::struct_excessive_bools, reason = "one for each column")]
struct Shows {
    start: bool,
    app: bool,
    function: bool,
    version: bool,
    outbound: bool,
}

impl Shows {
    fn cells(&self, [start, app, function, version]: [String; 4], usage: &Usage) -> Vec<String> {
        chosen([
            (self.start, start),
            (self.app, app),
            (self.function, function),
            (self.version, version),
            (true, format::count(usage.requests)),
            (true, format::share(usage.failures, usage.requests)),
            (true, format::work(usage.cpu_ms)),
            (true, format::memory_time(usage.gb_s)),
            (true, format::size(usage.bytes_in)),
            (true, format::size(usage.bytes_out)),
            (self.outbound, format::count(usage.outbound_requests)),
        ])
    }
}

fn chosen<const N: usize>(cells: [(bool, String); N]) -> Vec<String> {
    cells.into_iter().filter_map(|(shown, cell)| shown.then_some(cell)).collect()
}

/// The beginning of a row's time. The hours of bills are those of UTC.
fn moment(time: Timestamp, by: UsageBy) -> String {
    let pattern = if by == UsageBy::Day { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M" };
    time.to_zoned(TimeZone::UTC).strftime(pattern).to_string()
}
