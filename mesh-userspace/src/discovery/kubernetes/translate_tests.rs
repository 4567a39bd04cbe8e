use super::{super::objects::Kept, *};
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    annotated(spec, json!({}))
}

fn annotated(spec: Value, annotations: Value) -> Service {
    let metadata = json!({ "name": "web", "namespace": "shop", "annotations": annotations });
    let raw = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    Service::keep(raw, &mut Vec::new()).unwrap()
}

fn slice(name: &str, ports: Value, endpoints: Value) -> Slice {
    let raw = json!({
        "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    Slice::keep(serde_json::from_value(raw).unwrap(), &mut Vec::new()).unwrap()
}

fn here() -> Here {
    Here { node: "a".to_owned(), zone: "z1".to_owned() }
}

fn plain() -> Value {
    json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] })
}

fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

/// Ready ones.
fn endpoints(addresses: &[&str]) -> Value {
    addresses.iter().map(|a| json!({ "addresses": [a], "conditions": { "ready": true } })).collect()
}

/// Addresses of the only port, draining ones with a `!`.
fn seen(service: &Service, slices: &[&Slice]) -> Vec<String> {
    let translated = translate(service, slices, &here());
    let [(_, said)] = &translated.ports[..] else { panic!("one port: {translated:?}") };
    let text = |i: &Instance| format!("{}{}", if i.endpoint.draining { "!" } else { "" }, i.endpoint.address);
    said.instances.iter().map(text).collect()
}

fn description(service: &Service) -> Description {
    translate(service, &[], &here()).ports.remove(0).1.description.unwrap()
}

fn setting(service: &Service, key: &str) -> Option<String> {
    description(service).settings.get(key).cloned()
}

#[test]
fn a_port_whose_name_makes_no_name_of_a_service_is_left_out_alone() {
    let ports = json!([{ "port": 80 }, { "name": "Bad_Name", "port": 81 }, { "name": "good", "port": 82 }]);
    let translated = translate(&service(json!({ "clusterIP": "10.96.0.1", "ports": ports })), &[], &here());
    let keys: Vec<&str> = translated.ports.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((keys, translated.skipped.len()), (vec!["shop/web", "shop/web:good"], 1));
    assert!(translated.skipped[0].contains("web.shop.Bad_Name"), "{:?}", translated.skipped);
}

#[test]
fn a_cluster_ip_is_a_vip_of_each_port_and_names_lead_to_them() {
    let spec = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
            { "name": "web", "port": 80, "protocol": "TCP", "targetPort": "http" },
            { "name": "admin", "port": 9090, "targetPort": 9000 },
            { "port": 132, "protocol": "SCTP" },
        ],
    });
    let ports =
        json!([{ "name": "web", "port": 8080 }, { "name": "admin", "port": 9000 }, { "name": "dns", "port": 53 }]);
    let slice = slice("web-1", ports, endpoints(&["10.1.0.1"]));
    let translated = translate(&service(spec), &[&slice], &here());
    assert_eq!(translated.skipped, [""; 0]);
    let keys: Vec<_> = translated.ports.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["shop/web", "shop/web:admin"], "only TCP");
    let (first, second) = (&translated.ports[0].1, &translated.ports[1].1);
    assert_eq!(first.instances[0].endpoint.address.to_string(), "10.1.0.1:8080", "the named port, as the slice has it");
    assert_eq!(second.instances[0].endpoint.address.to_string(), "10.1.0.1:9000");
    let text =
        |said: &Said| said.description.as_ref().unwrap().addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(first), ["10.96.0.1:80", "[fd00::1]:80"]);
    assert_eq!(text(second), ["10.96.0.1:9090", "[fd00::1]:9090"]);
    let hosts = |said: &Said| said.description.as_ref().unwrap().hosts.clone();
    assert_eq!(hosts(first), ["web.shop.svc", "web.shop.svc.cluster.local"]);
    assert_eq!(hosts(second), ["web.shop:9090", "web.shop.svc:9090", "web.shop.svc.cluster.local:9090"]);
}

#[test]
fn the_families_of_a_service_with_both_are_kept_apart_unless_it_asks_for_them_together() {
    let said = |service| setting(&service, "load_balancing.same_family");
    let both = with(with(plain(), "clusterIP", json!("10.96.0.1")), "clusterIPs", json!(["10.96.0.1", "fd00::1"]));
    assert_eq!(said(service(both.clone())).as_deref(), Some("true"));
    assert_eq!(
        said(annotated(both, json!({ "mesh.dev/load_balancing.same_family": "false" }))).as_deref(),
        Some("false")
    );
    assert_eq!(said(service(plain())), None, "an IPv6 address alone is that of all its endpoints");
}

#[test]
fn a_headless_service_has_no_vip_and_an_external_name_is_none() {
    let slice = slice("web-1", json!([{ "port": 8080 }]), endpoints(&["10.1.0.1"]));
    let headless = service(json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80 }] }));
    assert_eq!(description(&headless).addresses, []);
    assert_eq!(seen(&headless, &[&slice]), ["10.1.0.1:8080"]);
    let external = service(json!({ "type": "ExternalName", "externalName": "example.com", "ports": [{ "port": 80 }] }));
    assert_eq!(translate(&external, &[&slice], &here()), Translated::default());
    let ignored = annotated(plain(), json!({ "mesh.dev/ignore": "true" }));
    assert_eq!(translate(&ignored, &[&slice], &here()), Translated::default());
    let mut anothers = service(plain());
    anothers.metadata.labels.other_proxy = Some("other".to_owned());
    assert_eq!(translate(&anothers, &[&slice], &here()), Translated::default());
}

#[test]
fn slices_of_both_families_are_one_set_and_an_address_stands_once() {
    let ports = || json!([{ "name": "", "port": 8080 }]);
    let draining =
        json!([{ "addresses": ["10.1.0.1"], "conditions": { "ready": false, "serving": true, "terminating": true } }]);
    let slices = [
        slice("web-1", ports(), draining),
        slice("web-2", ports(), endpoints(&["10.1.0.1", "10.1.0.2"])),
        slice("web-3", ports(), endpoints(&["fd01::1"])),
        slice("web-4", json!([{ "name": "other", "port": 1 }]), endpoints(&["10.1.0.9"])),
    ];
    let slices: Vec<_> = slices.iter().collect();
    assert_eq!(seen(&service(plain()), &slices), ["10.1.0.1:8080", "10.1.0.2:8080", "[fd01::1]:8080"]);
}

#[test]
fn what_terminates_and_serves_is_drained_and_what_is_not_ready_is_left_out() {
    let conditions = [
        json!({ "ready": true, "serving": true, "terminating": false }),
        json!({ "ready": false, "serving": true, "terminating": true }),
        json!({ "ready": false, "serving": false, "terminating": true }),
        json!({ "ready": false, "serving": false, "terminating": false }),
        json!({ "ready": null }),
    ];
    let endpoint = |(i, c): (usize, &Value)| json!({ "addresses": [format!("10.1.0.{i}")], "conditions": c });
    let slice = slice("web-1", json!([{ "port": 80 }]), conditions.iter().enumerate().map(endpoint).collect());
    assert_eq!(seen(&service(plain()), &[&slice]), ["10.1.0.0:80", "!10.1.0.1:80", "10.1.0.4:80"]);
    let all = service(with(plain(), "publishNotReadyAddresses", json!(true)));
    assert_eq!(seen(&all, &[&slice]).len(), 5, "whoever publishes those that are not ready wants them");
}

#[test]
fn a_local_policy_means_endpoints_of_this_node_and_no_others() {
    let on = |address: &str, node: &str| json!({ "addresses": [address], "nodeName": node });
    let both = slice("web-1", json!([{ "port": 80 }]), json!([on("10.1.0.1", "a"), on("10.1.0.2", "b")]));
    let local = service(with(plain(), "internalTrafficPolicy", json!("Local")));
    assert_eq!(seen(&local, &[&both]), ["10.1.0.1:80"]);
    let other = slice("web-1", json!([{ "port": 80 }]), json!([on("10.1.0.2", "b")]));
    assert_eq!(seen(&local, &[&other]), [""; 0]);
    let cluster = service(with(plain(), "internalTrafficPolicy", json!("Cluster")));
    assert_eq!(seen(&cluster, &[&other]), ["10.1.0.2:80"]);
}

#[test]
fn hints_are_heeded_if_all_have_some_and_one_is_for_this_zone() {
    let hinted = |address: &str, zones: &[&str]| {
        let zones: Vec<_> = zones.iter().map(|zone| json!({ "name": zone })).collect();
        json!({ "addresses": [address], "zone": "z9", "hints": { "forZones": zones } })
    };
    let of = |endpoints: Value| slice("web-1", json!([{ "port": 80 }]), endpoints);
    let service_ = service(plain());
    let all = of(json!([hinted("10.1.0.1", &["z1"]), hinted("10.1.0.2", &["z2", "z1"]), hinted("10.1.0.3", &["z2"])]));
    assert_eq!(seen(&service_, &[&all]), ["10.1.0.1:80", "10.1.0.2:80"]);
    let some = of(json!([hinted("10.1.0.1", &["z1"]), hinted("10.1.0.3", &[])]));
    assert_eq!(seen(&service_, &[&some]).len(), 2);
    let none = of(json!([hinted("10.1.0.1", &["z2"]), hinted("10.1.0.3", &["z3"])]));
    assert_eq!(seen(&service_, &[&none]).len(), 2);
    let nowhere = Here { zone: String::new(), ..here() };
    assert_eq!(translate(&service_, &[&all], &nowhere).ports[0].1.instances.len(), 3);
    let close = service(with(plain(), "trafficDistribution", json!("PreferClose")));
    assert_eq!(seen(&close, &[&all]).len(), 3, "a preference, from which others help out");
}

#[test]
fn protocols_are_said_by_app_protocol_and_else_by_the_name_of_the_port() {
    let said = |name: &str, app: Value| {
        let spec = json!({ "clusterIP": "10.96.0.1", "ports": [{ "name": name, "port": 80, "appProtocol": app }] });
        let description = description(&service(spec));
        (description.protocol.map(Protocol::word), description.settings.get("upstream").cloned())
    };
    let http2 = Some("http2".to_owned());
    for (app, expected) in [
        ("http", (Some("http"), None)),
        ("kubernetes.io/h2c", (Some("http"), http2.clone())),
        ("kubernetes.io/ws", (Some("http"), None)),
        ("grpc", (Some("grpc"), None)),
        ("https", (Some("tcp"), None)),
        ("TCP", (Some("tcp"), None)),
        ("redis", (None, None)),
    ] {
        assert_eq!(said("x", json!(app)), expected, "{app}");
    }
    for (name, expected) in [
        ("http", (Some("http"), None)),
        ("http-web", (Some("http"), None)),
        ("http2-api", (Some("http"), http2)),
        ("grpc", (Some("grpc"), None)),
        ("grpc-web", (Some("http"), None)),
        ("tcp-redis", (Some("tcp"), None)),
        ("https", (Some("tcp"), None)),
        ("httpx", (None, None)),
        ("web", (None, None)),
        ("", (None, None)),
    ] {
        assert_eq!(said(name, Value::Null), expected, "{name}");
    }
    assert_eq!(said("http", json!("redis")), (None, None), "a name counts only where nothing else is said");
}

#[test]
fn fields_become_settings_unless_annotations_say_otherwise() {
    let clients = with(plain(), "sessionAffinity", json!("ClientIP"));
    assert_eq!(setting(&service(clients.clone()), "load_balancing.affinity").as_deref(), Some("10800s"));
    let timed = with(clients.clone(), "sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": 60 } }));
    assert_eq!(setting(&service(timed), "load_balancing.affinity").as_deref(), Some("60s"));
    assert_eq!(setting(&service(plain()), "health_check.type").as_deref(), Some("none"));
    for (distribution, prefer) in [("PreferClose", "zone"), ("PreferSameZone", "zone"), ("PreferSameNode", "node")] {
        let spec = with(plain(), "trafficDistribution", json!(distribution));
        assert_eq!(setting(&service(spec), "locality.prefer").as_deref(), Some(prefer));
    }
    let said = annotated(
        clients,
        json!({
            "mesh.dev/load_balancing": "{ policy: maglev }", "mesh.dev/health_check.type": "http",
            "mesh.dev/ignore": "false", "example.com/protocol": "http",
        }),
    );
    let settings = description(&said).settings;
    let expected = [("health_check.type", "http"), ("load_balancing", "{ policy: maglev }")];
    assert_eq!(settings, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[test]
fn an_annotated_protocol_counts_before_all_others() {
    let spec = json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80, "appProtocol": "kubernetes.io/h2c" }] });
    let description = description(&annotated(spec, json!({ "mesh.dev/protocol": "tcp" })));
    assert_eq!((description.protocol, description.settings.get("protocol").map(String::as_str)), (None, Some("tcp")));
    assert_eq!(description.settings.get("upstream"), None);
}

#[test]
fn what_is_out_of_range_is_left_out_and_named() {
    let spec =
        json!({ "clusterIP": "10.96.0.x", "ports": [{ "port": 0 }, { "port": 65536 }, { "name": "a", "port": 80 }] });
    let translated = translate(&service(spec), &[], &here());
    assert_eq!(translated.ports.len(), 1);
    assert_eq!(translated.skipped.len(), 3, "{:?}", translated.skipped);
}
