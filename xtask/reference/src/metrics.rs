//! Metrics: name, type, labels and help, from the code that prints them.

use crate::table::{code, table};
use mesh_common::{
    breaker::{Limits, State},
    endpoint::{EndpointCounts, EndpointTimes},
    reason::Reason,
};
use mesh_userspace::{
    model::{self, Endpoint, Policy, Protocol},
    policy::Tier,
    proxy::{self, Entry, Share, States, Table},
    telemetry::{
        HttpReport,
        metrics::{EndpointReport, Family, LogsReport, Report, ServiceReport, SourceReport, Uncounted, families},
        traces::TraceReport,
    },
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// All metrics, and which of them were written down.
pub(crate) struct Reference {
    families: Vec<Family>,
    told: RefCell<BTreeSet<String>>,
}

impl Reference {
    pub(crate) fn new() -> Result<Self, String> {
        let families = families(&example()?).map_err(|error| format!("the metrics cannot be printed: {error}"))?;
        // Labels are known of metrics that there are only.
        let missing: Vec<&str> = families.iter().filter(|f| !f.is_printed).map(|f| &*f.name).collect();
        if missing.is_empty() {
            Ok(Self { families, told: RefCell::default() })
        } else {
            Err(format!("the example in reference/src/metrics.rs has no {}", missing.join(", ")))
        }
    }

    /// Those whose names begin with one of these words. Each stands once: where the first word is that fits.
    pub(crate) fn part(&self, starts: &[&str]) -> Result<String, String> {
        let mut rows = Vec::new();
        for start in starts {
            let before = rows.len();
            for family in self.families.iter().filter(|family| family.name.starts_with(start)) {
                if self.told.borrow_mut().insert(family.name.clone()) {
                    let labels: Vec<String> = family.labels.iter().map(|label| code(label)).collect();
                    rows.push([code(&family.name), family.kind.to_owned(), labels.join(", "), family.help.clone()]);
                }
            }
            if rows.len() == before {
                return Err(format!("there is no metric {start}, or it stands further up"));
            }
        }
        Ok(table(["metric", "type", "labels", "meaning"], rows))
    }

    /// Whether every metric has been written down.
    pub(crate) fn nothing_left(&self) -> Result<(), String> {
        let told = self.told.borrow();
        let left: Vec<&str> = self.families.iter().map(|f| &*f.name).filter(|name| !told.contains(*name)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("docs/metrics.md has no part for {}", left.join(", "))) }
    }
}

/// A report with something in every place.
fn example() -> Result<Report, String> {
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let service = ServiceReport {
        name: "web".to_owned(),
        counts: [1; Reason::COUNT],
        picks: vec![("round_robin", "zone", "connect", 1)],
        endpoints: vec![EndpointReport {
            address: address.to_string(),
            counts: EndpointCounts { transitions: [1; 3], ..EndpointCounts::default() },
            circuit: Some(State::Closed),
            healthy: Some(true),
            times: Some(Box::new(EndpointTimes::default())),
        }],
    };
    Ok(Report {
        services: vec![service],
        http: requests(address).ok_or("the example has no service that was asked")?,
        uncounted: Uncounted::Nothing,
        attached: vec![("mesh_connect4", true)],
        programs: vec![("mesh_connect4", 1, 1)],
        maps: vec![("VIPS", Some(1), 1, 1)],
        sources: vec![SourceReport { name: "files", ..SourceReport::default() }],
        reload_failures: 1,
        configuration_refused: true,
        interception_ok: Some(true),
        interception_wanted: true,
        bypass: false,
        problems: 1,
        traces: TraceReport { kept: 1, exported: 1, dropped: [("overflow", 1); 3], rejected_spans: 1, failures: 1 },
        logs: LogsReport { told: 1, dropped: [("queue", 1); 4], kept: (1, 1) },
    })
}

/// A service that was asked, and answered.
fn requests(address: SocketAddr) -> Option<HttpReport> {
    let facts = Arc::new(model::Service {
        name: "web".to_owned(),
        addresses: Vec::new(),
        hosts: Vec::new(),
        routes: Arc::default(),
        protocol: Protocol::Http,
        policy: Policy::RoundRobin,
        settings: Arc::default(),
        endpoints: vec![Endpoint::new(address)],
    });
    let share = Share { address, row: None, tier: Tier::Any, attended: 1, all: 1 };
    let entry =
        Entry { facts, limits: Limits::default(), circuits: None, row: None, mark: None, endpoints: vec![share] };
    let table = Table::new(vec![entry], Arc::default(), &States::default());
    let service = Arc::clone(table.service("web")?);
    let state = service.state();
    state.requests.first()?.fetch_add(1, Ordering::Relaxed);
    state.durations.add(Duration::from_millis(1));
    state.own_responses.count(proxy::Reason::NoEndpoint.status());
    state.rejected.count(proxy::Reason::NoEndpoint);
    let rejected = vec![(proxy::Reason::UnknownService, 1)];
    Some(HttpReport { services: vec![service], departed: Vec::new(), rejected, connections: Some(1) })
}
