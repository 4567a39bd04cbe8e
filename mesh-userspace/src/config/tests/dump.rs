//! What is written can be read again, and nothing that is read makes it panic.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The same configuration, written and read again.
fn reread(text: &str) -> Config {
    match check(text) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

fn assert_dumps(config: &Config) {
    assert_eq!(&reread(&serde_json::to_string(config).unwrap()), config);
    assert_eq!(&reread(&serde_json::to_string_pretty(&serde_json::to_value(config).unwrap()).unwrap()), config);
    assert_eq!(&reread(&serde_saphyr::to_string(config).unwrap()), config);
    let mut rest = config.clone();
    let facts = rest.take_services();
    assert!(rest.services.iter().all(|s| s.name.is_empty() && s.endpoints.is_empty()), "nothing is kept twice");
    assert_eq!(&rest.with_services(&facts), config, "what was taken out is put in again");
}

#[test]
fn a_dump_says_all_defaults() {
    let config = reread("services: [{ name: web }]");
    let settings = serde_json::json!({
        "protocol": "tcp",
        "load_balancing": {
            "policy": "round_robin",
            "maglev_size": 16381,
            "hash": { "header": "", "cookie": "", "source": true },
            "affinity": "0s",
            "same_family": false,
        },
        "connect_timeout": "1s",
        "request_timeout": "5s",
        "detect_timeout": "100ms",
        "idle_timeout": { "tcp": "0s", "http": "1m" },
        "health_check": {
            "type": "tcp",
            "path": "/",
            "host": "",
            "expected_status": ["200-399"],
            "interval": "5s",
            "timeout": "1s",
            "unhealthy_threshold": 3,
            "healthy_threshold": 2,
        },
        "circuit_breaker": {
            "failure_threshold": 5,
            "reset_timeout": "30s",
            "max_reset_timeout": "5m",
            "half_open_requests": 1,
            "max_open_percent": 50,
            "probe_interval": "1s",
            "count": ["connect_failure", "reset", "timeout", "5xx"],
            "success_rate": { "floor": 0.8, "window": "10s", "min_requests": 100 },
        },
        "limits": { "max_connections": 0, "max_pending_requests": 1024, "max_requests": 0 },
        "rate_limit": { "requests_per_second": 0, "burst": 0 },
        "retries": {
            "attempts": 1,
            "on": ["connect_failure", "refused_stream", "reset_before_request"],
            "per_try_timeout": "0s",
            "backoff": { "base": "25ms", "max": "250ms" },
            "budget": { "ratio": 0.2, "min_per_second": 10 },
        },
        "locality": { "prefer": "zone", "spill_below": 0.7 },
        "slow_start": "0s",
        "upstream": "auto",
        "when_daemon_down": "direct",
    });
    assert_eq!(
        serde_json::to_value(&config).unwrap(),
        serde_json::json!({
            "node": { "name": "node-a", "region": "", "zone": "", "state_dir": "/var/lib/mesh" },
            "admin": { "listen": "127.0.0.1:9901", "metrics_listen": "", "socket": "/run/mesh/admin.sock" },
            "dataplane": {
                "mode": "auto",
                "cgroup": "auto",
                "bpffs": "/sys/fs/bpf/mesh",
                "mark": 0x6d65_7368,
                "heartbeat_timeout": "3s",
                "stale_after": "10m",
                "when_stale": "auto",
                "bypass": { "cgroups": [], "cidrs": [] },
                "program_stats": false,
                "max_services": "auto",
                "max_endpoints": "auto",
                "max_slots": "auto",
            },
            "proxy": { "port": 15001, "http": "127.0.0.1:3000", "workers": 0, "drain_timeout": "30s" },
            "defaults": settings,
            "discovery": {
                "registry": { "ttl": "1m", "listen": "", "token_file": "" },
                "dns": { "refresh": "30s", "servers": [] },
                "etcd": {
                    "endpoints": [],
                    "prefix": "/mesh/services",
                    "username": "",
                    "password_file": "",
                    "ca_file": "",
                    "cert_file": "",
                    "key_file": "",
                },
                "kubernetes": { "enabled": "auto", "namespaces": [], "selector": "" },
                "vip_pool": "",
                "dns_listen": "",
                "empty_grace": "30s",
            },
            "services": [{
                "name": "web",
                "addresses": [],
                "hosts": [],
                "protocol": settings["protocol"],
                "load_balancing": settings["load_balancing"],
                "connect_timeout": settings["connect_timeout"],
                "request_timeout": settings["request_timeout"],
                "detect_timeout": settings["detect_timeout"],
                "idle_timeout": settings["idle_timeout"],
                "limits": settings["limits"],
                "rate_limit": settings["rate_limit"],
                "retries": settings["retries"],
                "upstream": settings["upstream"],
                "when_daemon_down": settings["when_daemon_down"],
                "health_check": settings["health_check"],
                "circuit_breaker": settings["circuit_breaker"],
                "locality": settings["locality"],
                "slow_start": settings["slow_start"],
                "endpoints": [],
                "routes": [],
            }],
            "telemetry": {
                "memory": "32MiB",
                "tracing": { "sample_rate": 0.1, "otlp": "", "ca_file": "", "keep": 2000 },
                "access_log": {
                    "enabled": true,
                    "sample_rate": 1,
                    "keep": 10_000,
                    "stderr": true,
                    "open_interval": "1m",
                },
                "log": { "format": "json", "level": "info" },
            },
        })
    );
    assert_dumps(&config);
}

#[test]
fn texts_that_look_like_something_else_survive_a_dump() {
    let zones = [
        "true", "null", "~", "1", "0x1", "1e3", ".5", "-", "yes", "a: b", " a", "#", "'", "\"", "\\", "é", "{}", "1:2",
    ];
    let endpoint = |(i, zone): (usize, &&str)| Endpoint {
        address: EndpointAddress(SocketAddr::from(([10, 0, 0, 1], u16::try_from(i + 1).unwrap()))),
        weight: 1,
        zone: (*zone).to_owned(),
        region: String::new(),
        node: String::new(),
        draining: i % 2 == 0,
    };
    let endpoints = zones.iter().enumerate().map(endpoint).collect();
    let name = "123".to_owned();
    let service = Service {
        name,
        addresses: Vec::new(),
        hosts: Box::default(),
        settings: Default::default(),
        endpoints,
        routes: Box::default(),
        dns: None,
        srv: None,
        etcd: None,
        kubernetes: None,
    };
    let node = Node { name: "1e3".to_owned(), ..Node::default() };
    assert_dumps(&Config { node, services: vec![service], ..Config::default() });
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = (1_u32..0xdfff_ffff).prop_map(|bits| Ipv4Addr::from_bits(bits).into());
    let v6 = any::<u64>().prop_map(|bits| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(bits)).into());
    (prop_oneof![v4, v6], 1..=u16::MAX).prop_map(|(ip, port): (std::net::IpAddr, u16)| SocketAddr::new(ip, port))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let label = || "[ -~é]{0,8}";
    (address(), any::<u16>(), label(), label(), label(), any::<bool>()).prop_map(
        |(address, weight, zone, region, node, draining)| Endpoint {
            address: EndpointAddress(address),
            weight,
            zone,
            region,
            node,
            draining,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let policy = select(vec![Policy::RoundRobin, Policy::Random, Policy::LeastConnections, Policy::Maglev]);
    let kind = select(vec![CheckType::Tcp, CheckType::Http, CheckType::Grpc, CheckType::None]);
    let prefer = select(vec![Prefer::None, Prefer::Node, Prefer::Zone, Prefer::Region]);
    let status = (100..=599_u16, 100..=599_u16).prop_map(|(a, b)| status::StatusRange::new(a.min(b), a.max(b)));
    let times = (10..600_000_u64, 100..=3_600_000_u64, 100..=86_400_000_u64, 100..=86_400_000_u64);
    let counts = (0..=1000_u32, 1..=31_u32, 1..=100_u32, 1..=1000_u32);
    (policy, kind, (prefer, 1..=1000_u32), vec(status, 1..4), "/[a-z0-9?%=]{0,6}", times, counts).prop_map(
        |(policy, kind, (prefer, spill_below), expected_status, path, (connect, interval, a, b), counts)| {
            let time = Duration::from_millis;
            Settings {
                load_balancing: LoadBalancing { policy, affinity: time(connect), ..LoadBalancing::default() },
                connect_timeout: time(connect),
                health_check: HealthCheck {
                    r#type: kind,
                    path,
                    expected_status,
                    interval: time(interval),
                    healthy_threshold: counts.3,
                    ..HealthCheck::default()
                },
                circuit_breaker: CircuitBreaker {
                    failure_threshold: counts.0,
                    reset_timeout: time(a.min(b)),
                    max_reset_timeout: time(a.max(b)),
                    half_open_requests: counts.1,
                    max_open_percent: counts.2,
                    probe_interval: time(interval),
                    ..CircuitBreaker::default()
                },
                locality: Locality { prefer, spill_below: Fraction::from_thousandths(spill_below) },
                slow_start: time(interval),
                ..Settings::default()
            }
        },
    )
}

/// Settings of HTTP over others.
fn of_requests() -> impl Strategy<Value = Settings> {
    let protocol = select(vec![Protocol::Http, Protocol::Grpc, Protocol::Auto]);
    let reasons =
        select(vec![RetryReason::Reset, RetryReason::ServerError, RetryReason::GatewayError, RetryReason::Timeout]);
    let counted = select(vec![Counted::ConnectFailure, Counted::Reset, Counted::Timeout, Counted::ServerError]);
    let upstream = select(vec![Upstream::Auto, Upstream::Http1, Upstream::Http2]);
    let counts = (0..=10_u32, any::<u32>(), 0..=10_000_000_u32, 0..=1000_u32);
    (settings(), protocol, (vec(reasons, 0..4), vec(counted, 0..4)), upstream, counts, (1..60_000_u64, 1..60_000_u64))
        .prop_map(|(settings, protocol, (on, count), upstream, counts, (a, b))| Settings {
            protocol,
            load_balancing: LoadBalancing {
                policy: Policy::PeakEwma,
                hash: HashOf { header: "X-A".to_owned(), cookie: "c".to_owned(), source: false },
                ..settings.load_balancing
            },
            request_timeout: Duration::from_millis(10 + a),
            idle_timeout: IdleTimeout { tcp: Duration::from_millis(100 + a), http: Duration::from_millis(100 + b) },
            circuit_breaker: CircuitBreaker {
                count,
                success_rate: SuccessRate { floor: Ratio::from_parts(counts.3), ..SuccessRate::default() },
                ..settings.circuit_breaker
            },
            limits: Limits { max_requests: counts.1, ..Limits::default() },
            rate_limit: RateLimit { requests_per_second: counts.2, burst: counts.2 },
            retries: Retries {
                attempts: counts.0,
                on,
                backoff: Backoff { base: Duration::from_millis(a.min(b)), max: Duration::from_millis(a.max(b)) },
                budget: Budget { ratio: Ratio::from_parts(counts.3), min_per_second: 3 },
                ..Retries::default()
            },
            upstream,
            when_daemon_down: WhenDown::Refuse,
            ..settings
        })
}

fn pairs(names: &'static str) -> impl Strategy<Value = Vec<(String, String)>> {
    let pair = (names, "[!-~]([ -~]{0,6}[!-~])?");
    vec(pair, 0..4).prop_map(|mut pairs: Vec<(String, String)>| {
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs
    })
}

fn route() -> impl Strategy<Value = Route> {
    let header = "x-[a-z0-9]{1,6}";
    let changes = || {
        (pairs("x-[a-z0-9]{1,6}"), pairs("x-[a-z0-9]{1,6}"), vec(header, 0..3))
            .prop_map(|(set, add, remove)| HeaderChanges { set, add, remove })
    };
    let path = "(/[a-z0-9._~-]{0,6}){0,3}";
    let percents =
        (0..=100_000_u32, 1..=100_000_u32).prop_map(|(a, b)| (Percent::from_parts(a), Percent::from_parts(b)));
    let over = (option::of(0..=10_u32), option::of(10..60_000_u64), option::of(0..=1000_u32), any::<bool>());
    (path, pairs(header), pairs("[ -~]{1,6}"), (changes(), changes()), percents, over).prop_map(
        |(path, headers, query, (request, response), (a, b), (attempts, time, ratio, redirects))| {
            let time = time.map(Duration::from_millis);
            let retries = RouteRetries {
                attempts,
                on: attempts.map(|_| Vec::new()),
                per_try_timeout: time,
                budget: RouteBudget { ratio: ratio.map(Ratio::from_parts), ..RouteBudget::default() },
                ..RouteRetries::default()
            };
            let redirect = Redirect { status: 308, host: "a.b:80".to_owned(), path: path.clone() };
            Route {
                r#match: Match {
                    path_prefix: path.clone(),
                    host: "*.A.b".to_owned(),
                    headers,
                    query,
                    ..Match::default()
                },
                rewrite: Rewrite { path_prefix: path, ..Rewrite::default() },
                headers: Headers { request, response },
                redirect: if redirects { redirect } else { Redirect::default() },
                fault: Fault { abort_status: 503, abort_percent: b, delay: Duration::from_millis(1), delay_percent: a },
                request_timeout: time,
                retries: attempts.map(|_| retries),
                ..Route::default()
            }
        },
    )
}

/// A service that may be one of HTTP.
fn service() -> impl Strategy<Value = Service> {
    let routed =
        (plain_service(), of_requests(), vec(route(), 0..4)).prop_map(|(mut service, settings, mut routes)| {
            let service_itself = Target { service: service.name.clone(), weight: 7 };
            for route in &mut routes {
                if route.redirect.is_nothing() {
                    route.to = vec![service_itself.clone()];
                    route.mirror = Mirror { service: service.name.clone(), percent: Percent::from_parts(1) };
                }
            }
            service.hosts = [format!("{}.host", service.name.replace(['.', '-'], "x"))].into();
            service.settings = std::sync::Arc::new(settings);
            service.routes = routes.into();
            service
        });
    prop_oneof![plain_service(), routed]
}

fn plain_service() -> impl Strategy<Value = Service> {
    (
        "[a-z0-9][a-z]([a-z0-9-]{0,3}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,3}[a-z0-9])?)?",
        vec(address(), 0..3),
        settings(),
        vec(endpoint(), 0..20),
    )
        .prop_map(|(name, addresses, settings, mut endpoints)| {
            endpoints.sort_by_key(|e| e.address);
            endpoints.dedup_by_key(|e| e.address);
            let settings = std::sync::Arc::new(settings);
            let addresses = addresses.into_iter().map(Vip).collect();
            Service {
                name,
                addresses,
                hosts: Box::default(),
                settings,
                endpoints,
                routes: Box::default(),
                dns: None,
                srv: None,
                etcd: None,
                kubernetes: None,
            }
        })
}

fn config() -> impl Strategy<Value = Config> {
    (vec(service(), 0..6), settings(), option::of(1_u32..1000), any::<u32>(), any::<bool>()).prop_map(
        |(mut services, defaults, room, mark, program_stats)| {
            let mut config = Config { defaults, ..Config::default() };
            config.node.name = "node-a".to_owned();
            config.dataplane.max_slots = room.map_or(Size::Auto, Size::Exact);
            config.dataplane.mark = mark.try_into().unwrap_or(config.dataplane.mark);
            config.dataplane.program_stats = program_stats;
            config.dataplane.cgroup =
                if program_stats { Cgroup::Auto } else { Cgroup::Path("/sys/fs/cgroup/a b".into()) };
            config.admin.metrics_listen = MaybeListen(program_stats.then(|| SocketAddr::from(([0, 0, 0, 0], 0))));
            services.sort_by(|a, b| a.name.cmp(&b.name));
            services.dedup_by(|a, b| a.name == b.name);
            let mut hosts = std::collections::HashSet::new();
            for service in &mut services {
                if !service.hosts.iter().all(|host| hosts.insert(host.clone())) {
                    service.hosts = Box::default();
                }
            }
            let mut seen = std::collections::HashSet::new();
            for service in &mut services {
                service.addresses.retain(|vip| seen.insert(*vip));
            }
            config.services = services;
            config
        },
    )
}

/// What a valid file can turn into under an editor's hands.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let files = vec![include_str!("contract.yaml"), include_str!("off.yaml"), include_str!("mistakes.txt")];
    let snippet = select(vec![
        "", ":", "- ", "\n", "[", "]", "{", "}", "\"", "'", "&a ", "*a", "!t ", "\t", "  ", "|", "? ", "#", "\0",
        "---\n",
    ]);
    let change = (any::<prop::sample::Index>(), 0..20_usize, prop_oneof![snippet.prop_map(str::to_owned), ".{0,4}"]);
    (select(files), vec(change, 1..12)).prop_map(|(file, changes)| {
        let mut bytes = file.as_bytes().to_vec();
        for (place, removed, inserted) in changes {
            let start = place.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, inserted.into_bytes());
        }
        bytes
    })
}

/// Reads whatever it is: the point is that it comes back, and that what it accepts it can write and read.
fn survives(bytes: Vec<u8>) {
    let file = (PathBuf::from("mesh.yaml"), bytes);
    let Ok(files) = Files::from_bytes([file]) else { return };
    let host = Host { name: "node-a".to_owned(), addresses: Vec::new() };
    match files.check(&host) {
        Ok(loaded) => assert_dumps(&loaded.config),
        Err(errors) => assert!(!errors.mistakes().is_empty() && !errors.to_string().is_empty()),
    }
}

proptest! {
    #[test]
    fn any_configuration_can_be_dumped_and_loaded_again(config in config()) {
        assert_dumps(&config);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..400)) {
        survives(bytes);
    }

    #[test]
    fn random_yaml_does_no_harm(text in "([a-z]{1,3}|[\\[\\]{},:?|>*&!%@#'\"\n\t -]|- |: |\n  |services|name|addresses|node|0x1){0,60}") {
        survives(text.into_bytes());
    }

    #[test]
    fn a_valid_file_with_random_changes_does_no_harm(bytes in mutated()) {
        survives(bytes);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    for (text, expected) in [
        ("[".repeat(100_000), "recursion limit exceeded"),
        ("- ".repeat(100_000), "nested deeper than 64 levels"),
        ("{a: ".repeat(100_000), "recursion limit exceeded"),
        ("? ".repeat(100_000), "nested deeper than 64 levels"),
        (format!("{}1{}", "[".repeat(100), "]".repeat(100)), "nested deeper than 64 levels"),
        (format!("{}: 1", "a".repeat(2_000_000)), "not YAML"),
        (format!("node: {{ name: {} }}", "a".repeat(2_000_000)), "expected at most 253 bytes"),
        ((0..100_000).map(|i| format!("k{}: 1\n", i / 2)).collect(), "this key stands twice"),
    ] {
        let start = std::time::Instant::now();
        let errors = check(&text).unwrap_err().to_string();
        assert!(errors.contains(expected), "{}", &errors[..errors.len().min(300)]);
        assert!(start.elapsed().as_secs() < 120);
    }
}
