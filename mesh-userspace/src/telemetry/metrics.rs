//! A moment of the daemon as Prometheus text. The kernel and the proxy count; this only names and prints what they counted.

use super::{
    http_metrics::{self, HttpReport},
    text::{Text, counter, family, gauge, histogram, number},
};
use mesh_common::{
    breaker::State,
    endpoint::{EndpointCounts, EndpointTimes, Picks},
    histogram::{FINITE, Histogram, bound_us},
    reason::{Failure, Reason, ServiceCounts},
    service::Policy,
};
use prometheus::{
    core::Collector,
    process_collector::ProcessCollector,
    proto::{MetricFamily, MetricType},
};

/// Everything that is exported, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By name.
    pub services: Vec<ServiceReport>,
    /// What became of requests.
    pub http: HttpReport,
    /// The words of tiers, in the order of picks.
    pub tiers: Vec<&'static str>,
    /// The kernel programs, where statistics are switched on: name, runs, nanoseconds in all.
    pub programs: Vec<ProgramRuns>,
    /// The kernel's tables: name, entries in use, capacity, bytes.
    pub maps: Vec<MapUse>,
    /// Where services come from: name, whether it has told all it knows, updates, errors.
    pub sources: Vec<(&'static str, bool, u64, u64)>,
    /// Configurations that were refused.
    pub reload_failures: u64,
    /// Whether a probe was intercepted; `None`: not known.
    pub interception_ok: Option<bool>,
    /// Whether the kill switch is on.
    pub bypass: bool,
    /// What did not fit into the tables.
    pub problems: u64,
}

/// A kernel program's name, runs, and nanoseconds in all.
pub type ProgramRuns = (&'static str, u64, u64);
/// A table's name, entries in use (`None`: cannot be counted), capacity, and bytes.
pub type MapUse = (&'static str, Option<u64>, u64, u64);

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// Connects that were not simply forwarded.
    pub counts: ServiceCounts,
    /// Picks by policy and tier; `None`: there were none. Apart, since it is large and most have none.
    pub picks: Option<Box<Picks>>,
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
/// The encoder's, which concern malformed names only.
pub fn encode(report: &Report) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Text::default();
    per_service(report, &mut text)?;
    per_endpoint(report, &mut text)?;
    http_metrics::add(&report.http, &mut text)?;
    let whole = of_the_daemon(report).into_iter().chain(ProcessCollector::for_self().collect());
    whole.filter(|family| !family.get_metric().is_empty()).try_for_each(|family| text.add(family))?;
    Ok(text.0)
}

fn per_service(report: &Report, text: &mut Text) -> Result<(), prometheus::Error> {
    let by_reason = |wanted: fn(Reason) -> bool| {
        report.services.iter().flat_map(move |service| {
            let reasons = Reason::ALL.into_iter().filter(move |reason| wanted(*reason));
            reasons.map(move |reason| {
                let labels = [("service", service.name.as_str()), ("reason", reason.word())];
                counter(&labels, service.counts[reason as usize])
            })
        })
    };
    let of_reason = |reason: Reason| {
        let services = report.services.iter();
        services.map(move |s| counter(&[("service", s.name.as_str())], s.counts[reason as usize]))
    };
    let kind = MetricType::COUNTER;
    let help = "Connects to a VIP that the kernel refused with ECONNREFUSED.";
    text.family(("mesh_tcp_connects_refused_total", help, kind), by_reason(Reason::refuses))?;
    let help = "Connects to a VIP that went on untouched.";
    text.family(("mesh_connects_passed_total", help, kind), by_reason(Reason::passes))?;
    let help = "Connects that were forwarded and that this node could not make: no route, or no local port.";
    text.family(("mesh_connects_local_trouble_total", help, kind), of_reason(Reason::LocalTrouble))?;
    let picks = report.services.iter().flat_map(|service| {
        let picks = service.picks.iter().flat_map(|picks| Policy::ALL.into_iter().zip(picks.iter()));
        let tiers =
            picks.flat_map(|(policy, tiers)| report.tiers.iter().zip(tiers).map(move |(tier, n)| (policy, tier, n)));
        tiers.filter(|(_, _, n)| **n > 0).map(move |(policy, tier, n)| {
            counter(&[("service", &service.name), ("policy", policy.word()), ("tier", tier)], *n)
        })
    });
    let help = "Connects for which an endpoint was picked, by how, and by how near it is.";
    text.family(("mesh_picks_total", help, kind), picks)?;
    let help = "Connects that were forwarded without a record, for want of kernel memory: not counted further.";
    text.family(("mesh_connects_untracked_total", help, kind), of_reason(Reason::Untracked))
}

/// A counter of every endpoint: name, help, and where its value lies.
type OfEndpoint = (&'static str, &'static str, fn(&EndpointCounts) -> u64);

const OF_ENDPOINTS: [OfEndpoint; 7] = [
    ("mesh_endpoint_picked_total", "Connects that the kernel sent to the endpoint.", |c| c.picked),
    ("mesh_tcp_connections_opened_total", "Connections that TCP began to open.", |c| c.opened),
    ("mesh_tcp_connections_established_total", "Connections that became established.", |c| c.established),
    ("mesh_tcp_connections_closed_total", "Connections that ended, in whatever way.", |c| c.closed),
    ("mesh_tcp_sent_bytes_total", "Payload bytes that clients sent and the endpoint acknowledged.", |c| c.sent),
    ("mesh_tcp_received_bytes_total", "Payload bytes that clients received in order.", |c| c.received),
    ("mesh_tcp_retransmits_total", "Segments that clients sent again.", |c| c.retransmits),
];

fn per_endpoint(report: &Report, text: &mut Text) -> Result<(), prometheus::Error> {
    let endpoints = || {
        let services = report.services.iter();
        services.flat_map(|s| s.endpoints.iter().map(|e| (s.name.as_str(), e.address.as_str(), &e.counts)))
    };
    for (name, help, value) in OF_ENDPOINTS {
        let metrics =
            endpoints().map(|(service, at, counts)| counter(&[("service", service), ("endpoint", at)], value(counts)));
        text.family((name, help, MetricType::COUNTER), metrics)?;
    }
    let active =
        endpoints().map(|(service, at, counts)| gauge(&[("service", service), ("endpoint", at)], counts.active()));
    let help = "Connections open now, those being opened included.";
    text.family(("mesh_tcp_connections_active", help, MetricType::GAUGE), active)?;
    let all = || report.services.iter().flat_map(|s| s.endpoints.iter().map(|e| (s.name.as_str(), e)));
    let circuits = all().filter_map(|(service, e)| {
        // The numbers of the contract are not those of the kernel.
        let number = match e.circuit? {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        Some(gauge(&[("service", service), ("endpoint", &e.address)], number))
    });
    let help = "The endpoint's circuit: 0 closed, 1 half-open, 2 open.";
    text.family(("mesh_circuit_state", help, MetricType::GAUGE), circuits)?;
    let turned = all().filter(|(_, e)| e.counts.transitions.iter().any(|n| *n > 0)).flat_map(|(service, e)| {
        State::ALL.into_iter().map(move |to| {
            let labels = [("service", service), ("endpoint", e.address.as_str()), ("to", to.word())];
            counter(&labels, e.counts.transitions[to as usize])
        })
    });
    let help = "How often the endpoint's circuit closed, opened or became half-open.";
    text.family(("mesh_circuit_transitions_total", help, MetricType::COUNTER), turned)?;
    let healthy = all().filter_map(|(service, e)| {
        Some(gauge(&[("service", service), ("endpoint", &e.address)], u64::from(e.healthy?)))
    });
    let help = "1 if the endpoint passes its health checks, 0 if not; absent until it was checked.";
    text.family(("mesh_endpoint_healthy", help, MetricType::GAUGE), healthy)?;
    let failures = endpoints().flat_map(|(service, at, counts)| {
        Failure::ALL.into_iter().map(move |failure| {
            let labels = [("service", service), ("endpoint", at), ("reason", failure.word())];
            counter(&labels, counts.failures[failure as usize])
        })
    });
    text.family(("mesh_tcp_connect_failures_total", "Connects that failed.", MetricType::COUNTER), failures)?;
    for (name, help, value) in TIMES_OF_ENDPOINTS {
        let services = report.services.iter();
        let measured = services.flat_map(|s| {
            s.endpoints.iter().filter_map(move |e| {
                let Histogram { buckets, sum_ns } = value(e.times.as_deref()?);
                let bounds = (0..FINITE).map(|at| bound_us(at) as f64 / 1e6);
                let labels = [("service", s.name.as_str()), ("endpoint", &e.address)];
                Some(histogram(&labels, bounds, buckets, *sum_ns as f64 / 1e9))
            })
        });
        text.family((name, help, MetricType::HISTOGRAM), measured)?;
    }
    Ok(())
}

/// A histogram of every endpoint: name, help, and where it lies.
type TimesOfEndpoint = (&'static str, &'static str, fn(&EndpointTimes) -> &Histogram);

/// Only of endpoints that have any: 20 lines for each of 300,000 that nobody ever talked to would say nothing.
const TIMES_OF_ENDPOINTS: [TimesOfEndpoint; 2] = [
    ("mesh_tcp_connect_duration_seconds", "From the SYN to the established connection.", |t| &t.connect),
    ("mesh_tcp_rtt_seconds", "Smoothed round-trip time of connections when they closed.", |t| &t.rtt),
];

fn of_the_daemon(report: &Report) -> Vec<MetricFamily> {
    let kind = MetricType::COUNTER;
    let programs = |value: fn(&ProgramRuns) -> f64| {
        report.programs.iter().map(|p| number(kind, &[("program", p.0)], value(p))).collect()
    };
    let maps = |value: fn(&MapUse) -> Option<u64>| {
        report.maps.iter().filter_map(|m| Some(gauge(&[("map", m.0)], value(m)?))).collect()
    };
    let sources = report.sources.iter();
    let interception = report.interception_ok.map(|ok| gauge(&[], u64::from(ok)));
    vec![
        family(
            "mesh_build_info",
            "1, labelled with the daemon's version.",
            MetricType::GAUGE,
            vec![gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1)],
        ),
        family(
            "mesh_bypass",
            "1 while the kill switch is on: every hook passes everything untouched.",
            MetricType::GAUGE,
            vec![gauge(&[], u64::from(report.bypass))],
        ),
        family(
            "mesh_interception_ok",
            "1 if connects to VIPs are intercepted on this node.",
            MetricType::GAUGE,
            interception.into_iter().collect(),
        ),
        family(
            "mesh_datapath_problems",
            "Services, VIPs or endpoints that do not fit into the kernel's tables now.",
            MetricType::GAUGE,
            vec![gauge(&[], report.problems)],
        ),
        family(
            "mesh_config_reload_failures_total",
            "Configurations that were refused.",
            kind,
            vec![counter(&[], report.reload_failures)],
        ),
        family("mesh_bpf_program_runs_total", "Runs of a kernel program.", kind, programs(|p| p.1 as f64)),
        family(
            "mesh_bpf_program_seconds_total",
            "Time spent in a kernel program.",
            kind,
            programs(|p| p.2 as f64 / 1e9),
        ),
        family("mesh_bpf_map_entries", "Entries in use.", MetricType::GAUGE, maps(|m| m.1)),
        family("mesh_bpf_map_capacity", "Entries that fit.", MetricType::GAUGE, maps(|m| Some(m.2))),
        family("mesh_bpf_map_bytes", "Kernel memory of the table.", MetricType::GAUGE, maps(|m| Some(m.3))),
        family(
            "mesh_discovery_synced",
            "1 once the source has told all it knows.",
            MetricType::GAUGE,
            sources.clone().map(|s| gauge(&[("source", s.0)], u64::from(s.1))).collect(),
        ),
        family(
            "mesh_discovery_updates_total",
            "Changes taken from the source.",
            kind,
            sources.clone().map(|s| counter(&[("source", s.0)], s.2)).collect(),
        ),
        family(
            "mesh_discovery_errors_total",
            "Errors of the source.",
            kind,
            sources.map(|s| counter(&[("source", s.0)], s.3)).collect(),
        ),
    ]
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
        let service = ServiceReport { name: "web".to_owned(), counts, picks: None, endpoints: vec![used, idle] };
        let text = encode(&Report { services: vec![service], ..Report::default() }).unwrap();
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
            "mesh_config_reload_failures_total 0",
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
