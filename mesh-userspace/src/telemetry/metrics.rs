//! A moment of the daemon as Prometheus text. The kernel and the proxy count; this only names and prints what they counted.

pub use super::text::Family;
use super::{
    http_metrics::{self, HttpReport},
    text::{Bounds, Kind, Text, histogram, number, whole},
    traces::TraceReport,
};
use mesh_common::{
    breaker::State,
    endpoint::{EndpointCounts, EndpointTimes},
    histogram::{FINITE, Histogram, bound_us},
    reason::{Failure, Reason, ServiceCounts},
};
use prometheus::{core::Collector, process_collector::ProcessCollector};

/// Everything that is exported, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name.
    pub services: Vec<ServiceReport>,
    /// What became of requests.
    pub http: HttpReport,
    /// What cannot be counted, and so is left out.
    pub uncounted: Uncounted,
    /// The kernel programs: name, and whether it is at work.
    pub attached: Vec<(&'static str, bool)>,
    /// The kernel programs, where statistics are switched on: name, runs, nanoseconds in all.
    pub programs: Vec<ProgramRuns>,
    /// The kernel's tables: name, entries in use, capacity, bytes.
    pub maps: Vec<MapUse>,
    /// Where services come from.
    pub sources: Vec<SourceReport>,
    /// Configurations that were refused.
    pub reload_failures: u64,
    /// Whether the last one is not in force, because it was refused.
    pub configuration_refused: bool,
    /// Whether a probe was intercepted; `None`: not known.
    pub interception_ok: Option<bool>,
    /// Whether the kill switch is on.
    pub bypass: bool,
    /// What did not fit into the tables.
    pub problems: u64,
    /// What became of traces.
    pub traces: TraceReport,
    /// The log of requests and connections.
    pub logs: LogsReport,
}

/// What nobody counts on this node: a zero would be taken for a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncounted {
    /// Everything is counted.
    #[default]
    Nothing,
    /// Connects that this node could not make.
    LocalTrouble,
    /// Whatever only programs in the kernel see: there are none.
    Kernel,
}

/// A source of services.
#[derive(Clone, Debug, Default)]
pub struct SourceReport {
    /// Its name.
    pub name: &'static str,
    /// Whether it has told all it knows.
    pub synced: bool,
    /// Whether it is out of touch.
    pub lost: bool,
    /// Changes taken from it.
    pub updates: u64,
    /// How often it lost touch, and how many records of it were left out.
    pub errors: u64,
}

/// The log of requests and connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogsReport {
    /// Lines that were kept or written.
    pub told: u64,
    /// Lines that were dropped, by where there was no room for them.
    pub dropped: [(&'static str, u64); 3],
    /// Lines that are kept now, and their bytes.
    pub kept: (u64, u64),
}

/// A kernel program's name, runs, and nanoseconds in all.
pub type ProgramRuns = (&'static str, u64, u64);
/// A table's name, entries in use (`None`: cannot be counted), capacity, and bytes.
pub type MapUse = (&'static str, Option<u64>, u64, u64);

/// How often a policy (its word) picked an endpoint of a tier (its word).
pub type Picked = (&'static str, &'static str, u64);

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Connects that were not simply forwarded.
    pub counts: ServiceCounts,
    /// Picks, for connections and for requests: only what was picked.
    pub picks: Vec<Picked>,
    /// Its endpoints, by address.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint of a service.
#[derive(Clone, Debug)]
pub struct EndpointReport {
    /// `ip:port`.
    pub address: String,
    /// What the kernel counted.
    pub counts: EndpointCounts,
    /// Its circuit; `None`: there is no kernel that has one.
    pub circuit: Option<State>,
    /// Whether health checks do not hold it back; `None`: it is not checked, or not yet.
    pub healthy: Option<bool>,
    /// How long things took; `None`: no connection was ever established. Apart, since it is large and most have none.
    pub times: Option<Box<EndpointTimes>>,
}

/// Prints a report, and what the process uses (`process_*`), in Prometheus text format 0.0.4.
///
/// # Errors
/// Those of the `prometheus` crate, which collects what the process uses.
pub fn encode(report: &Report) -> Result<Vec<u8>, prometheus::Error> {
    print(report).map(|text| text.bytes)
}

/// What there is in a report, in the order in which [`encode`] prints it; also what it has no metrics of.
///
/// # Errors
/// As [`encode`].
pub fn families(report: &Report) -> Result<Vec<Family>, prometheus::Error> {
    print(report).map(|text| text.families)
}

fn print(report: &Report) -> Result<Text, prometheus::Error> {
    let mut text = Text::default();
    per_service(report, &mut text);
    per_endpoint(report, &mut text);
    http_metrics::add(&report.http, &mut text);
    of_the_daemon(report, &mut text);
    of_traces(&report.traces, &mut text);
    ProcessCollector::for_self().collect().into_iter().try_for_each(|family| text.collected(family))?;
    Ok(text)
}

fn per_service(report: &Report, text: &mut Text) {
    let by_kernel = report.uncounted != Uncounted::Kernel;
    let by_reason = |wanted: fn(Reason) -> bool| {
        report.services.iter().filter(move |_| by_kernel).flat_map(move |service| {
            let reasons = Reason::ALL.into_iter().filter(move |reason| wanted(*reason));
            reasons.map(move |reason| {
                let labels = [("service", service.name.as_str()), ("reason", reason.word())];
                whole(&labels, service.counts[reason as usize])
            })
        })
    };
    let of_reason = |reason: Reason| {
        let counted = match reason {
            Reason::LocalTrouble => report.uncounted == Uncounted::Nothing,
            _ => by_kernel,
        };
        let services = report.services.iter().filter(move |_| counted);
        services.map(move |s| whole(&[("service", s.name.as_str())], s.counts[reason as usize]))
    };
    let kind = Kind::Counter;
    let help = "Connects to a VIP that were refused with ECONNREFUSED, without asking any endpoint, by reason.";
    text.family(("mesh_tcp_connects_refused_total", help, kind), by_reason(Reason::refuses));
    let help = "Connects to a VIP that went on untouched; or, of an HTTP service, past the daemon, by reason.";
    text.family(("mesh_connects_passed_total", help, kind), by_reason(Reason::passes));
    let help = "Connects that this node could not make: no route to the endpoint, or no free local port.";
    text.family(("mesh_connects_local_trouble_total", help, kind), of_reason(Reason::LocalTrouble));
    let picks = report.services.iter().flat_map(|service| {
        let picks = service.picks.iter();
        picks.map(|(policy, tier, n)| whole(&[("service", &service.name), ("policy", policy), ("tier", tier)], *n))
    });
    let help = "Connects, and tries of requests, for which an endpoint was picked, by how, and by how near it is.";
    text.family(("mesh_picks_total", help, kind), picks);
    let help = "Connects that were forwarded without a record, for want of kernel memory: not counted further.";
    text.family(("mesh_connects_untracked_total", help, kind), of_reason(Reason::Untracked));
}

/// A counter of every endpoint: name, help, and where its value lies.
type OfEndpoint = (&'static str, &'static str, fn(&EndpointCounts) -> u64);

/// What the kernel alone counts.
const BY_KERNEL: [OfEndpoint; 2] = [
    ("mesh_endpoint_picked_total", "Connects that the kernel sent to the endpoint.", |c| c.picked),
    ("mesh_tcp_retransmits_total", "Segments that clients sent again.", |c| c.retransmits),
];

/// What the proxy counts where there is no kernel.
const OF_ENDPOINTS: [OfEndpoint; 5] = [
    ("mesh_tcp_connections_opened_total", "Connections that TCP began to open.", |c| c.opened),
    ("mesh_tcp_connections_established_total", "Connections that became established.", |c| c.established),
    ("mesh_tcp_connections_closed_total", "Connections that ended, in whatever way, failed ones included.", |c| {
        c.closed
    }),
    ("mesh_tcp_sent_bytes_total", "Payload bytes that clients sent and the endpoint acknowledged.", |c| c.sent),
    ("mesh_tcp_received_bytes_total", "Payload bytes that clients received in order.", |c| c.received),
];

fn per_endpoint(report: &Report, text: &mut Text) {
    let endpoints = || {
        let services = report.services.iter();
        services.flat_map(|s| s.endpoints.iter().map(|e| (s.name.as_str(), e.address.as_str(), &e.counts)))
    };
    let by_kernel = if report.uncounted == Uncounted::Kernel { &[][..] } else { &BY_KERNEL[..] };
    for (name, help, value) in OF_ENDPOINTS.iter().chain(by_kernel) {
        let metrics =
            endpoints().map(|(service, at, counts)| whole(&[("service", service), ("endpoint", at)], value(counts)));
        text.family((*name, *help, Kind::Counter), metrics);
    }
    let active =
        endpoints().map(|(service, at, counts)| whole(&[("service", service), ("endpoint", at)], counts.active()));
    let help = "Connections open now, those being opened included.";
    text.family(("mesh_tcp_connections_active", help, Kind::Gauge), active);
    let all = || report.services.iter().flat_map(|s| s.endpoints.iter().map(|e| (s.name.as_str(), e)));
    let circuits = all().filter_map(|(service, e)| {
        // The numbers of the contract are not those of the kernel.
        let number = match e.circuit? {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        Some(whole(&[("service", service), ("endpoint", &e.address)], number))
    });
    let help = "The endpoint's circuit: 0 closed, 1 half-open, 2 open or held open.";
    text.family(("mesh_circuit_state", help, Kind::Gauge), circuits);
    let turned = all().filter(|(_, e)| e.counts.transitions.iter().any(|n| *n > 0)).flat_map(|(service, e)| {
        State::ALL.into_iter().map(move |to| {
            let labels = [("service", service), ("endpoint", e.address.as_str()), ("to", to.word())];
            whole(&labels, e.counts.transitions[to as usize])
        })
    });
    let help = "How often the endpoint's circuit came into a state.";
    text.family(("mesh_circuit_transitions_total", help, Kind::Counter), turned);
    let healthy = all().filter_map(|(service, e)| {
        Some(whole(&[("service", service), ("endpoint", &e.address)], u64::from(e.healthy?)))
    });
    let help = "1 if the endpoint passes its health checks, 0 if not; absent until it was checked.";
    text.family(("mesh_endpoint_healthy", help, Kind::Gauge), healthy);
    let failures = endpoints().flat_map(|(service, at, counts)| {
        Failure::ALL.into_iter().map(move |failure| {
            let labels = [("service", service), ("endpoint", at), ("reason", failure.word())];
            whole(&labels, counts.failures[failure as usize])
        })
    });
    text.family(("mesh_tcp_connect_failures_total", "Connects that failed, by reason.", Kind::Counter), failures);
    let bounds = Bounds::new((0..FINITE).map(bound_us));
    let bounds = &bounds;
    for (name, help, value) in TIMES_OF_ENDPOINTS {
        let services = report.services.iter();
        let measured = services.flat_map(|s| {
            s.endpoints.iter().filter_map(move |e| {
                let Histogram { buckets, sum_ns } = value(e.times.as_deref()?);
                let labels = [("service", s.name.as_str()), ("endpoint", &e.address)];
                Some(histogram(&labels, bounds, buckets, *sum_ns as f64 / 1e9))
            })
        });
        text.family((name, help, Kind::Histogram), measured);
    }
}

/// A histogram of every endpoint: name, help, and where it lies.
type TimesOfEndpoint = (&'static str, &'static str, fn(&EndpointTimes) -> &Histogram);

/// Only of endpoints that have any: 20 lines for each of 300,000 that nobody ever talked to would say nothing.
const TIMES_OF_ENDPOINTS: [TimesOfEndpoint; 2] = [
    ("mesh_tcp_connect_duration_seconds", "From the SYN to the established connection.", |t| &t.connect),
    ("mesh_tcp_rtt_seconds", "Smoothed round-trip time of connections when they closed.", |t| &t.rtt),
];

fn of_the_daemon(report: &Report, text: &mut Text) {
    let one = |value: u64| [whole(&[], value)];
    let Report { programs, maps, sources, logs, .. } = report;
    let version = [whole(&[("version", env!("CARGO_PKG_VERSION"))], 1)];
    text.family(("mesh_build_info", "1, labelled with the daemon's version.", Kind::Gauge), version);
    let help = "1 while the kill switch is on: every hook passes everything untouched.";
    text.family(("mesh_bypass", help, Kind::Gauge), one(report.bypass.into()));
    let interception = report.interception_ok.map(|ok| whole(&[], ok.into()));
    let help = "1 if the last probe was translated and counted to the byte; absent where none can be made.";
    text.family(("mesh_interception_ok", help, Kind::Gauge), interception);
    let help = "Services, VIPs or endpoints that do not fit into the kernel's tables now.";
    text.family(("mesh_datapath_problems", help, Kind::Gauge), one(report.problems));
    let help = "Reloads that were refused; the same mistake found again is not another one.";
    text.family(("mesh_config_reload_failures_total", help, Kind::Counter), one(report.reload_failures));
    let help = "0 while the configuration in the files is refused and the one before is in force.";
    text.family(("mesh_config_ok", help, Kind::Gauge), one((!report.configuration_refused).into()));
    let help = "Lines of the log of requests and connections that were kept or written.";
    text.family(("mesh_log_lines_total", help, Kind::Counter), one(logs.told));
    let help = "Lines of the log that were dropped, by where there was no room for them.";
    let dropped = logs.dropped.iter().map(|(at, lines)| whole(&[("at", at)], *lines));
    text.family(("mesh_log_lines_dropped_total", help, Kind::Counter), dropped);
    text.family(("mesh_log_lines_kept", "Lines of the log that are kept on the node.", Kind::Gauge), one(logs.kept.0));
    text.family(("mesh_log_bytes_kept", "Memory of the lines that are kept.", Kind::Gauge), one(logs.kept.1));
    let attached = report.attached.iter().map(|(name, at_work)| whole(&[("program", name)], (*at_work).into()));
    let help = "1 if the kernel program is at work, 0 if it is left out or detached.";
    text.family(("mesh_bpf_program_attached", help, Kind::Gauge), attached);
    let runs = programs.iter().map(|(program, runs, _)| whole(&[("program", program)], *runs));
    text.family(("mesh_bpf_program_runs_total", "Runs of a kernel program.", Kind::Counter), runs);
    let seconds = programs.iter().map(|(program, _, ns)| number(&[("program", program)], *ns as f64 / 1e9));
    text.family(("mesh_bpf_program_seconds_total", "Time spent in a kernel program.", Kind::Counter), seconds);
    let entries = maps.iter().filter_map(|(map, entries, ..)| Some(whole(&[("map", map)], (*entries)?)));
    text.family(("mesh_bpf_map_entries", "Entries in use.", Kind::Gauge), entries);
    let capacity = maps.iter().map(|(map, _, capacity, _)| whole(&[("map", map)], *capacity));
    text.family(("mesh_bpf_map_capacity", "Entries that fit.", Kind::Gauge), capacity);
    let bytes = maps.iter().map(|(map, .., bytes)| whole(&[("map", map)], *bytes));
    text.family(("mesh_bpf_map_bytes", "Kernel memory of the table.", Kind::Gauge), bytes);
    let of_sources = |value: fn(&SourceReport) -> u64| {
        sources.iter().map(move |source| whole(&[("source", source.name)], value(source)))
    };
    let help = "1 once the source has told all it knows.";
    text.family(("mesh_discovery_synced", help, Kind::Gauge), of_sources(|source| source.synced.into()));
    let help = "1 while the source is out of touch: what it said last is in force.";
    text.family(("mesh_discovery_lost", help, Kind::Gauge), of_sources(|source| source.lost.into()));
    let help = "Changes taken from the source, the first load included.";
    text.family(("mesh_discovery_updates_total", help, Kind::Counter), of_sources(|source| source.updates));
    let help = "How often the source was out of touch, and records of it that were left out.";
    text.family(("mesh_discovery_errors_total", help, Kind::Counter), of_sources(|source| source.errors));
}

fn of_traces(report: &TraceReport, text: &mut Text) {
    let mut one = |name, help, value| text.family((name, help, Kind::Counter), [whole(&[], value)]);
    one("mesh_traces_kept_total", "Requests whose trace was kept.", report.kept);
    one("mesh_traces_exported_total", "Requests whose trace the collector took.", report.exported);
    one("mesh_trace_export_failures_total", "Times that the collector did not take traces.", report.failures);
    let help = "Spans that the collector took no notice of, of traces that it took.";
    one("mesh_trace_spans_rejected_total", help, report.rejected_spans);
    let dropped = report.dropped.iter().map(|(reason, n)| whole(&[("reason", reason)], *n));
    let help = "Requests whose trace no collector got although there is one, by reason.";
    text.family(("mesh_traces_dropped_total", help, Kind::Counter), dropped);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counted_is_printed_under_its_names() {
        let mut counts = [0; Reason::COUNT];
        counts[Reason::NoEndpoint as usize] = 3;
        let mut endpoint = EndpointCounts { opened: 5, closed: 2, sent: 1 << 40, ..EndpointCounts::default() };
        endpoint.failures[Failure::Refused as usize] = 1;
        counts[Reason::LocalTrouble as usize] = 4;
        let mut times = Box::new(EndpointTimes::default());
        for (bucket, count) in [(0, 2), (3, 1), (FINITE, 1)] {
            times.connect.buckets[bucket] = count;
        }
        times.connect.sum_ns = 3_000_130_000;
        let used = EndpointReport {
            address: "[fd00::1]:80".to_owned(),
            counts: endpoint,
            circuit: Some(State::HalfOpen),
            healthy: Some(false),
            times: Some(times),
        };
        let idle = EndpointReport {
            address: "[fd00::2]:80".to_owned(),
            counts: EndpointCounts::default(),
            circuit: None,
            healthy: None,
            times: None,
        };
        let service = ServiceReport {
            name: "web".to_owned(),
            counts,
            picks: vec![("peak_ewma", "zone", 4)],
            endpoints: vec![used, idle],
        };
        let dropped = [("queue", 0), ("stderr", 2), ("kernel", 0)];
        let logs = LogsReport { told: 9, dropped, kept: (3, 900) };
        let sources = vec![SourceReport { name: "etcd", synced: true, lost: true, ..SourceReport::default() }];
        let text = encode(&Report { services: vec![service], sources, logs, ..Report::default() }).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"mesh_tcp_connects_refused_total{service="web",reason="no_endpoint"} 3"#,
            r#"mesh_connects_passed_total{service="web",reason="bypass"} 0"#,
            r#"mesh_tcp_connections_opened_total{service="web",endpoint="[fd00::1]:80"} 5"#,
            r#"mesh_tcp_connections_active{service="web",endpoint="[fd00::1]:80"} 3"#,
            r#"mesh_tcp_connect_failures_total{service="web",endpoint="[fd00::1]:80",reason="refused"} 1"#,
            r#"mesh_tcp_sent_bytes_total{service="web",endpoint="[fd00::1]:80"} 1099511627776"#,
            r#"mesh_connects_local_trouble_total{service="web"} 4"#,
            r#"mesh_connects_passed_total{service="web",reason="stale"} 0"#,
            "# TYPE mesh_tcp_connect_duration_seconds histogram",
            r#"mesh_tcp_connect_duration_seconds_bucket{service="web",endpoint="[fd00::1]:80",le="0.000016"} 2"#,
            r#"mesh_tcp_connect_duration_seconds_bucket{service="web",endpoint="[fd00::1]:80",le="0.000128"} 3"#,
            r#"mesh_tcp_connect_duration_seconds_bucket{service="web",endpoint="[fd00::1]:80",le="2.097152"} 3"#,
            r#"mesh_tcp_connect_duration_seconds_bucket{service="web",endpoint="[fd00::1]:80",le="+Inf"} 4"#,
            r#"mesh_tcp_connect_duration_seconds_sum{service="web",endpoint="[fd00::1]:80"} 3.00013"#,
            r#"mesh_tcp_connect_duration_seconds_count{service="web",endpoint="[fd00::1]:80"} 4"#,
            "# TYPE mesh_tcp_connections_active gauge",
            r#"mesh_log_lines_dropped_total{at="stderr"} 2"#,
            "mesh_log_lines_kept 3",
            "mesh_config_reload_failures_total 0",
            "mesh_config_ok 1",
            r#"mesh_discovery_synced{source="etcd"} 1"#,
            r#"mesh_discovery_lost{source="etcd"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let measured = text.lines().filter(|l| l.starts_with("mesh_tcp_connect_duration_seconds_count")).count();
        assert_eq!(measured, 1, "none of an endpoint that nobody ever talked to");
        let heads = text.lines().filter(|l| l.starts_with("# TYPE mesh_tcp_connections_active ")).count();
        assert_eq!(heads, 1);
        assert!(text.contains("process_resident_memory_bytes"));
        assert!(!text.contains("mesh_interception_ok"), "what is not known is not printed");
    }
}
