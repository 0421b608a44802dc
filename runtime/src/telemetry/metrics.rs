//! Every metric of a node: name, help, labels. Labels are only app, function, version, code class
//! and reason – never text that a client or a guest chose.

use super::usage::{Bill, Counters, Ledger};
use faas_api::{AppName, FunctionName, VersionId};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
    core::{AtomicF64, GenericCounter, GenericCounterVec},
};
use std::{sync::Arc, time::Duration};

/// Bounds of `faas_request_duration_seconds`: half a millisecond to a minute.
const REQUEST_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Bounds of `faas_instance_start_seconds`: five microseconds to a tenth of a second.
const START_SECONDS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1,
];
/// Bounds of `faas_compile_seconds`.
const COMPILE_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The label of requests that reached no app.
pub(crate) const NO_APP: &str = "-";

type SecondsCounter = GenericCounter<AtomicF64>;
type SecondsCounterVec = GenericCounterVec<AtomicF64>;

/// The node's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// What is billed.
    pub(crate) ledger: Arc<Ledger>,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    cold_starts: IntCounterVec,
    active: IntGaugeVec,
    cpu_seconds: SecondsCounterVec,
    memory_peak: IntGaugeVec,
    guest_failures: IntCounterVec,
    rejected: IntCounterVec,
    outbound: IntCounterVec,
    outbound_limits: IntCounterVec,
    /// Connections to other servers.
    pub(crate) outbound_connections: IntGauge,
    log_lines_dropped: IntCounterVec,
    deploys: IntCounterVec,
    /// Connections of the ingress.
    pub(crate) connections: ConnectionMetrics,
    /// Time from an instance's request to its first instruction.
    pub(crate) instance_start: Histogram,
    /// Bytes of response bodies that were handed to clients.
    pub(crate) response_bytes: IntCounter,
    /// Bytes of request bodies that were read from clients.
    pub(crate) request_bytes: IntCounter,
    /// Time of the compile process per artifact.
    pub(crate) compile_seconds: Histogram,
    /// Functions whose native code is loaded.
    pub(crate) functions_loaded: IntGauge,
    /// Functions that are out of service for a while.
    pub(crate) functions_quarantined: IntGauge,
    /// Native code that was refused and rebuilt because it was not what this node wrote.
    pub(crate) cache_rejected: IntCounter,
}

/// What is counted of connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    /// Those of the ingress that are open.
    pub(crate) open: IntGauge,
    rejected: IntCounterVec,
}

impl ConnectionMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            open: gauge(registry, "faas_connections_open", "Connections of clients")?,
            rejected: counters(
                registry,
                "faas_connections_rejected_total",
                "Connections that were closed because their address had too many (`address`), to make \
                 `room` for others, or because they held too much `memory`",
                &["reason"],
            )?,
        })
    }

    /// Counts connections that were closed for a reason that is not theirs alone.
    pub(crate) fn rejected(&self, reason: &str, number: u64) {
        self.rejected.with_label_values(&[reason]).inc_by(number);
    }
}

/// The handles of one function of one version, looked up once per deploy and not per request.
pub(crate) struct FunctionMetrics {
    /// Requests by the class of their status: 1xx … 5xx.
    requests: [IntCounter; 5],
    seconds: Histogram,
    cold_starts: IntCounter,
    /// Instances at work.
    pub(crate) active: IntGauge,
    cpu_seconds: SecondsCounter,
    memory_peak: IntGauge,
    guest_failures: IntCounterVec,
    rejected: IntCounterVec,
    usage: Arc<Counters>,
    outbound: IntCounterVec,
    outbound_limits: IntCounterVec,
    app: AppName,
    function: FunctionName,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics share a name, which a test rules out.
    #[expect(clippy::too_many_lines, reason = "one line per metric: the list is the point")]
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let function = ["app", "function"];
        let metrics = Self {
            requests: counters(
                r,
                "faas_requests_total",
                "Requests answered, by class of status",
                &["app", "function", "version", "code"],
            )?,
            request_seconds: histograms(
                r,
                "faas_request_duration_seconds",
                "Time from a request's head to the end of its answer",
                REQUEST_SECONDS,
                &function,
            )?,
            cold_starts: counters(
                r,
                "faas_cold_starts_total",
                "Loads of a function's native code",
                &function,
            )?,
            active: gauges(r, "faas_instances_active", "Instances at work", &function)?,
            cpu_seconds: seconds(
                r,
                "faas_cpu_seconds_total",
                "CPU time of guests and their host calls",
                &function,
            )?,
            memory_peak: gauges(
                r,
                "faas_memory_peak_bytes",
                "Largest linear memory of one instance since the node started",
                &function,
            )?,
            guest_failures: counters(
                r,
                "faas_guest_failures_total",
                "Calls that failed by the function's fault",
                &["app", "function", "reason"],
            )?,
            rejected: counters(
                r,
                "faas_rejected_total",
                "Requests refused before a function ran",
                &["app", "reason"],
            )?,
            outbound: counters(
                r,
                "faas_outbound_requests_total",
                "Requests that functions sent, by class of status, `denied` or `error`",
                &["app", "function", "code"],
            )?,
            outbound_limits: counters(
                r,
                "faas_outbound_limits_total",
                "Requests that functions sent and that a limit refused or cut off, by limit",
                &["app", "function", "limit"],
            )?,
            outbound_connections: gauge(
                r,
                "faas_outbound_connections",
                "Connections to servers that functions sent requests to, idle ones included",
            )?,
            log_lines_dropped: counters(
                r,
                "faas_log_lines_dropped_total",
                "Log lines of functions that nobody can read: cut off, or displaced before they were on disk",
                &["app"],
            )?,
            deploys: counters(r, "faas_deploys_total", "Deploys, by result", &["result"])?,
            connections: ConnectionMetrics::new(r)?,
            instance_start: histogram(
                r,
                "faas_instance_start_seconds",
                "Time to make an instance",
                START_SECONDS,
            )?,
            response_bytes: counter(
                r,
                "faas_response_bytes_total",
                "Bytes of response bodies sent",
            )?,
            request_bytes: counter(
                r,
                "faas_request_bytes_total",
                "Bytes of request bodies received",
            )?,
            compile_seconds: histogram(
                r,
                "faas_compile_seconds",
                "Time to compile an artifact",
                COMPILE_SECONDS,
            )?,
            functions_loaded: gauge(
                r,
                "faas_functions_loaded",
                "Functions whose native code is in memory",
            )?,
            functions_quarantined: gauge(
                r,
                "faas_functions_quarantined",
                "Functions that are out of service for a while because they failed repeatedly",
            )?,
            cache_rejected: counter(
                r,
                "faas_cache_rejected_total",
                "Native code that was not what this node wrote, and was rebuilt",
            )?,
            registry: registry.clone(),
            ledger: Arc::default(),
        };
        let build = gauges(r, "faas_build_info", "The build, as a label", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The handles of a function.
    pub(crate) fn function(
        &self,
        app: &AppName,
        function: &FunctionName,
        version: VersionId,
    ) -> FunctionMetrics {
        let usage = self.ledger.open(app, function, version);
        let version = version.to_string();
        let labels = [app.as_str(), function.as_str()];
        let class = |code: &str| {
            self.requests.with_label_values(&[app.as_str(), function.as_str(), &version, code])
        };
        FunctionMetrics {
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            seconds: self.request_seconds.with_label_values(&labels),
            cold_starts: self.cold_starts.with_label_values(&labels),
            active: self.active.with_label_values(&labels),
            cpu_seconds: self.cpu_seconds.with_label_values(&labels),
            memory_peak: self.memory_peak.with_label_values(&labels),
            guest_failures: self.guest_failures.clone(),
            rejected: self.rejected.clone(),
            usage,
            outbound: self.outbound.clone(),
            outbound_limits: self.outbound_limits.clone(),
            app: app.clone(),
            function: function.clone(),
        }
    }

    /// Log lines of an app that nobody can read: cut off, or displaced before they were on disk.
    pub(crate) fn log_lines_dropped(&self, app: &AppName) -> IntCounter {
        self.log_lines_dropped.with_label_values(&[app.as_str()])
    }

    /// Counts a request that reached no function.
    pub(crate) fn unrouted(&self, status: u16, reason: &str) {
        self.requests.with_label_values(&[NO_APP, NO_APP, NO_APP, class_name(status)]).inc();
        self.rejected.with_label_values(&[NO_APP, reason]).inc();
    }

    /// Counts a deploy.
    pub(crate) fn deploy(&self, result: &str) {
        self.deploys.with_label_values(&[result]).inc();
    }

    /// Forgets a version that is no longer kept.
    pub(crate) fn forget_version(
        &self,
        app: &AppName,
        function: &FunctionName,
        version: VersionId,
    ) {
        let version = version.to_string();
        for code in ["1xx", "2xx", "3xx", "4xx", "5xx"] {
            // An absent series is what we want; the error only says that it already is.
            let _ = self.requests.remove_label_values(&[
                app.as_str(),
                function.as_str(),
                &version,
                code,
            ]);
        }
    }

    /// Everything, as Prometheus reads it.
    ///
    /// # Errors
    /// When a metric cannot be written as text, which does not happen to registered ones.
    pub(crate) fn render(&self) -> prometheus::Result<String> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl FunctionMetrics {
    /// Counts an answered request.
    pub(crate) fn request(&self, status: u16, duration: Duration) {
        if let Some(counter) = self.requests.get(class_index(status)) {
            counter.inc();
        }
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Counts a request that the function ran for, once it has ended, with the bytes of its body
    /// and of its answer's.
    pub(crate) fn invoked(&self, bytes_in: u64, bytes_out: u64) {
        self.usage.request(bytes_in, bytes_out);
    }

    /// Counts what a call used, once its guest has ended.
    pub(crate) fn bill(&self, bill: &Bill) {
        self.usage.bill(bill);
        self.cpu_seconds.inc_by(bill.cpu.as_secs_f64());
        let memory_peak = i64::try_from(bill.memory_peak).unwrap_or(i64::MAX);
        if memory_peak > self.memory_peak.get() {
            self.memory_peak.set(memory_peak);
        }
    }

    /// Counts a load of native code.
    pub(crate) fn cold_start(&self) {
        self.cold_starts.inc();
    }

    /// Counts a call that failed by the function's fault.
    pub(crate) fn failure(&self, reason: &str) {
        self.usage.failure();
        self.guest_failures
            .with_label_values(&[self.app.as_str(), self.function.as_str(), reason])
            .inc();
    }

    /// Counts a request that the function sent.
    pub(crate) fn outbound(&self, code: &str) {
        let labels = [self.app.as_str(), self.function.as_str(), code];
        self.outbound.with_label_values(&labels).inc();
    }

    /// Counts a limit of what the function sends.
    pub(crate) fn outbound_limit(&self, limit: &str) {
        let labels = [self.app.as_str(), self.function.as_str(), limit];
        self.outbound_limits.with_label_values(&labels).inc();
    }

    /// Counts a request that was refused before the function ran.
    pub(crate) fn rejected(&self, reason: &str) {
        self.rejected.with_label_values(&[self.app.as_str(), reason]).inc();
    }
}

fn class_index(status: u16) -> usize {
    usize::from((status / 100).clamp(1, 5)) - 1
}

fn class_name(status: u16) -> &'static str {
    ["1xx", "2xx", "3xx", "4xx", "5xx"].get(class_index(status)).copied().unwrap_or("5xx")
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn seconds(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<SecondsCounterVec> {
    let metric = SecondsCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> prometheus::Result<Histogram> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let metric =
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_counts_under_its_labels_and_is_forgotten() {
        let metrics = Metrics::new().unwrap();
        let (app, function) = ("hello".parse().unwrap(), "main".parse().unwrap());
        let version = VersionId::new(3);
        let handles = metrics.function(&app, &function, version);
        handles.request(204, Duration::from_millis(2));
        let cpu = Duration::from_millis(1);
        handles.bill(&Bill { cpu, memory_peak: 65536, ..Bill::default() });
        metrics.unrouted(404, "not_found");
        let text = metrics.render().unwrap();
        assert!(
            text.contains(
                r#"faas_requests_total{app="hello",code="2xx",function="main",version="v3"} 1"#
            ),
            "{text}"
        );
        assert!(
            text.contains(r#"faas_requests_total{app="-",code="4xx",function="-",version="-"} 1"#)
        );
        assert!(text.contains(r#"faas_memory_peak_bytes{app="hello",function="main"} 65536"#));
        metrics.forget_version(&app, &function, version);
        assert!(!metrics.render().unwrap().contains(r#"version="v3""#));
    }
}
