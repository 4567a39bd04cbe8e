//! A moment of the daemon as Prometheus text. The kernel and the proxy count; this only names and prints what they counted.

pub use super::text::{Family, Sink};
use super::{
    http_metrics::{self, HttpReport},
    text::{Bounds, Collected, Kind, Text},
    traces::TraceReport,
};
use mesh_common::{
    breaker::State,
    endpoint::{EndpointCounts, EndpointTimes},
    histogram::{FINITE, Histogram, bound_us},
    reason::{Failure, Reason, ServiceCounts},
};
use prometheus::{core::Collector, process_collector::ProcessCollector};
use std::ops::ControlFlow;

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
    /// Whether the configuration asks for interception.
    pub interception_wanted: bool,
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
    pub dropped: [(&'static str, u64); 4],
    /// Lines that are kept now, and their bytes.
    pub kept: (u64, u64),
}

/// A kernel program's name, runs, and nanoseconds in all.
pub type ProgramRuns = (&'static str, u64, u64);
/// A table's name, entries in use (`None`: cannot be counted), capacity, and bytes.
pub type MapUse = (&'static str, Option<u64>, u64, u64);

/// How often a policy (its word) picked an endpoint of a tier (its word), for a `connect` or a `request`.
pub type Picked = (&'static str, &'static str, &'static str, u64);

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

/// Prints a report, and what the process uses (`process_*`), in Prometheus text format 0.0.4: in pieces of some 64 KiB,
/// each handed over as soon as it is written, until `sink` has enough.
///
/// # Errors
/// Those of the `prometheus` crate, which collects what the process uses. Nothing is handed over then.
pub fn encode(report: &Report, sink: Sink<'_>) -> Result<(), prometheus::Error> {
    print(report, sink).map(drop)
}

/// What there is in a report, in the order in which [`encode`] prints it; also what it has no metrics of.
///
/// # Errors
/// As [`encode`].
pub fn families(report: &Report) -> Result<Vec<Family>, prometheus::Error> {
    print(report, &mut |_| ControlFlow::Continue(()))
}

fn print(report: &Report, sink: Sink<'_>) -> Result<Vec<Family>, prometheus::Error> {
    let process = Collected::new(ProcessCollector::for_self().collect())?;
    let mut text = Text::new(sink);
    per_service(report, &mut text);
    per_endpoint(report, &mut text);
    http_metrics::add(&report.http, &mut text);
    of_the_daemon(report, &mut text);
    of_traces(&report.traces, &mut text);
    text.add_collected(process);
    Ok(text.finish())
}

fn per_service(report: &Report, text: &mut Text<'_>) {
    let services = &report.services;
    let is_counted = |reason: Reason| match reason {
        Reason::LocalTrouble => report.uncounted == Uncounted::Nothing,
        _ => report.uncounted != Uncounted::Kernel,
    };
    let by_reason = |text: &mut Text<'_>, name: &str, help: &str, is_wanted: fn(Reason) -> bool| {
        let reasons = || Reason::ALL.into_iter().filter(|reason| is_wanted(*reason) && is_counted(*reason));
        text.family((name, help, Kind::Counter), ["service", "reason"], |metrics| {
            for service in services {
                reasons().for_each(|r| metrics.whole([&service.name, r.word()], service.counts[r as usize]));
            }
        });
    };
    let of_reason = |text: &mut Text<'_>, name: &str, help: &str, reason: Reason| {
        text.family((name, help, Kind::Counter), ["service"], |metrics| {
            let services = services.iter().filter(|_| is_counted(reason));
            services.for_each(|service| metrics.whole([&service.name], service.counts[reason as usize]));
        });
    };
    let help = "Connects to a VIP that were refused with ECONNREFUSED, without asking any endpoint, by reason.";
    by_reason(text, "mesh_tcp_connects_refused_total", help, Reason::refuses);
    let help = "Connects to a VIP that went on untouched; or, of an HTTP service, past the daemon, by reason.";
    by_reason(text, "mesh_connects_passed_total", help, Reason::passes);
    let help = "Connects that this node could not make: no route to the endpoint, or no free local port.";
    of_reason(text, "mesh_connects_local_trouble_total", help, Reason::LocalTrouble);
    let help = "Connects, and tries of requests, for which an endpoint was picked, by how, by how near it is, and for which of both.";
    text.family(("mesh_picks_total", help, Kind::Counter), ["service", "policy", "tier", "for"], |metrics| {
        for service in services {
            let picks = service.picks.iter();
            picks.for_each(|(policy, tier, what, n)| metrics.whole([&service.name, policy, tier, what], *n));
        }
    });
    let help = "Connects that were forwarded without a record, for want of kernel memory: not counted further.";
    of_reason(text, "mesh_connects_untracked_total", help, Reason::Untracked);
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

fn per_endpoint(report: &Report, text: &mut Text<'_>) {
    const LABELS: [&str; 2] = ["service", "endpoint"];
    let all = || report.services.iter().flat_map(|s| s.endpoints.iter().map(|e| ([&*s.name, &*e.address], e)));
    let by_kernel = if report.uncounted == Uncounted::Kernel { &[][..] } else { &BY_KERNEL[..] };
    for (name, help, value) in OF_ENDPOINTS.iter().chain(by_kernel) {
        text.family((name, help, Kind::Counter), LABELS, |metrics| {
            all().for_each(|(labels, e)| metrics.whole(labels, value(&e.counts)));
        });
    }
    let help = "Connections open now, those being opened included.";
    text.family(("mesh_tcp_connections_active", help, Kind::Gauge), LABELS, |metrics| {
        all().for_each(|(labels, e)| metrics.whole(labels, e.counts.active()));
    });
    let help = "The endpoint's circuit: 0 closed, 1 half-open, 2 open or held open.";
    text.family(("mesh_circuit_state", help, Kind::Gauge), LABELS, |metrics| {
        for (labels, circuit) in all().filter_map(|(labels, e)| Some((labels, e.circuit?))) {
            // The numbers of the contract are not those of the kernel.
            let number = match circuit {
                State::Closed => 0,
                State::HalfOpen => 1,
                State::Open => 2,
            };
            metrics.whole(labels, number);
        }
    });
    let help = "How often the endpoint's circuit came into a state.";
    text.family(("mesh_circuit_transitions_total", help, Kind::Counter), ["service", "endpoint", "to"], |metrics| {
        for ([service, at], e) in all().filter(|(_, e)| e.counts.transitions.iter().any(|n| *n > 0)) {
            for to in State::ALL {
                metrics.whole([service, at, to.word()], e.counts.transitions[to as usize]);
            }
        }
    });
    let help = "1 if the endpoint passes its health checks, 0 if not; absent until it was checked.";
    text.family(("mesh_endpoint_healthy", help, Kind::Gauge), LABELS, |metrics| {
        let checked = all().filter_map(|(labels, e)| Some((labels, e.healthy?)));
        checked.for_each(|(labels, healthy)| metrics.whole(labels, healthy.into()));
    });
    let failures = ("mesh_tcp_connect_failures_total", "Connects that failed, by reason.", Kind::Counter);
    text.family(failures, ["service", "endpoint", "reason"], |metrics| {
        for ([service, at], e) in all() {
            for failure in Failure::ALL {
                metrics.whole([service, at, failure.word()], e.counts.failures[failure as usize]);
            }
        }
    });
    let bounds = Bounds::new((0..FINITE).map(bound_us));
    for (name, help, value) in TIMES_OF_ENDPOINTS {
        text.histograms((name, help), LABELS, &bounds, |histograms| {
            for (labels, times) in all().filter_map(|(labels, e)| Some((labels, e.times.as_deref()?))) {
                let Histogram { buckets, sum_ns } = value(times);
                histograms.add(labels, buckets, *sum_ns as f64 / 1e9);
            }
        });
    }
}

/// A histogram of every endpoint: name, help, and where it lies.
type TimesOfEndpoint = (&'static str, &'static str, fn(&EndpointTimes) -> &Histogram);

/// Only of endpoints that have any: 20 lines for each of 300,000 that nobody ever talked to would say nothing.
const TIMES_OF_ENDPOINTS: [TimesOfEndpoint; 2] = [
    ("mesh_tcp_connect_duration_seconds", "From the SYN to the established connection.", |t| &t.connect),
    ("mesh_tcp_rtt_seconds", "Smoothed round-trip time of connections when they closed.", |t| &t.rtt),
];

fn of_the_daemon(report: &Report, text: &mut Text<'_>) {
    let Report { programs, maps, sources, logs, .. } = report;
    let version = ("mesh_build_info", "1, labelled with the daemon's version.", Kind::Gauge);
    text.family(version, ["version"], |metrics| metrics.whole([env!("CARGO_PKG_VERSION")], 1));
    let help = "1 while the kill switch is on: every hook passes everything untouched.";
    text.one(("mesh_bypass", help, Kind::Gauge), u64::from(report.bypass));
    let help = "1 if the last probe was translated and counted to the byte; absent where none can be made.";
    text.one(("mesh_interception_ok", help, Kind::Gauge), report.interception_ok.map(u64::from));
    let help = "1 unless `dataplane.mode` is `userspace` or `observe`, which intercept nothing.";
    text.one(("mesh_interception_wanted", help, Kind::Gauge), u64::from(report.interception_wanted));
    let help = "Services, VIPs or endpoints that do not fit into the kernel's tables now.";
    text.one(("mesh_datapath_problems", help, Kind::Gauge), report.problems);
    let help = "Reloads that were refused; the same mistake found again is not another one.";
    text.one(("mesh_config_reload_failures_total", help, Kind::Counter), report.reload_failures);
    let help = "0 while the configuration in the files is refused and the one before is in force.";
    text.one(("mesh_config_ok", help, Kind::Gauge), u64::from(!report.configuration_refused));
    let help = "Lines of the log of requests and connections that were kept or written.";
    text.one(("mesh_log_lines_total", help, Kind::Counter), logs.told);
    let help = "Lines of the log that were dropped, by where there was no room for them.";
    text.family(("mesh_log_lines_dropped_total", help, Kind::Counter), ["at"], |metrics| {
        logs.dropped.iter().for_each(|(at, lines)| metrics.whole([at], *lines));
    });
    text.one(("mesh_log_lines_kept", "Lines of the log that are kept on the node.", Kind::Gauge), logs.kept.0);
    text.one(("mesh_log_bytes_kept", "Memory of the lines that are kept.", Kind::Gauge), logs.kept.1);
    let help = "1 if the kernel program is at work, 0 if it is left out or detached.";
    text.family(("mesh_bpf_program_attached", help, Kind::Gauge), ["program"], |metrics| {
        report.attached.iter().for_each(|(name, at_work)| metrics.whole([name], (*at_work).into()));
    });
    text.family(("mesh_bpf_program_runs_total", "Runs of a kernel program.", Kind::Counter), ["program"], |metrics| {
        programs.iter().for_each(|(program, runs, _)| metrics.whole([program], *runs));
    });
    let seconds = ("mesh_bpf_program_seconds_total", "Time spent in a kernel program.", Kind::Counter);
    text.family(seconds, ["program"], |metrics| {
        programs.iter().for_each(|(program, _, ns)| metrics.number([program], *ns as f64 / 1e9));
    });
    text.family(("mesh_bpf_map_entries", "Entries in use.", Kind::Gauge), ["map"], |metrics| {
        let counted = maps.iter().filter_map(|(map, entries, ..)| Some((map, (*entries)?)));
        counted.for_each(|(map, entries)| metrics.whole([map], entries));
    });
    text.family(("mesh_bpf_map_capacity", "Entries that fit.", Kind::Gauge), ["map"], |metrics| {
        maps.iter().for_each(|(map, _, capacity, _)| metrics.whole([map], *capacity));
    });
    text.family(("mesh_bpf_map_bytes", "Kernel memory of the table.", Kind::Gauge), ["map"], |metrics| {
        maps.iter().for_each(|(map, .., bytes)| metrics.whole([map], *bytes));
    });
    let help = "1 once the source has told all it knows.";
    text.family(("mesh_discovery_synced", help, Kind::Gauge), ["source"], |metrics| {
        sources.iter().for_each(|source| metrics.whole([source.name], source.synced.into()));
    });
    let help = "1 while the source is out of touch: what it said last is in force.";
    text.family(("mesh_discovery_lost", help, Kind::Gauge), ["source"], |metrics| {
        sources.iter().for_each(|source| metrics.whole([source.name], source.lost.into()));
    });
    let help = "Changes taken from the source, the first load included.";
    text.family(("mesh_discovery_updates_total", help, Kind::Counter), ["source"], |metrics| {
        sources.iter().for_each(|source| metrics.whole([source.name], source.updates));
    });
    let help = "How often the source was out of touch, and records of it that were left out.";
    text.family(("mesh_discovery_errors_total", help, Kind::Counter), ["source"], |metrics| {
        sources.iter().for_each(|source| metrics.whole([source.name], source.errors));
    });
}

fn of_traces(report: &TraceReport, text: &mut Text<'_>) {
    let mut one = |name, help, value: u64| text.one((name, help, Kind::Counter), value);
    one("mesh_traces_kept_total", "Requests whose trace was kept.", report.kept);
    one("mesh_traces_exported_total", "Requests whose trace the collector took.", report.exported);
    one("mesh_trace_export_failures_total", "Times that the collector did not take traces.", report.failures);
    let help = "Spans that the collector took no notice of, of traces that it took.";
    one("mesh_trace_spans_rejected_total", help, report.rejected_spans);
    let help = "Requests whose trace no collector got although there is one, by reason.";
    text.family(("mesh_traces_dropped_total", help, Kind::Counter), ["reason"], |metrics| {
        report.dropped.iter().for_each(|(reason, n)| metrics.whole([reason], *n));
    });
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
            picks: vec![("peak_ewma", "zone", "request", 4)],
            endpoints: vec![used, idle],
        };
        let dropped = [("queue", 0), ("stderr", 2), ("kernel", 0), ("refused", 5)];
        let logs = LogsReport { told: 9, dropped, kept: (3, 900) };
        let sources = vec![SourceReport { name: "etcd", synced: true, lost: true, ..SourceReport::default() }];
        let report = Report { services: vec![service], sources, logs, ..Report::default() };
        let mut text = Vec::new();
        encode(&report, &mut |piece| {
            text.extend(piece);
            ControlFlow::Continue(())
        })
        .unwrap();
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
            r#"mesh_log_lines_dropped_total{at="refused"} 5"#,
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
