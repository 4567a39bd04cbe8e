//! Answers for tests, with every kind of value in them.

use super::{
    Candidate, Circuit, CircuitState, ConfigStatus, Connection, ConnectionClient, Decision, Endpoint, EndpointCounts,
    EndpointHealth, Explanation, Live, LiveEndpoint, LiveService, LogLevels, LogLine, LoggedConnection, Map, Memory,
    Mode, ModuleLevel, Path, Percentiles, Policy, Program, Protocol, ProxyStatus, Rates, Readiness, RegistryInstance,
    Service, Source, Span, Status, Time, Totals, Trace, TraceSummary,
};
use std::time::{Duration, UNIX_EPOCH};

/// 2026-01-31T12:00:00Z.
pub(crate) fn noon() -> Time {
    Time::from(UNIX_EPOCH + Duration::from_secs(1_769_860_800))
}

pub(crate) fn instance() -> RegistryInstance {
    RegistryInstance {
        service: "checkout".to_owned(),
        id: "a".to_owned(),
        address: "10.0.1.5:8080".parse().unwrap(),
        weight: 2,
        zone: None,
        metadata: [("version".to_owned(), "1.2".to_owned())].into(),
        ttl: "60s".to_owned(),
        ttl_remaining_ms: 59_000.0,
        registered_at: noon(),
    }
}

pub(crate) fn services() -> Vec<Service> {
    let checkout = Service {
        name: "checkout".to_owned(),
        addresses: ["10.96.0.10:80", "[fd00::10]:80", "10.96.0.11:443"].map(|a| a.parse().unwrap()).into(),
        protocol: Protocol::Http,
        policy: Policy::RoundRobin,
        circuit: CircuitState::Closed,
        endpoints: EndpointCounts { total: 2, healthy: 2, open: 0, draining: 1 },
        intercepted: true,
        not_intercepted_reason: None,
        active_connections: 3,
        connections_total: 1_204,
        connect_failures_total: 7,
        retransmits_total: Some(12),
        connects_local_trouble_total: Some(1),
        sent_bytes_total: 1536,
        received_bytes_total: 20 << 20,
        connects_refused_total: Some([("no_endpoint".to_owned(), 2), ("family_mismatch".to_owned(), 5)].into()),
        connects_passed_total: Some([("bypass".to_owned(), 0)].into()),
        active_requests: 2,
        requests_total: 31_006,
        responses_5xx_total: 14,
        requests_rejected_total: [("no_endpoint".to_owned(), 4), ("rate_limited".to_owned(), 9)].into(),
    };
    let search = Service {
        name: "search".to_owned(),
        addresses: vec!["10.96.0.20:9200".parse().unwrap()],
        protocol: Protocol::Tcp,
        policy: Policy::Random,
        endpoints: EndpointCounts::default(),
        active_connections: 0,
        connections_total: 0,
        connect_failures_total: 0,
        retransmits_total: Some(0),
        connects_local_trouble_total: Some(0),
        sent_bytes_total: 0,
        received_bytes_total: 0,
        connects_refused_total: Some([].into()),
        connects_passed_total: Some([].into()),
        active_requests: 0,
        requests_total: 0,
        responses_5xx_total: 0,
        requests_rejected_total: [].into(),
        ..checkout.clone()
    };
    vec![checkout, search]
}

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let first = Endpoint {
        service: "checkout".to_owned(),
        address: "10.0.1.5:8080".parse().unwrap(),
        weight: 2,
        zone: Some("eu-west-1a".to_owned()),
        health: EndpointHealth::Healthy,
        circuit: CircuitState::Closed,
        draining: false,
        active_connections: 3,
        active_requests: 0,
        connections_total: 1_204,
        connect_failures_total: 7,
        sent_bytes_total: 1536,
        received_bytes_total: 20 << 20,
        latency_ewma_ms: Some(1.25),
        region: Some("eu-west".to_owned()),
        node: None,
        retransmits_total: Some(12),
        connect_ms: Some(0.25),
        picked_total: Some(1_211),
        connections_closed_total: 1_201,
        responses_total: 0,
        responses_5xx_total: 0,
        connect_failures: [("refused".to_owned(), 7)].into(),
    };
    let second = Endpoint {
        address: "[fd00:1::5]:8080".parse().unwrap(),
        weight: 0,
        zone: None,
        health: EndpointHealth::Unknown,
        draining: true,
        active_connections: 0,
        connections_total: 0,
        connect_failures_total: 0,
        sent_bytes_total: 0,
        received_bytes_total: 0,
        latency_ewma_ms: None,
        region: None,
        retransmits_total: Some(0),
        connect_ms: None,
        picked_total: Some(0),
        connections_closed_total: 0,
        connect_failures: [].into(),
        ..first.clone()
    };
    vec![first, second]
}

pub(crate) fn connections() -> Vec<Connection> {
    let first = Connection {
        service: Some("checkout".to_owned()),
        endpoint: "10.0.1.5:8080".parse().unwrap(),
        client: ConnectionClient {
            address: Some("10.0.9.1:40000".parse().unwrap()),
            pid: Some(4711),
            command: Some("curl".to_owned()),
            cgroup: Some("/shop/frontend".to_owned()),
            pod: None,
            netns: Some(4_026_531_840),
            cgroup_id: 77,
            netns_cookie: 1,
        },
        original_destination: "10.96.0.10:80".parse().unwrap(),
        path: Path::Direct,
        state: "established".to_owned(),
        sent_bytes: 1536,
        received_bytes: 20 << 20,
        rtt_us: Some(250),
        retransmits: 2,
        age_ms: 61_000.5,
        connect_ms: Some(0.25),
        attempt: 1,
    };
    let second = Connection {
        service: None,
        endpoint: "[fd00:1::5]:8080".parse().unwrap(),
        client: ConnectionClient { address: None, pid: None, command: None, cgroup: None, ..first.client.clone() },
        original_destination: "[fd00::10]:80".parse().unwrap(),
        state: "syn_sent".to_owned(),
        sent_bytes: 0,
        received_bytes: 0,
        rtt_us: None,
        retransmits: 0,
        age_ms: 120.0,
        connect_ms: None,
        ..first.clone()
    };
    vec![first, second]
}

pub(crate) fn logs() -> Vec<LogLine> {
    let request = LogLine {
        time: noon(),
        kind: "request".to_owned(),
        service: Some("checkout".to_owned()),
        endpoint: Some("10.0.1.5:8080".parse().unwrap()),
        client: Some("10.0.9.1:40000".parse().unwrap()),
        method: Some("GET".to_owned()),
        path: Some("/cart?\u{1b}[2J".to_owned()),
        status: Some(503),
        duration_ms: 12.5,
        sent_bytes: 0,
        received_bytes: 1536,
        attempts: 2,
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
        reason: Some("upstream_reset".to_owned()),
        connection: None,
    };
    let connection = LogLine {
        kind: "connection".to_owned(),
        client: Some("[fd00::9]:40000".parse().unwrap()),
        method: None,
        path: None,
        status: None,
        duration_ms: 61_000.0,
        sent_bytes: 20 << 20,
        attempts: 1,
        trace_id: None,
        reason: None,
        connection: Some(LoggedConnection {
            pid: Some(4711),
            command: Some("evil\u{7}".to_owned()),
            cgroup: Some("/shop/frontend".to_owned()),
            pod: None,
            original_destination: "[fd00::10]:80".parse().unwrap(),
            connect_ms: Some(0.25),
            rtt_us: Some(250),
            retransmits: 2,
            refusals: None,
        }),
        ..request.clone()
    };
    let refused = LogLine {
        endpoint: None,
        client: None,
        duration_ms: 900.0,
        sent_bytes: 0,
        received_bytes: 0,
        attempts: 0,
        reason: Some("no_endpoint".to_owned()),
        connection: Some(LoggedConnection {
            connect_ms: None,
            rtt_us: None,
            retransmits: 0,
            refusals: Some(17),
            ..connection.connection.clone().unwrap()
        }),
        ..connection.clone()
    };
    vec![request, connection, refused]
}

pub(crate) fn log_levels() -> LogLevels {
    let module = ModuleLevel { module: "mesh_userspace::proxy".to_owned(), level: "debug".to_owned() };
    LogLevels { level: "info".to_owned(), modules: vec![module] }
}

pub(crate) fn circuits() -> Vec<Circuit> {
    let first = Circuit {
        service: "checkout".to_owned(),
        endpoint: "10.0.1.5:8080".parse().unwrap(),
        state: CircuitState::Closed,
        consecutive_failures: 2,
        openings: 0,
        retry_at: None,
        forced: false,
    };
    let second = Circuit {
        endpoint: "10.0.1.6:8080".parse().unwrap(),
        state: CircuitState::Open,
        consecutive_failures: 5,
        openings: 3,
        retry_at: Some(Time::from(noon().system_time() + Duration::from_secs(90))),
        ..first.clone()
    };
    let third = Circuit {
        endpoint: "[fd00:1::5]:8080".parse().unwrap(),
        state: CircuitState::Open,
        consecutive_failures: 0,
        forced: true,
        ..first.clone()
    };
    vec![first, second, third]
}

pub(crate) fn explanation() -> Explanation {
    Explanation {
        address: "10.96.0.10:80".parse().unwrap(),
        service: Some("checkout".to_owned()),
        route: None,
        policy: Some(Policy::RoundRobin),
        decision: Decision::Forwarded,
        reason: None,
        explanation: "The connection goes to one of 1 endpoints, each in turn.".to_owned(),
        endpoints: vec![
            Candidate {
                service: Some("checkout".to_owned()),
                address: "10.0.1.5:8080".parse().unwrap(),
                weight: 2,
                tier: None,
                health: EndpointHealth::Healthy,
                circuit: CircuitState::Closed,
                draining: false,
                candidate: true,
                reason: "takes connections".to_owned(),
                share: 1.0,
            },
            Candidate {
                service: Some("checkout".to_owned()),
                address: "[fd00:1::5]:8080".parse().unwrap(),
                weight: 0,
                tier: None,
                health: EndpointHealth::Unknown,
                circuit: CircuitState::Closed,
                draining: true,
                candidate: false,
                reason: "draining".to_owned(),
                share: 0.0,
            },
        ],
    }
}

pub(crate) fn status() -> Status {
    let program = Program {
        name: "mesh_connect4".to_owned(),
        hook: "cgroup/connect4".to_owned(),
        attached: true,
        missing_reason: None,
        runs: None,
        mean_ns: None,
    };
    Status {
        node: "node-a".to_owned(),
        version: "0.1.0".to_owned(),
        uptime_s: 11_520,
        mode: Mode::Ebpf,
        bypass: false,
        interception_ok: Some(true),
        config: ConfigStatus {
            path: Some("/etc/mesh/mesh.yaml".to_owned()),
            loaded_at: Some(noon()),
            error: Some("services[0].name: \"A\" is no name\nservices[1].addresses[0]: port 0".to_owned()),
        },
        programs: vec![
            program.clone(),
            Program {
                name: "mesh_getpeername4".to_owned(),
                hook: "cgroup/getpeername4".to_owned(),
                attached: false,
                missing_reason: Some("this kernel has no such hook".to_owned()),
                ..program
            },
        ],
        maps: vec![
            Map { name: "ENDPOINTS".to_owned(), entries: Some(12), capacity: 65_536, bytes: Some(6 << 20) },
            Map { name: "SLOTS".to_owned(), entries: None, capacity: 1 << 20, bytes: None },
        ],
        sources: vec![Source {
            name: "config".to_owned(),
            synced: true,
            last_update: Some(noon()),
            error: None,
            stale_since: None,
        }],
        services: 2,
        endpoints: 2,
        connections: 3,
        proxy: Some(ProxyStatus {
            http: Some("127.0.0.1:3000".parse().unwrap()),
            http_error: None,
            workers: 2,
            workers_ok: true,
            connections: 12,
        }),
        pid: Some(4312),
        cgroup: Some("/sys/fs/cgroup".to_owned()),
        bpffs: Some("/sys/fs/bpf/mesh".to_owned()),
        memory: Some(Memory { resident_bytes: Some(12 << 20), kernel_bytes: Some(8 << 20) }),
        other_programs: Vec::new(),
        warnings: vec!["service search: 127.0.0.1:80 is a loopback address".to_owned()],
    }
}

pub(crate) fn config() -> serde_json::Value {
    serde_json::json!({
        "node": { "name": "node-a", "zone": "" },
        "admin": { "listen": "127.0.0.1:9901", "socket": "/run/mesh/admin.sock" },
        "services": [{ "name": "checkout", "addresses": ["10.96.0.10:80", "[fd00::10]:80"], "endpoints": [] }],
    })
}

pub(crate) fn traces() -> Vec<TraceSummary> {
    let retried = TraceSummary {
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        service: Some("checkout".to_owned()),
        endpoint: Some("10.0.1.6:8080".parse().unwrap()),
        method: "GET".to_owned(),
        path: "/cart?id=7".to_owned(),
        status: Some(200),
        start: noon(),
        duration_ms: 40.0,
        attempts: 2,
        sampled: false,
        reason: None,
    };
    let gone = TraceSummary {
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        service: None,
        endpoint: None,
        status: Some(404),
        duration_ms: 0.02,
        attempts: 0,
        reason: Some("unknown_service".to_owned()),
        ..retried.clone()
    };
    vec![retried, gone]
}

pub(crate) fn trace() -> Trace {
    let request = "00f067aa0ba902b7";
    let span = |name: &str, id: &str, [offset, duration]: [f64; 2], endpoint: Option<&str>, error: Option<&str>| Span {
        name: name.to_owned(),
        kind: if name == "attempt" { "client" } else { "internal" }.to_owned(),
        span_id: id.to_owned(),
        parent_id: Some(request.to_owned()),
        start: noon(),
        offset_ms: offset,
        duration_ms: duration,
        error: error.map(str::to_owned),
        attributes: endpoint.map(|endpoint| ("mesh.endpoint".to_owned(), endpoint.into())).into_iter().collect(),
    };
    let first = Some("10.0.1.5:8080");
    let second = Some("10.0.1.6:8080");
    let whole = Span {
        kind: "server".to_owned(),
        parent_id: None,
        attributes: [("http.response.status_code".to_owned(), 200.into())].into(),
        ..span("GET checkout", request, [0.0, 40.0], None, None)
    };
    Trace {
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        spans: vec![
            whole,
            span("pick", "0000000000000001", [0.0, 0.0], first, None),
            span("attempt", "0000000000000002", [0.0, 10.0], first, Some("connect_failure")),
            span("pick", "0000000000000003", [10.0, 0.0], second, None),
            span("attempt", "0000000000000004", [22.0, 18.0], second, None),
        ],
    }
}

pub(crate) fn live() -> Live {
    let rates = Rates { requests_per_s: Some(12.5), ..Rates::default() };
    let percentiles = Some(Percentiles { p50_ms: 1.0, p90_ms: 2.5, p99_ms: 40.0 });
    let service = |service| LiveService { service, rates, request_percentiles: percentiles, connect_percentiles: None };
    let endpoint = |endpoint| LiveEndpoint { endpoint, rates, connect_percentiles: percentiles };
    Live {
        time: noon(),
        status: status(),
        ready: Readiness { ready: true, reasons: Vec::new() },
        totals: Totals { rates, ..Totals::default() },
        services: services().into_iter().map(service).collect(),
        endpoints: endpoints().into_iter().map(endpoint).collect(),
        endpoints_left_out: 0,
    }
}
