//! What became of requests, as Prometheus text. A service that was never asked takes no line.

use super::text::{Bounds, Kind, Text};
use crate::proxy::{DURATION_BOUNDS, EndpointState, METHODS, Reason, Retry, Service, ServiceState};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// What is exported of requests.
#[derive(Clone, Debug, Default)]
pub struct HttpReport {
    /// The services that requests can be sent to, by name.
    pub services: Vec<Arc<Service>>,
    /// Endpoints that left their services: what they answered is still told.
    pub departed: Vec<(Arc<str>, SocketAddr, Arc<EndpointState>)>,
    /// Answers of the proxy's own to requests that were for no service.
    pub rejected: Vec<(Reason, u64)>,
    /// Connections of clients that are open; `None`: there is no proxy.
    pub connections: Option<u64>,
}

/// A gauge of every service: name, help, and where its value lies.
type OfService = (&'static str, &'static str, fn(&ServiceState) -> &AtomicU32);

const OF_SERVICES: [OfService; 3] = [
    ("mesh_requests_active", "Requests on their way now.", |s| &s.active),
    ("mesh_requests_pending", "Requests that wait for a connection to an endpoint now.", |s| &s.pending),
    ("mesh_upstream_connections", "Connections from the proxy to endpoints that are open now.", |s| &s.connections),
];

/// Adds what there is to tell.
pub(super) fn add(report: &HttpReport, text: &mut Text<'_>) {
    let asked: Vec<(&str, &Service)> =
        report.services.iter().filter(|s| s.state().was_asked()).map(|s| (&**s.name(), &**s)).collect();
    let asked = || asked.iter().copied();
    text.family(("http_requests_total", "Requests, by method.", Kind::Counter), ["service", "method"], |metrics| {
        for (name, service) in asked() {
            let requests = METHODS.into_iter().zip(&service.state().requests);
            let counted = requests.map(|(method, n)| (method, n.load(Ordering::Relaxed))).filter(|(_, n)| *n > 0);
            counted.for_each(|(method, n)| metrics.whole([name, method], n));
        }
    });
    let responses = asked().flat_map(|(name, service)| {
        let endpoints = service.endpoints().map(move |(address, state)| (name, Some(address), &state.responses));
        endpoints.chain(std::iter::once((name, None, &service.state().own_responses)))
    });
    let departed = report.departed.iter().map(|(name, address, state)| (&**name, Some(*address), &state.responses));
    let help = "Responses, by the endpoint that gave them (none: the proxy itself) and by status.";
    text.family(("http_responses_total", help, Kind::Counter), ["service", "endpoint", "status"], |metrics| {
        for (name, address, responses) in responses.chain(departed) {
            let endpoint = address.map_or_else(String::new, |address| address.to_string());
            for (status, n) in responses.counts() {
                metrics.whole([name, &endpoint, itoa::Buffer::new().format(status)], n);
            }
        }
    });
    let bounds = Bounds::new(DURATION_BOUNDS.into_iter());
    let help = "From the head of a request to the end of its answer.";
    text.histograms(("http_request_duration_seconds", help), ["service"], &bounds, |histograms| {
        for (name, service) in asked() {
            let (counts, sum_us) = service.state().durations.read();
            if counts.iter().any(|n| *n > 0) {
                histograms.add([name], &counts, sum_us as f64 / 1e6);
            }
        }
    });
    let help = "Extra tries of requests, by what became of them.";
    text.family(("mesh_retries_total", help, Kind::Counter), ["service", "outcome"], |metrics| {
        for (name, service) in asked() {
            for retry in Retry::ALL {
                let n = service.state().retries[retry as usize].load(Ordering::Relaxed);
                metrics.whole([name, retry.word()], n);
            }
        }
    });
    let help = "Requests that the proxy answered itself, by reason; without a service: requests that were for none.";
    text.family(("mesh_requests_rejected_total", help, Kind::Counter), ["service", "reason"], |metrics| {
        report.rejected.iter().for_each(|(reason, n)| metrics.whole(["", reason.word()], *n));
        for (name, service) in asked() {
            service.state().rejected.counts().for_each(|(reason, n)| metrics.whole([name, reason.word()], n));
        }
    });
    for (name, help, value) in OF_SERVICES {
        text.family((name, help, Kind::Gauge), ["service"], |metrics| {
            asked().for_each(|(service, s)| metrics.whole([service], value(s.state()).load(Ordering::Relaxed).into()));
        });
    }
    let help = "Connections of clients to the proxy that are open now.";
    text.one(("mesh_downstream_connections", help, Kind::Gauge), report.connections);
}

#[cfg(test)]
mod tests {
    use super::{super::text::tests::whole_text, *};
    use crate::{
        model::{self, Endpoint, Policy, Protocol},
        policy::Tier,
        proxy::{Entry, Share, States, Table},
    };
    use http::StatusCode;
    use mesh_common::breaker::Limits;
    use std::time::Duration;

    const AT: &str = "10.0.0.1:80";

    fn service(name: &str) -> Entry {
        let address: SocketAddr = AT.parse().unwrap();
        let facts = Arc::new(model::Service {
            name: name.to_owned(),
            addresses: Vec::new(),
            hosts: Vec::new(),
            routes: Arc::default(),
            protocol: Protocol::Http,
            policy: Policy::RoundRobin,
            settings: Arc::default(),
            endpoints: vec![Endpoint::new(address)],
        });
        let share = Share { address, row: None, tier: Tier::Any, attended: 1, all: 1 };
        Entry { facts, limits: Limits::default(), circuits: None, row: None, mark: None, endpoints: vec![share] }
    }

    fn text(report: &HttpReport) -> String {
        whole_text(|text| add(report, text))
    }

    #[test]
    fn what_became_of_requests_is_printed_of_services_that_were_asked() {
        let table = Table::new(vec![service("idle"), service("web")], Arc::default(), &States::default());
        let services: Vec<Arc<Service>> = ["idle", "web"].map(|name| Arc::clone(table.service(name).unwrap())).into();
        let web = &services[1];
        web.state().requests[0].fetch_add(3, Ordering::Relaxed);
        web.state().active.fetch_add(2, Ordering::Relaxed);
        web.state().retries[Retry::OverBudget as usize].fetch_add(1, Ordering::Relaxed);
        web.state().rejected.count(Reason::NoEndpoint);
        web.state().own_responses.count(StatusCode::SERVICE_UNAVAILABLE);
        let endpoint = web.endpoint(AT.parse().unwrap()).unwrap();
        endpoint.responses.count(StatusCode::OK);
        endpoint.responses.count(StatusCode::OK);
        for ms in [1, 2, 40_000] {
            web.state().durations.add(Duration::from_millis(ms));
        }
        let report = HttpReport {
            services,
            departed: Vec::new(),
            rejected: vec![(Reason::UnknownService, 4)],
            connections: Some(7),
        };
        let text = text(&report);
        for line in [
            r#"http_requests_total{service="web",method="GET"} 3"#,
            r#"http_responses_total{service="web",endpoint="10.0.0.1:80",status="200"} 2"#,
            r#"http_responses_total{service="web",endpoint="",status="503"} 1"#,
            "# TYPE http_request_duration_seconds histogram",
            r#"http_request_duration_seconds_bucket{service="web",le="0.001"} 1"#,
            r#"http_request_duration_seconds_bucket{service="web",le="0.002"} 2"#,
            r#"http_request_duration_seconds_bucket{service="web",le="32.768"} 2"#,
            r#"http_request_duration_seconds_bucket{service="web",le="+Inf"} 3"#,
            r#"http_request_duration_seconds_sum{service="web"} 40.003"#,
            r#"http_request_duration_seconds_count{service="web"} 3"#,
            r#"mesh_retries_total{service="web",outcome="over_budget"} 1"#,
            r#"mesh_retries_total{service="web",outcome="success"} 0"#,
            r#"mesh_requests_rejected_total{service="",reason="unknown_service"} 4"#,
            r#"mesh_requests_rejected_total{service="web",reason="no_endpoint"} 1"#,
            r#"mesh_requests_active{service="web"} 2"#,
            r#"mesh_requests_pending{service="web"} 0"#,
            r#"mesh_upstream_connections{service="web"} 0"#,
            "mesh_downstream_connections 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("idle"), "{text}");
        assert!(!text.contains("POST"), "only methods that were used: {text}");
    }

    #[test]
    fn without_a_proxy_nothing_is_printed() {
        assert_eq!(text(&HttpReport::default()), "");
    }
}
