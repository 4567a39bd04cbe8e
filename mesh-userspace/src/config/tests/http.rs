//! HTTP: what becomes facts, what is a warning, how files merge.

use super::*;
use crate::model;

const ALL: &str = r#"
proxy: { port: 16001, http: "", workers: 2, drain_timeout: 5s }
services:
  - name: web
    protocol: http
    hosts: [Web.Internal]
    endpoints: [{ address: "10.0.0.1:80" }]
    load_balancing: { policy: peak_ewma, hash: { header: X-User, cookie: Session, source: false } }
    request_timeout: 2s
    idle_timeout: { http: 0s }
    limits: { max_requests: 7 }
    rate_limit: { requests_per_second: 100, burst: 5 }
    circuit_breaker: { count: [5xx], success_rate: { floor: 0.25 } }
    retries: { attempts: 3, on: [reset, 5xx], backoff: { base: 10ms }, budget: { ratio: 0.333 } }
    upstream: http2
    when_daemon_down: refuse
    routes:
      - match: { path_prefix: /v2, method: POST, host: "*.Example.org", headers: { X-B: "1", x-a: A b }, query: { q: "a b" } }
        to: [{ service: next, weight: 10 }, { service: web }]
        rewrite: { path_prefix: /, host: "H:80" }
        headers: { request: { set: { X-Set: "1" }, add: { X-Add: "2" }, remove: [X-Gone] }, response: { remove: [X-Res] } }
        mirror: { service: next, percent: 0.5 }
        fault: { delay: 10ms, delay_percent: 12.345, abort_status: 503, abort_percent: 100 }
        request_timeout: 0s
        retries: { attempts: 0, budget: { min_per_second: 1 } }
      - redirect: { path: /x }
  - { name: next, protocol: grpc, endpoints: [{ address: "10.0.0.2:80" }] }
"#;

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn facts_say_all_that_http_services_say() {
    let loaded = check(ALL).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.proxy.http, MaybeListen(None));
    let services = loaded.config.services();
    let web = &services[0];
    assert_eq!((web.protocol, web.policy), (model::Protocol::Http, model::Policy::PeakEwma));
    assert_eq!(web.hosts, ["web.internal"]);
    let http = &web.settings.http;
    let seconds = std::time::Duration::from_secs;
    assert_eq!(http.hash, model::HashOn { header: "x-user".into(), cookie: "Session".into(), source: false });
    assert_eq!((http.request_timeout, http.idle_http), (seconds(2), seconds(0)));
    assert_eq!(http.limits, model::Limits { max_requests: 7, ..model::Limits::default() });
    assert_eq!(http.rate_limit, model::RateLimit { requests_per_second: 100, burst: 5 });
    assert_eq!((http.upstream, http.when_daemon_down), (model::Upstream::Http2, model::WhenDown::Refuse));
    assert_eq!((http.counted.server_error, http.counted.reset), (true, false));
    assert_eq!(http.success_rate.floor, 250);
    let retries = model::Retries {
        attempts: 3,
        on: model::RetryOn { reset: true, server_error: true, ..model::RetryOn::NONE },
        backoff_base: std::time::Duration::from_millis(10),
        budget_ratio: 333,
        ..model::Retries::default()
    };
    assert_eq!(http.retries, retries);
    let expected = model::Route {
        matches: model::Match {
            path_prefix: "/v2".into(),
            method: "POST".into(),
            host: "*.example.org".into(),
            headers: vec![pair("x-b", "1"), pair("x-a", "A b")],
            query: vec![pair("q", "a b")],
            ..model::Match::default()
        },
        to: vec![
            model::Target { service: "next".into(), weight: 10 },
            model::Target { service: "web".into(), weight: 1 },
        ],
        rewrite: model::Rewrite { path_prefix: "/".into(), host: "H:80".into() },
        request_headers: model::HeaderChanges {
            set: vec![pair("x-set", "1")],
            add: vec![pair("x-add", "2")],
            remove: vec!["x-gone".into()],
        },
        response_headers: model::HeaderChanges { remove: vec!["x-res".into()], ..model::HeaderChanges::default() },
        redirect: None,
        mirror: Some(model::Mirror { service: "next".into(), percent: 500 }),
        fault: model::Fault {
            delay: std::time::Duration::from_millis(10),
            delay_percent: 12_345,
            abort_status: 503,
            abort_percent: 100_000,
        },
        request_timeout: Some(seconds(0)),
        retries: Some(model::Retries { attempts: 0, budget_min_per_second: 1, ..retries }),
    };
    assert_eq!(web.routes[0], expected);
    let redirect = model::Redirect { status: 302, host: String::new(), path: "/x".into() };
    assert_eq!(web.routes[1], model::Route { redirect: Some(redirect), ..model::Route::default() });
}

#[test]
fn a_dump_of_http_services_can_be_loaded_again() {
    let config = check(ALL).unwrap().config;
    let dump = serde_json::to_string(&config).unwrap();
    assert_eq!(check(&dump).unwrap().config, config, "{dump}");
    assert_eq!(check(&serde_saphyr::to_string(&config).unwrap()).unwrap().config, config);
}

#[test]
fn services_without_routes_share_one_empty_list_of_them() {
    let services = check("services: [{ name: a }, { name: b }]").unwrap().config.services();
    assert!(std::sync::Arc::ptr_eq(&services[0].routes, &services[1].routes));
}

#[test]
fn what_has_no_effect_is_a_warning_where_it_is_stated() {
    let text = "defaults: { retries: { attempts: 2 }, request_timeout: 1s }\n\
                services:\n\
                - { name: a, addresses: [10.0.0.1:80], endpoints: [{ address: 10.0.1.1:80 }], limits: { max_requests: 1 },\n    \
                    load_balancing: { hash: { cookie: c } }, routes: [{}] }\n\
                - { name: b, protocol: http, endpoints: [{ address: 10.0.1.1:80 }], limits: { max_requests: 1 },\n    \
                    routes: [{ fault: { delay: 1s } }, { fault: { abort_percent: 1 } }, { mirror: { percent: 1 } }] }\n";
    let warnings: Vec<String> = check(text).unwrap().warnings.iter().map(ToString::to_string).collect();
    let remedy = "leave it out, or write protocol: http";
    assert_eq!(
        warnings,
        [
            format!("mesh.yaml:3:87: services[0].limits: it has no effect: the protocol of the service is tcp; {remedy}"),
            format!(
                "mesh.yaml:4:39: services[0].load_balancing.hash.cookie: it has no effect: the protocol of the service is tcp; \
                 {remedy}"
            ),
            "mesh.yaml:4:54: services[0].routes: routes have no effect: the protocol of the service a is tcp; write protocol: \
             http, grpc or auto"
                .to_owned(),
            "mesh.yaml:6:32: services[1].routes[0].fault.delay: it has no effect: delay_percent is 0; add delay_percent"
                .to_owned(),
            "mesh.yaml:6:66: services[1].routes[1].fault.abort_percent: it has no effect: abort_status is 0; add abort_status"
                .to_owned(),
            "mesh.yaml:6:83: services[1].routes[2].mirror: nothing is copied: it names no service; add service".to_owned(),
        ]
    );
}

#[test]
fn the_dump_of_a_tcp_service_is_loaded_without_a_warning() {
    let service = "services: [{ name: a, addresses: [10.0.0.1:80], endpoints: [{ address: 10.0.1.1:80 }] }]\n";
    for defaults in
        ["", "defaults: { retries: { attempts: 2 }, load_balancing: { hash: { header: x, source: false } } }\n"]
    {
        let loaded = check(&format!("{defaults}{service}")).unwrap();
        assert_eq!(loaded.warnings, []);
        let dump = serde_json::to_string(&loaded.config).unwrap();
        assert_eq!(check(&dump).unwrap().warnings, []);
    }
}

#[test]
fn a_port_of_the_proxy_that_nobody_asked_for_is_given_up() {
    let loaded = check("admin: { listen: 127.0.0.1:3000 }").unwrap();
    assert!(loaded.warnings[0].to_string().contains("127.0.0.1:3000 is admin.listen already"), "{loaded:?}");
    assert!(check("admin: { listen: 127.0.0.1:3000 }\nproxy: { http: 127.0.0.1:3000 }").is_err());
}

#[test]
fn a_later_file_replaces_the_routes_of_a_service_as_a_whole() {
    let config = check_all(&[
        (
            "mesh.yaml",
            "services: [{ name: a, protocol: http, routes: [{ match: { path: /1 } }, { match: { path: /2 } }] }]",
        ),
        ("conf.d/a.yaml", "services: [{ name: a, hosts: [x], routes: [{ match: { path: /3 } }] }]"),
    ]);
    let config = config.unwrap().config;
    let paths: Vec<&str> = config.services[0].routes.iter().map(|route| route.r#match.path.as_str()).collect();
    assert_eq!(paths, ["/3"]);
    let loaded = check_all(&[
        ("mesh.yaml", "services: [{ name: a, protocol: http }]"),
        ("conf.d/a.yaml", "services: [{ name: z }, { name: a, routes: [{}, { to: [{ service: none }] }] }]"),
    ]);
    let warnings: Vec<String> = loaded.unwrap().warnings.iter().map(ToString::to_string).collect();
    let expected = "conf.d/a.yaml:1:67: services[1].routes[1].to[0].service: no service of the files is named none; \
                    add it to services, unless discovery brings it";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

#[test]
fn a_policy_that_measures_requests_is_for_services_that_have_some() {
    for protocol in ["http", "grpc", "auto"] {
        let text = format!("services: [{{ name: a, protocol: {protocol}, load_balancing: {{ policy: peak_ewma }} }}]");
        assert!(check(&text).is_ok());
    }
    assert!(check("defaults: { load_balancing: { policy: peak_ewma } }").is_ok(), "no service has it");
}

#[test]
fn numbers_that_need_not_be_whole_survive_a_dump() {
    for parts in [0, 1, 333, 500, 999, 1000, 99_999, 100_000] {
        let percent = Percent::from_parts(parts);
        let written = serde_json::to_string(&percent).unwrap();
        assert_eq!(serde_json::from_str::<Percent>(&written).unwrap(), percent, "{written}");
    }
    assert_eq!(serde_json::from_str::<Ratio>("0.0001").unwrap().parts(), 1, "little is not nothing");
    assert!(serde_json::from_str::<Ratio>("1.1").is_err() && serde_json::from_str::<Ratio>("-0.1").is_err());
}
