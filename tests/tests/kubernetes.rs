//! Services of a Kubernetes cluster: what its API server says arrives, and connections go there.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Certificates, Daemon, Kube, Value, World, backend,
    daemon::Setup,
    eventually, holds, json,
    kube::{Refusal, endpoint, pod, service, slice, terminating},
    server, service as of_files, world,
};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";

fn setup(world: &World, kube: &Kube) -> Setup {
    let setup = world.setup(json!([])).environment("KUBECONFIG", kube.kubeconfig());
    setup.with(|c| c["discovery"]["kubernetes"]["enabled"] = json!(true))
}

/// A cluster with one service `web` of these endpoints, at port 8080.
fn cluster(endpoints: &[&str]) -> Kube {
    filled(Kube::start(), endpoints)
}

fn filled(kube: Kube, endpoints: &[&str]) -> Kube {
    kube.apply("services", service("web", "10.96.0.10", &[("web", 80)]));
    set(&kube, endpoints);
    kube
}

fn set(kube: &Kube, endpoints: &[&str]) {
    let endpoints: Vec<Value> = endpoints.iter().map(|address| endpoint(address)).collect();
    kube.apply("endpointslices", slice("web-abc12", "web", &[("web", 8080)], &endpoints));
}

fn who(world: &World) -> BTreeSet<String> {
    (0..4).map(|_| world.ask(VIP).unwrap_or_else(|e| e.to_string())).collect()
}

fn only(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn backends(world: &World) -> [Backend; 2] {
    [("B1", "10.1.0.1:8080"), ("B2", "10.1.0.2:8080")].map(|(name, address)| world.backend(name, address))
}

/// The backends B1 and B2, and a cluster whose `web` has the first one as its endpoint.
fn stage(world: &World) -> ([Backend; 2], Kube) {
    (backends(world), cluster(&["10.1.0.1"]))
}

/// The node of the daemon, in this zone.
fn node(zone: &str) -> Value {
    let labels = json!({ "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "region" });
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": "test-node", "labels": labels } })
}

/// Waits until the source is in touch, or is not.
fn is_in_touch(mesh: &Daemon, expected: bool) -> Value {
    holds("the source says how it does", || source(mesh), |seen| seen["error"].is_null() == expected)
}

/// Waits until the source says that this is wrong.
fn says(mesh: &Daemon, what: &str) {
    let error = || source(mesh)["error"].clone();
    holds(&format!("{what} is said"), error, |error| error.as_str().is_some_and(|error| error.contains(what)));
}

fn source(mesh: &Daemon) -> Value {
    let status = mesh.json(&["status"]);
    let sources = status["sources"].as_array().unwrap().clone();
    sources.into_iter().find(|s| s["name"] == "kubernetes").unwrap()
}

#[test]
fn a_connection_through_the_cluster_ip_goes_to_an_endpoint_and_follows_every_change() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mesh = setup(&world, &kube).start();
    assert_eq!(who(&world), only(&["B1"]));
    set(&kube, &["10.1.0.2"]);
    holds("the change arrives", || who(&world), |who| *who == only(&["B2"]));
    // Another slice of the same service, and a port with a service of its own.
    kube.apply("endpointslices", slice("web-def34", "web", &[("web", 8080)], &[endpoint("10.1.0.1")]));
    holds("both slices count", || who(&world), |who| *who == only(&["B1", "B2"]));
    kube.apply("services", service("web", "10.96.0.10", &[("web", 80), ("admin", 9090)]));
    let _admin = world.backend("A1", "10.1.0.1:9000");
    let ports = [("web", 8080), ("admin", 9000)];
    kube.apply("endpointslices", slice("web-def34", "web", &ports, &[endpoint("10.1.0.1")]));
    let admin = || world.ask("10.96.0.10:9090").map_err(|e| e.to_string());
    let _ = holds("the second port", admin, |who| *who == Ok("A1".to_owned()));
    let web = mesh.service("web.shop");
    assert_eq!((&web["addresses"], &web["endpoints"]["total"]), (&json!([VIP]), &json!(2)));
    assert_eq!(mesh.service("web.shop.admin")["addresses"], json!(["10.96.0.10:9090"]));
    assert_eq!(mesh.endpoint("web.shop", "10.1.0.1:8080")["zone"], "zone-1");
    assert_eq!(mesh.endpoint("web.shop", "10.1.0.1:8080")["health"], "unknown", "readiness counts, nothing is checked");
    kube.delete("endpointslices", "shop/web-abc12");
    holds("a slice goes", || who(&world), |who| *who == only(&["B1"]));
    kube.delete("services", "shop/web");
    holds("the service goes", || mesh.json(&["services"]), |services| *services == json!([]));
    assert_eq!(world.ask(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "it is no VIP any more");
}

#[test]
fn annotations_and_fields_become_settings_and_what_is_wrong_is_named() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut web = service("web", "10.96.0.10", &[("web", 80)]);
    web["metadata"]["annotations"]["mesh.dev/load_balancing.policy"] = json!("maglev");
    web["metadata"]["annotations"]["mesh.dev/connect_timeout"] = json!("soon");
    kube.apply("services", web.clone());
    let mesh = setup(&world, &kube).start();
    assert_eq!(mesh.service("web.shop")["policy"], "maglev");
    assert!(mesh.log().contains("web.shop: connect_timeout: "), "{}", mesh.log());
    assert_eq!(who(&world), only(&["B1"]), "the rest counts");
    web["spec"]["ports"][0]["appProtocol"] = json!("http");
    kube.apply("services", web.clone());
    holds("the protocol", || mesh.service("web.shop")["protocol"].clone(), |protocol| *protocol == json!("http"));
    web["metadata"]["annotations"]["mesh.dev/ignore"] = json!("true");
    kube.apply("services", web);
    holds("left out", || mesh.json(&["services"]), |services| *services == json!([]));
}

#[test]
fn a_service_of_the_files_may_stand_for_one_of_the_cluster() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut front = of_files("front", &["10.200.0.1:80"], &[]);
    front["kubernetes"] = json!("shop/web");
    let mesh = setup(&world, &kube).with(|c| c["services"] = json!([front])).start();
    assert_eq!(world.ask("10.200.0.1:80").unwrap(), "B1");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1);
}

#[test]
fn endpoints_that_terminate_are_drained() {
    let world = world!();
    let _b1 = world.echo("10.1.0.1:8080");
    let _b2 = world.backend("B2", "10.1.0.2:8080");
    let kube = cluster(&["10.1.0.1"]);
    let mesh = setup(&world, &kube).start();
    let mut held = world.dial(VIP).unwrap();
    let ports = [("web", 8080)];
    kube.apply("endpointslices", slice("web-abc12", "web", &ports, &[terminating("10.1.0.1"), endpoint("10.1.0.2")]));
    holds(
        "drained",
        || mesh.json(&["endpoints", "web.shop"]),
        |e| e[0]["draining"] == true && e[1]["draining"] == false,
    );
    assert_eq!(who(&world), only(&["B2"]));
    held.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    held.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping", "its connections go on");
}

#[test]
fn a_list_comes_in_pages_and_watches_go_on_wherever_connections_break() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    for n in 0..7 {
        kube.apply("services", service(&format!("other-{n}"), &format!("10.96.1.{}", n + 1), &[("web", 80)]));
    }
    kube.page(3);
    let mesh = setup(&world, &kube).start();
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 8);
    assert!(kube.count("/services?limit=500&continue=") >= 2, "{:?}", kube.requests());
    let lists = || kube.count("limit=500");
    let before = lists();
    for (n, name) in [("10.1.0.2", "B2"), ("10.1.0.1", "B1"), ("10.1.0.2", "B2")] {
        kube.bookmark();
        kube.cut();
        set(&kube, &[n]);
        holds("what happened meanwhile", || who(&world), |who| *who == only(&[name]));
    }
    assert_eq!(lists(), before, "nothing is listed again where a watch can go on");
}

#[test]
fn watches_that_always_break_are_told_of_and_lists_tell_instead() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mesh = setup(&world, &kube).start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                kube.cut();
                thread::sleep(Duration::from_millis(20));
            }
        });
        says(&mesh, "ends each time soon after it began");
        set(&kube, &["10.1.0.2"]);
        holds("what happened meanwhile", || who(&world), |who| *who == only(&["B2"]));
        stop.store(true, Ordering::Relaxed);
    });
    holds("in touch", || source(&mesh), |source| source["error"].is_null());
}

#[test]
fn a_version_that_is_too_old_is_listed_anew_and_connections_stay() {
    let world = world!();
    let _b1 = world.echo("10.1.0.1:8080");
    let _b2 = world.backend("B2", "10.1.0.2:8080");
    let kube = cluster(&["10.1.0.1"]);
    let mesh = setup(&world, &kube).start();
    let mut held = world.dial(VIP).unwrap();
    for by_status in [false, true] {
        let lists = kube.count("endpointslices?limit=500");
        kube.stop();
        set(&kube, &["10.1.0.1", "10.1.0.2"]);
        kube.forget(by_status);
        kube.start_again();
        holds("listed again", || kube.count("endpointslices?limit=500"), |n| *n > lists);
    }
    let endpoints = || mesh.json(&["endpoints", "web.shop"]).as_array().unwrap().len();
    holds("both are there", endpoints, |n| *n == 2);
    held.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    held.read_exact(&mut answer).unwrap();
    holds("in touch", || source(&mesh), |source| source["error"].is_null());
}

#[test]
fn what_was_known_last_stays_in_force_while_the_server_is_down_over_a_restart_too() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut mesh = setup(&world, &kube).start();
    assert_eq!(source(&mesh)["synced"], true);
    // It is written down within seconds.
    let cache = mesh.dir().join("state/discovered.json");
    holds("written down", || std::fs::read_to_string(&cache).unwrap_or_default(), |text| text.contains("shop/web"));
    kube.stop();
    // Watches that break off may be what is said first.
    says(&mesh, "Connection refused");
    assert_eq!(who(&world), only(&["B1"]));
    mesh.terminate();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(who(&world), only(&["B1"]));
    let seen = holds("not synced", || source(&mesh), |source| source["error"].is_string());
    assert_eq!(seen["synced"], false);
    assert_eq!(mesh.http("GET", "/ready").status, 503);
    set(&kube, &["10.1.0.2"]);
    kube.start_again();
    mesh.wait_for("/ready", 200);
    holds("what the server says counts again", || who(&world), |who| *who == only(&["B2"]));
}

#[test]
fn a_server_that_is_busy_is_left_alone_as_long_as_it_says() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    kube.refuse(&[Refusal { status: 429, retry_after: Some(2) }; 4]);
    let _mesh = setup(&world, &kube).start();
    assert_eq!(who(&world), only(&["B1"]));
    let of_services: Vec<Instant> =
        kube.requests().into_iter().filter(|(_, path)| path.contains("/services?limit")).map(|(at, _)| at).collect();
    assert!(of_services[1] - of_services[0] >= Duration::from_secs(2), "{of_services:?}");
}

#[test]
fn who_is_not_allowed_says_which_verb_is_missing_and_what_is_not_needed_is_done_without() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    kube.forbid(&["endpointslices", "nodes"]);
    let mut mesh = setup(&world, &kube).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let error = holds("said", || source(&mesh)["error"].clone(), |error| error.is_string());
    assert!(error.as_str().unwrap().contains("the verb list on endpointslices"), "{error}");
    kube.forbid(&["nodes"]);
    mesh.wait_for("/ready", 200);
    assert_eq!(who(&world), only(&["B1"]));
    assert!(mesh.log().contains("the zone of this node is not known"), "{}", mesh.log());
}

#[test]
fn the_zone_of_the_node_comes_from_the_cluster() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut far = endpoint("10.1.0.2");
    far["zone"] = json!("zone-2");
    kube.apply("endpointslices", slice("web-def34", "web", &[("web", 8080)], &[far]));
    kube.apply("nodes", node("zone-2"));
    let mut mesh = setup(&world, &kube).start();
    assert_eq!(who(&world), only(&["B2"]));
    kube.apply("nodes", node("zone-1"));
    holds("moved", || who(&world), |who| *who == only(&["B1"]));
    // It is known over a restart, too, before the server says it again.
    kube.stop();
    mesh.terminate();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(who(&world), only(&["B1"]));
    assert_eq!(source(&mesh)["synced"], false);
}

#[test]
fn a_daemon_that_takes_over_is_as_ready_as_the_one_before_while_the_server_is_down() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut mesh = setup(&world, &kube).start();
    kube.stop();
    is_in_touch(&mesh, false);
    for turn in 0..2 {
        mesh.take_over();
        assert_eq!(who(&world), only(&["B1"]), "{turn}");
        let seen = is_in_touch(&mesh, false);
        assert_eq!(seen["synced"], false, "{seen}");
    }
    set(&kube, &["10.1.0.2"]);
    kube.start_again();
    holds("synced", || source(&mesh), |seen| seen["synced"] == true && seen["error"].is_null());
    holds("what the server says counts", || who(&world), |who| *who == only(&["B2"]));
}

#[test]
fn a_daemon_that_takes_over_from_one_that_knew_nothing_is_not_ready() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    kube.stop();
    let mut mesh = setup(&world, &kube).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let successor = mesh.successor();
    assert!(mesh.wait().success(), "{}", mesh.log());
    mesh.follow(successor);
    mesh.wait_for("/health", 200);
    is_in_touch(&mesh, false);
    let ready = mesh.http("GET", "/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.contains("kubernetes has not told yet what it knows"), "{ready:?}");
    kube.start_again();
    mesh.wait_for("/ready", 200);
}

#[test]
fn a_cluster_is_followed_by_tls_with_a_token_that_is_renewed() {
    let world = world!();
    let made = server!(Certificates::new());
    made.authority("ca");
    made.signed("server", "ca");
    let _backends = backends(&world);
    let kube = filled(Kube::by_tls(&made, "server", "ca"), &["10.1.0.1"]);
    let mesh = setup(&world, &kube).start();
    assert_eq!(who(&world), only(&["B1"]));
    kube.know("renewed");
    kube.cut();
    says(&mesh, "(401)");
    assert_eq!(who(&world), only(&["B1"]));
    set(&kube, &["10.1.0.2"]);
    std::fs::write(kube.token_file(), "renewed").unwrap();
    is_in_touch(&mesh, true);
    holds("what the server says counts", || who(&world), |who| *who == only(&["B2"]));
    assert!(!mesh.log().contains("renewed"), "no token in the log");
}

#[test]
fn a_server_that_is_not_signed_by_the_authority_is_told_nothing() {
    let world = world!();
    let made = server!(Certificates::new());
    for name in ["ca", "other"] {
        made.authority(name);
    }
    made.signed("server", "ca");
    let kube = filled(Kube::by_tls(&made, "server", "other"), &["10.1.0.1"]);
    let mut mesh = setup(&world, &kube).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let error = is_in_touch(&mesh, false)["error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains(&format!("https://{}", kube.address())) && error.contains("certificate"), "{error}");
    assert_eq!(kube.requests().len(), 0, "nobody is shown a token who has not shown a certificate");
    assert_eq!(mesh.http("GET", "/ready").status, 503);
    std::fs::copy(made.at("ca.pem"), made.at("other.pem")).unwrap();
    mesh.wait_for("/ready", 200);
}

#[test]
fn connections_are_named_after_their_pods() {
    let world = world!();
    let _b1 = world.echo("10.1.0.1:8080");
    let kube = cluster(&["10.1.0.1"]);
    let uid = "0f5c1b1e-8a53-4b3c-9d1c-7d3a3f0f6a11";
    kube.apply("pods", pod("client-1", uid));
    let mesh = setup(&world, &kube).start();
    let pod = world.child(&format!("kubepods-pod{}.slice", uid.replace('-', "_")));
    let _held = pod.client(VIP);
    let named = || {
        mesh.json(&["connections"]).as_array().unwrap().iter().map(|c| c["client"]["pod"].clone()).collect::<Vec<_>>()
    };
    holds("named", named, |pods| *pods == [json!("shop/client-1")]);
}

#[test]
fn one_malformed_object_is_left_out_alone() {
    let world = world!();
    let (_backends, kube) = stage(&world);
    let mut bad = service("bad", "10.96.0.66", &[("web", 80)]);
    bad["spec"]["ports"] = json!("eighty");
    kube.apply("services", bad);
    let mesh = setup(&world, &kube).start();
    assert_eq!(who(&world), only(&["B1"]));
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1);
    assert!(mesh.log().contains("services shop/bad: "), "{}", mesh.log());
    let mut worse = slice("web-zzz99", "web", &[("web", 8080)], &[endpoint("10.1.0.1")]);
    worse["endpoints"] = json!({ "a": 1 });
    kube.apply("endpointslices", worse);
    eventually("the malformed event is named", || match mesh.log().contains("endpointslices shop/web-zzz99: ") {
        true => Ok(()),
        false => Err(mesh.log()),
    });
    assert_eq!(backend::answer(&mut world.dial(VIP).unwrap()).unwrap(), "B1");
}

/// A cluster of so many services with 20 endpoints each, of which one listens.
fn large(services: usize) -> Kube {
    let kube = Kube::start();
    for n in 0..services {
        let name = format!("svc-{n:05}");
        kube.apply("services", service(&name, &format!("10.96.{}.{}", n / 250, 1 + n % 250), &[("web", 80)]));
        let endpoints: Vec<Value> = (0..20).map(|e| endpoint(&of_large(n, e))).collect();
        kube.apply("endpointslices", slice(&format!("{name}-abc12"), &name, &[("web", 8080)], &endpoints));
    }
    kube
}

fn of_large(n: usize, e: usize) -> String {
    format!("10.{}.{}.{}", 100 + n / 2500, n / 10 % 250, 1 + n % 10 * 20 + e)
}

/// `MESH_TEST_CLUSTER` says how many services, 200 if it does not. Prints how long things took.
#[test]
fn a_large_cluster_is_known_at_once_and_a_change_of_it_is_in_force_at_once() {
    let world = world!();
    let services = std::env::var("MESH_TEST_CLUSTER").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let kube = large(services);
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _b2 = world.backend("B2", "10.1.0.2:8080");
    let mut mesh = setup(&world, &kube).idle();
    let began = Instant::now();
    mesh.start();
    let synced = began.elapsed();
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), services);
    let mut waits = Vec::new();
    for i in 0..20 {
        let (n, b) = (i * (services / 20), i % 2);
        let name = format!("svc-{n:05}");
        let vip = format!("10.96.{}.{}:80", n / 250, 1 + n % 250);
        let change =
            slice(&format!("{name}-abc12"), &name, &[("web", 8080)], &[endpoint(&format!("10.1.0.{}", b + 1))]);
        let at = Instant::now();
        kube.apply("endpointslices", change);
        let expected = format!("B{}", b + 1);
        while world.ask(&vip).ok().as_ref() != Some(&expected) {
            assert!(at.elapsed() < Duration::from_secs(10), "the change of {name} does not arrive");
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.push(at.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    waits.sort();
    let status = std::fs::read_to_string(format!("/proc/{}/status", mesh.pid())).unwrap_or_default();
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
    println!(
        "{services} services: synced after {synced:?}; a change after {:?}, at most {:?}; {resident}",
        waits[10], waits[19]
    );
}
