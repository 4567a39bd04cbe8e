//! Sources are reached past the hooks: what they say about their own addresses cannot cut the daemon off from them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Daemon, DnsServer, Etcd, Kube, Value, World,
    daemon::Setup,
    dns::{Manner, Records},
    holds, json, kube, server, service, world,
};

/// Where the endpoint is of the service that has the source's address; nobody, for the daemon, which is in another network
/// than the programs that it serves.
const ELSEWHERE: &str = "10.1.0.1:8080";

/// A daemon in the very cgroup that it serves, with a service at the address of its source.
fn daemon(world: &World, at: &str, source: impl FnOnce(Setup) -> Setup) -> Daemon {
    let mesh = source(world.setup(json!([service("the-source", &[at], &[ELSEWHERE])])).inside()).start();
    let _elsewhere = world.backend("elsewhere", ELSEWHERE);
    assert_eq!(world.ask(at).unwrap(), "elsewhere", "who is not the daemon is translated");
    mesh
}

fn has(mesh: &Daemon, service: &str, address: &str) {
    let endpoints = || -> Vec<Value> {
        let all = mesh.json(&["endpoints"]).as_array().unwrap().clone();
        all.iter().filter(|e| e["service"] == service).map(|e| e["address"].clone()).collect()
    };
    holds("what the source says", endpoints, |seen| *seen == [address]);
}

#[test]
fn kubernetes_is_reached_whatever_became_of_the_endpoints_of_its_own_service() {
    let (world, kube) = (world!(), Kube::start());
    kube.apply("services", kube::service("web", "10.96.0.10", &[("web", 80)]));
    kube.apply("endpointslices", kube::slice("web-1", "web", &[("web", 80)], &[kube::endpoint("10.1.0.2")]));
    let mesh = daemon(&world, &kube.address(), |setup| {
        let setup = setup.environment("KUBECONFIG", kube.kubeconfig());
        setup.with(|c| c["discovery"]["kubernetes"]["enabled"] = json!(true))
    });
    has(&mesh, "web.shop", "10.1.0.2:80");
}

#[test]
fn etcd_is_reached_whatever_became_of_its_endpoints() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    etcd.instance("shop", "one", "10.1.0.2:80");
    let mesh = daemon(&world, &etcd.address(), |setup| {
        setup.with(|c| c["discovery"] = json!({ "etcd": { "endpoints": [etcd.url()] } }))
    });
    has(&mesh, "shop", "10.1.0.2:80");
}

#[test]
fn dns_servers_are_reached_whatever_became_of_their_endpoints() {
    let (world, dns) = (world!(), DnsServer::new());
    // By TCP only, which is what the hooks translate.
    dns.set("web.internal", Records::addresses(&["10.1.0.2"], 60).that(Manner::Truncates));
    let at = dns.address().to_string();
    let mesh = daemon(&world, &at, |setup| {
        setup.with(|c| {
            let web = json!({ "name": "web", "addresses": ["10.96.0.10:80"], "dns": "web.internal:80" });
            c["services"].as_array_mut().unwrap().push(web);
            c["discovery"] = json!({ "dns": { "servers": [at] } });
        })
    });
    has(&mesh, "web", "10.1.0.2:80");
}
