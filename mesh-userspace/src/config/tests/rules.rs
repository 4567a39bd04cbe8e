//! Rules over several values, warnings, reload and the schema.

use super::*;
use serde_json::Value;

fn warnings(text: &str) -> Vec<String> {
    check(text).unwrap().warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_allowed_but_surprising_is_a_warning() {
    let found = warnings(
        "admin: { listen: 0.0.0.0:9901 }\n\
         services:\n\
         - { name: loop, addresses: [127.0.0.1:80], endpoints: [{ address: 127.0.0.1:8080 }] }\n\
         - { name: own, addresses: ['[::ffff:192.0.2.7]:80'], endpoints: [{ address: 10.0.1.1:80 }] }\n\
         - { name: none }\n\
         - { name: empty, addresses: [10.0.0.1:80] }\n\
         - { name: family, addresses: [10.0.0.2:80], endpoints: [{ address: '[fd00::1]:80' }] }\n\
         - { name: same, load_balancing: { same_family: true }, addresses: ['[fd00::2]:80'], endpoints: [{ address: 10.0.2.1:80 }] }\n\
         - { name: chained, addresses: [10.0.0.3:80], endpoints: [{ address: 10.0.0.1:80 }] }\n",
    );
    assert_eq!(
        found,
        [
            "mesh.yaml:1:18: admin.listen: everyone who reaches 0.0.0.0:9901 can read services, endpoints and configuration; \
             admin.metrics_listen serves metrics and health only",
            "mesh.yaml:3:29: services[0].addresses[0]: 127.0.0.1:80 is a loopback address: what listens there can no longer be \
             reached from this node",
            "mesh.yaml:4:28: services[1].addresses[0]: 192.0.2.7:80 is an address of this node: what listens there can no longer \
             be reached from this node",
            "mesh.yaml:5:3: services[2]: the service none has no addresses; no connection reaches it until it has one",
            "mesh.yaml:6:3: services[3]: the service empty has no endpoints; connections to it are refused until it has one",
            "mesh.yaml:7:3: services[4]: the service family has an IPv4 address and only IPv6 endpoints; IPv4 connections to it \
             are refused (family_mismatch)",
            "mesh.yaml:8:3: services[5]: the service same has an IPv6 address, load_balancing.same_family and only IPv4 \
             endpoints; IPv6 connections to it are refused (family_mismatch)",
            "mesh.yaml:9:69: services[6].endpoints[0].address: 10.0.0.1:80 is an address of the service empty; connections go to \
             that very address: they are not balanced a second time",
        ]
    );
}

#[test]
fn an_address_that_stands_twice_is_found_also_in_a_long_list() {
    let endpoints: Vec<String> = (1..=100).chain([7]).map(|port| format!("{{ address: 10.0.1.1:{port} }}")).collect();
    let errors = check(&format!("services: [{{ name: a, endpoints: [{}] }}]", endpoints.join(", "))).unwrap_err();
    assert_eq!(errors.mistakes().len(), 1);
    assert_eq!(errors.mistakes()[0].field, "services[0].endpoints[100].address");
}

#[test]
fn room_that_suffices_is_accepted() {
    let text = "dataplane: { max_services: 1, max_endpoints: 2, max_slots: 7, mark: 0x10 }\n\
                services: [{ name: a, endpoints: [{ address: 10.0.0.1:1 }, { address: 10.0.0.1:2 }] }]";
    let dataplane = check(text).unwrap().config.dataplane;
    assert_eq!(dataplane.max_services.exact(), Some(1));
    assert_eq!(dataplane.max_slots.exact(), Some(7));
    assert_eq!(dataplane.mark.get(), 16);
}

#[test]
fn facts_say_all_that_an_endpoint_says() {
    let loaded = check(
        "services: [{ name: a, endpoints: [{ address: '[fd00::1]:1', weight: 0, zone: z, region: r, node: n, draining: true }] }]",
    );
    let services = loaded.unwrap().config.services();
    let expected = crate::model::Endpoint {
        address: "[fd00::1]:1".parse().unwrap(),
        weight: 0,
        zone: "z".to_owned(),
        region: "r".to_owned(),
        node: "n".to_owned(),
        draining: true,
        tripped: false,
    };
    assert_eq!(services[0].endpoints, [expected]);
}

#[test]
fn the_defaults_are_those_of_the_facts() {
    assert_eq!(crate::model::Settings::from(&Settings::default()), crate::model::Settings::default());
}

#[test]
fn facts_say_all_that_is_set_and_a_service_wins_key_by_key() {
    use crate::model;
    let text = "
        node: { region: eu, zone: eu-1 }
        defaults:
          load_balancing: { policy: maglev, maglev_size: 251, affinity: 1m, same_family: true, hash: { source: true } }
          connect_timeout: 0s
          health_check: { type: http, path: /up, host: a.example, expected_status: [204, 300-302], interval: 1s }
          circuit_breaker: { failure_threshold: 0, reset_timeout: 2s, half_open_requests: 3, max_open_percent: 10 }
          locality: { prefer: region, spill_below: 1 }
          slow_start: 30s
        services:
          - { name: a }
          - { name: b, health_check: { timeout: 250ms, type: none }, circuit_breaker: { probe_interval: 3s }, locality: { spill_below: 0.5 } }
          - { name: c, health_check: { timeout: 250ms } }
          - { name: d, health_check: { type: grpc } }
          - { name: e, load_balancing: { policy: least_connections } }";
    let config = check(text).unwrap().config;
    assert_eq!(
        config.node(),
        model::Node { name: "node-a".to_owned(), zone: "eu-1".to_owned(), region: "eu".to_owned() }
    );
    let seconds = std::time::Duration::from_secs;
    let services = config.services();
    let expected = model::Settings {
        maglev_size: 251,
        affinity: seconds(60),
        same_family: true,
        connect_timeout: seconds(0),
        health_check: Some(model::HealthCheck {
            probe: model::HealthProbe::Http {
                path: "/up".to_owned(),
                host: "a.example".to_owned(),
                expected_status: vec![204..=204, 300..=302],
            },
            interval: seconds(1),
            ..model::HealthCheck::default()
        }),
        breaker: model::Breaker {
            failure_threshold: 0,
            reset_timeout: seconds(2),
            half_open_requests: 3,
            max_open_percent: 10,
            ..model::Breaker::default()
        },
        locality: model::Locality { prefer: model::Prefer::Region, spill_below: 1000 },
        slow_start: seconds(30),
        http: model::Http::default(),
    };
    assert_eq!(*services[0].settings, expected);
    assert_eq!(services[0].policy, model::Policy::Maglev);
    let changed = model::Settings {
        health_check: None,
        breaker: model::Breaker { probe_interval: seconds(3), ..expected.breaker.clone() },
        locality: model::Locality { spill_below: 500, ..expected.locality },
        ..expected.clone()
    };
    assert_eq!(*services[1].settings, changed);
    let check = services[2].settings.health_check.as_ref().unwrap();
    assert_eq!((check.timeout, check.interval), (std::time::Duration::from_millis(250), seconds(1)));
    assert_eq!(services[3].settings.health_check.as_ref().unwrap().probe, model::HealthProbe::Grpc);
    assert_eq!(services[4].policy, model::Policy::LeastConnections);
    assert!(std::sync::Arc::ptr_eq(&services[0].settings, &services[4].settings), "the policy is no part of them");
}

#[test]
fn equal_settings_are_kept_once() {
    use std::sync::Arc;
    let services: Vec<String> = (0..1000)
        .map(|i| format!("{{ name: s{i}, slow_start: {}s, health_check: {{ type: http }} }}", i % 2))
        .collect();
    let config = check(&format!("services: [{}]", services.join(","))).unwrap().config;
    let facts = config.services();
    for i in 2..1000 {
        assert!(Arc::ptr_eq(&config.services[i].settings, &config.services[i % 2].settings));
        assert!(Arc::ptr_eq(&facts[i].settings, &facts[i % 2].settings));
    }
}

#[test]
fn odd_times_are_a_warning() {
    assert_eq!(
        warnings(
            "defaults: { health_check: { interval: 500ms } }\ndataplane: { heartbeat_timeout: 5s, stale_after: 2s }"
        ),
        [
            "mesh.yaml:1:39: defaults.health_check.interval: timeout, 1s, is longer than interval, 500ms; an endpoint that does \
             not answer is checked less often than interval says",
            "mesh.yaml:2:33: dataplane.heartbeat_timeout: 5s is more than stale_after, 2s, and has no effect; a daemon gone for \
             that long is already stale",
        ]
    );
}

#[test]
fn a_reload_may_change_services_and_telemetry() {
    let old = check("services: [{ name: a }]").unwrap().config;
    let new =
        check("services: [{ name: b }]\ntelemetry: { log: { level: debug } }\ndefaults: { protocol: tcp }").unwrap();
    assert_eq!(reload(&old, &new.config), Ok(()));
}

#[test]
fn a_reload_that_needs_a_restart_names_every_key() {
    let old = check("").unwrap().config;
    let new =
        check("node: { name: b, zone: z }\nadmin: { listen: 127.0.0.1:1 }\ndataplane: { cgroup: /x, max_slots: 5 }")
            .unwrap();
    assert_eq!(
        reload(&old, &new.config).unwrap_err(),
        [
            "node.name needs a restart: running with \"node-a\", the file says \"b\"",
            "node.zone needs a restart: running with \"\", the file says \"z\"",
            "admin.listen needs a restart: running with \"127.0.0.1:9901\", the file says \"127.0.0.1:1\"",
            "dataplane.cgroup needs a restart: running with \"auto\", the file says \"/x\"",
            "dataplane.max_slots needs a restart: running with \"auto\", the file says 5",
        ]
    );
}

#[test]
fn the_schema_is_closed_described_and_speaks_of_json_only() {
    fn walk(path: &str, schema: &Value, seen: &mut usize) {
        let Value::Object(object) = schema else { return };
        assert!(!object.contains_key("x-kind") && !object.contains_key("$ref"), "{path}");
        if let Some(Value::Object(properties)) = object.get("properties") {
            assert_eq!(object.get("additionalProperties"), Some(&Value::Bool(false)), "{path}");
            for (key, schema) in properties {
                *seen += 1;
                let path = format!("{path}/{key}");
                assert!(schema.get("description").is_some(), "{path} has no description");
                walk(&path, schema, seen);
            }
        }
        if let Some(items) = object.get("items") {
            walk(&format!("{path}[]"), items, seen);
        }
    }
    let schema = schema();
    let mut seen = 0;
    walk("", &schema, &mut seen);
    assert!(seen > 80, "{seen}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["dataplane"]["properties"]["mark"]["maximum"], u32::MAX);
    assert_eq!(schema["properties"]["services"]["items"]["required"], serde_json::json!(["name"]));
}

#[test]
fn every_part_of_the_schema_has_a_shape() {
    fn walk(shape: &shape::Shape) {
        match shape {
            shape::Shape::Map(fields) => fields.values().for_each(|field| walk(&field.shape)),
            shape::Shape::List(item) => walk(item),
            shape::Shape::Integer { min, max } => assert!(min < max),
            shape::Shape::Word { words, .. } => assert!(!words.is_empty()),
            _ => {}
        }
    }
    walk(shape::shape());
}
