use super::*;
use crate::{
    discovery::Instance,
    model::{Endpoint, tests::service},
};

struct Plain;

impl Describe for Plain {
    fn describe(&self, name: &str, protocol: Option<Protocol>, _: &BTreeMap<String, String>) -> (Service, Vec<String>) {
        (Service { protocol: protocol.unwrap_or_default(), ..service(name, &[]) }, Vec::new())
    }
}

const GRACE: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::from_secs(100);

fn said(addresses: &[&str]) -> Option<Said> {
    let instance = |a: &&str| Instance { id: (*a).to_owned(), endpoint: Endpoint::new(a.parse().unwrap()) };
    Some(Said { instances: addresses.iter().map(instance).collect(), description: None })
}

fn update(source: Source, key: &str, said: Option<Said>, certain: bool) -> Update {
    Update { source, change: Change::Service { key: key.to_owned(), said, certain } }
}

fn reducer(files: Vec<Service>, drawn: &[(&str, Source, &str)]) -> Reducer {
    let mut reducer = Reducer::default();
    reducer.use_sources(&Source::ALL.into());
    let mut keys = Drawn::new();
    for (service, source, key) in drawn {
        keys.entry((*service).to_owned()).or_default().push((*source, (*key).to_owned()));
    }
    reducer.configure(files.into_iter().map(Arc::new).collect(), keys, GRACE, HashSet::new());
    reducer
}

/// Each service with its endpoints.
fn reduced(reducer: &mut Reducer, now: Duration) -> Option<Vec<(String, Vec<String>)>> {
    let services = reducer.reduce(&Plain, now)?;
    let endpoints = |s: &Service| s.endpoints.iter().map(|e| e.address.to_string()).collect();
    Some(services.iter().map(|s| (s.name.clone(), endpoints(s))).collect())
}

fn expect(services: &[(&str, &[&str])]) -> Option<Vec<(String, Vec<String>)>> {
    let endpoints = |e: &[&str]| e.iter().map(|a| (*a).to_owned()).collect();
    Some(services.iter().map(|(name, e)| ((*name).to_owned(), endpoints(e))).collect())
}

#[test]
fn a_service_may_draw_from_several_sources_and_others_are_made_for_what_nobody_draws() {
    let files = vec![service("web", &["10.0.0.1:80"]), service("idle", &[])];
    let mut r = reducer(files, &[("web", Source::Dns, "web.internal:80"), ("web", Source::Kubernetes, "shop/web")]);
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", &["10.0.0.1:80"]), ("idle", &[])]));
    r.take(update(Source::Dns, "web.internal:80", said(&["10.0.0.2:80"]), false), NOW);
    r.take(update(Source::Kubernetes, "shop/web", said(&["10.0.0.3:80"]), true), NOW);
    r.take(update(Source::Registry, "web", said(&["10.0.0.4:80", "10.0.0.1:80"]), true), NOW);
    r.take(update(Source::Kubernetes, "shop/cart", said(&["10.0.1.1:80"]), true), NOW);
    r.take(update(Source::Kubernetes, "shop/cart:admin", said(&["10.0.1.1:81"]), true), NOW);
    r.take(update(Source::Etcd, "blue", said(&["10.0.2.1:80"]), true), NOW);
    let web: &[&str] = &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
    let all: &[(&str, &[&str])] = &[
        ("web", web),
        ("idle", &[]),
        ("blue", &["10.0.2.1:80"]),
        ("cart.shop", &["10.0.1.1:80"]),
        ("cart.shop.admin", &["10.0.1.1:81"]),
    ];
    assert_eq!(reduced(&mut r, NOW), expect(all));
    assert_eq!(reduced(&mut r, NOW), None, "nothing is another than it was");
    r.take(update(Source::Kubernetes, "shop/cart:admin", None, true), NOW);
    r.take(update(Source::Etcd, "blue", None, true), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", web), ("idle", &[]), ("cart.shop", &["10.0.1.1:80"])]));
}

#[test]
fn the_same_said_again_changes_nothing() {
    let mut r = reducer(vec![], &[]);
    r.take(update(Source::Registry, "a", said(&["10.0.0.1:1"]), true), NOW);
    assert!(reduced(&mut r, NOW).is_some());
    r.take(update(Source::Registry, "a", said(&["10.0.0.1:1"]), true), NOW);
    assert_eq!(reduced(&mut r, NOW), None);
}

#[test]
fn an_empty_answer_after_a_full_one_is_held_back_and_an_event_is_believed() {
    let mut r = reducer(vec![], &[]);
    r.take(update(Source::Etcd, "a", said(&["10.0.0.1:1"]), false), NOW);
    r.take(update(Source::Etcd, "b", said(&["10.0.0.2:1"]), false), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("a", &["10.0.0.1:1"]), ("b", &["10.0.0.2:1"])]));
    r.take(update(Source::Etcd, "a", said(&[]), false), NOW);
    r.take(update(Source::Etcd, "b", said(&[]), true), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("a", &["10.0.0.1:1"]), ("b", &[])]));
    assert_eq!(r.due(), Some(NOW + GRACE));
    r.take(update(Source::Etcd, "a", said(&[]), false), NOW + GRACE / 2);
    assert_eq!(reduced(&mut r, NOW + GRACE - Duration::from_millis(1)), None);
    assert_eq!(reduced(&mut r, NOW + GRACE), expect(&[("a", &[]), ("b", &[])]), "since the first one");
    assert_eq!(r.due(), None);
}

#[test]
fn a_full_answer_ends_the_doubt() {
    let mut r = reducer(vec![], &[]);
    r.take(update(Source::Dns, "x:1", said(&["10.0.0.1:1"]), false), NOW);
    r.take(update(Source::Dns, "x:1", said(&[]), false), NOW);
    r.take(update(Source::Dns, "x:1", said(&["10.0.0.1:1"]), false), NOW);
    assert_eq!(r.due(), None);
}

#[test]
fn what_a_list_does_not_name_any_more_is_gone_after_the_grace() {
    let mut r = reducer(vec![], &[]);
    for key in ["a", "b"] {
        r.take(update(Source::Etcd, key, said(&["10.0.0.1:1"]), false), NOW);
    }
    r.take(Update { source: Source::Etcd, change: Change::Synced }, NOW);
    assert!(reduced(&mut r, NOW).is_some());
    r.take(Update { source: Source::Etcd, change: Change::Lost("connection refused".to_owned()) }, NOW);
    assert_eq!(r.sources()[&Source::Etcd].error.as_deref(), Some("connection refused"));
    assert_eq!(reduced(&mut r, NOW + GRACE * 100), None, "what was said last stays");
    r.take(Update { source: Source::Etcd, change: Change::Listing }, NOW);
    r.take(update(Source::Etcd, "b", said(&["10.0.0.1:1"]), false), NOW);
    r.take(Update { source: Source::Etcd, change: Change::Synced }, NOW);
    assert_eq!(r.sources()[&Source::Etcd].error, None);
    assert_eq!(reduced(&mut r, NOW), None);
    assert_eq!(reduced(&mut r, NOW + GRACE), expect(&[("b", &["10.0.0.1:1"])]));
}

#[test]
fn what_was_remembered_counts_until_the_source_has_told_all() {
    let mut r = reducer(vec![], &[]);
    r.remember(Source::Registry, "old".to_owned(), said(&["10.0.0.1:1"]).unwrap());
    assert_eq!(reduced(&mut r, NOW), expect(&[("old", &["10.0.0.1:1"])]));
    assert!(!r.is_synced());
    r.take(Update { source: Source::Registry, change: Change::Listing }, NOW);
    r.take(Update { source: Source::Registry, change: Change::Synced }, NOW);
    assert_eq!(reduced(&mut r, NOW + GRACE), expect(&[]));
}

/// A service of the files with a VIP.
fn with_vip(name: &str, vip: &str, endpoints: &[&str]) -> Service {
    Service { addresses: vec![vip.parse().unwrap()], ..service(name, endpoints) }
}

#[test]
fn an_instance_at_the_vip_of_a_service_is_left_out_whoever_comes_first() {
    let mut r = reducer(vec![with_vip("web", "10.96.0.1:80", &["10.0.0.1:80"])], &[]);
    assert!(reduced(&mut r, NOW).is_some());
    let told = said(&["10.96.0.1:80", "10.0.0.2:80", "10.96.0.2:80"]);
    r.take(update(Source::Etcd, "loop", told, true), NOW);
    let looped: &[&str] = &["10.0.0.2:80", "10.96.0.2:80"];
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", &["10.0.0.1:80"]), ("loop", looped)]));
    let problems = |r: &Reducer| r.problems().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(problems(&r), ["etcd: 10.96.0.1:80 10.96.0.1:80 of loop: a VIP of the service web"]);
    assert_eq!(r.sources()[&Source::Etcd].errors, 1);
    // Later another service has the other one as its VIP, from a source.
    let description = Description { addresses: vec!["10.96.0.2:80".parse().unwrap()], ..Description::default() };
    let cart = Said { description: Some(description), ..said(&["10.0.1.1:80", "10.96.0.2:80"]).unwrap() };
    r.take(update(Source::Kubernetes, "shop/cart", Some(cart), true), NOW);
    let all: &[(&str, &[&str])] =
        &[("web", &["10.0.0.1:80"]), ("cart.shop", &["10.0.1.1:80"]), ("loop", &["10.0.0.2:80"])];
    assert_eq!(reduced(&mut r, NOW), expect(all));
    assert_eq!(problems(&r).len(), 3, "{:?}", problems(&r));
    assert_eq!(r.sources()[&Source::Etcd].errors, 2, "what is known is not counted again");
    // It goes, and so do the files' one.
    r.take(update(Source::Kubernetes, "shop/cart", None, true), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", &["10.0.0.1:80"]), ("loop", looped)]));
    r.configure(vec![], Drawn::new(), GRACE, HashSet::new());
    assert_eq!(reduced(&mut r, NOW), expect(&[("loop", &["10.0.0.2:80", "10.96.0.1:80", "10.96.0.2:80"])]));
    assert_eq!(problems(&r), [""; 0]);
}

#[test]
fn an_instance_at_an_address_of_the_pool_is_left_out_and_ports_stay() {
    let mut r = reducer(vec![], &[]);
    r.use_pool(Some("240.1.0.0/29".parse().unwrap()));
    r.take(update(Source::Registry, "web", said(&["10.0.0.1:80"]), true), NOW);
    let vip = r.reduce(&Plain, NOW).unwrap()[0].addresses[0].to_string();
    for service in ["web", "other"] {
        r.take(update(Source::Registry, service, said(&[&vip]), true), NOW);
        let services = r.reduce(&Plain, NOW).unwrap();
        assert!(services.iter().all(|s| s.endpoints.is_empty()), "{services:?}");
        let web = services.iter().find(|s| s.name == "web").unwrap();
        assert_eq!(web.addresses[0].to_string(), vip, "refused at once from then on");
    }
    assert_eq!(r.problems().count(), 2);
}

#[test]
fn who_registers_does_not_get_what_the_operator_calls_another_service() {
    let shop =
        |hosts: &[&str]| Service { hosts: hosts.iter().map(|h| (*h).to_owned()).collect(), ..service("shop", &[]) };
    let mut r = reducer(vec![shop(&["api.internal"])], &[]);
    r.take(update(Source::Registry, "api.internal", said(&["10.6.6.6:80"]), true), NOW);
    r.take(update(Source::Registry, "cart", said(&["10.0.0.1:80"]), true), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("shop", &[]), ("cart", &["10.0.0.1:80"])]));
    let problems: Vec<&str> = r.problems().collect();
    assert_eq!(problems, ["registry: api.internal: it is one of the hosts of shop"]);
    assert!(r.is_only_registered("cart") && !r.is_only_registered("shop"));
    r.take(update(Source::Kubernetes, "shop/web", said(&["10.0.0.2:80"]), true), NOW);
    assert!(!r.is_only_registered("web.shop"));
    r.configure(vec![Arc::new(shop(&[]))], Drawn::new(), GRACE, HashSet::new());
    let all: &[(&str, &[&str])] = &[
        ("shop", &[]),
        ("api.internal", &["10.6.6.6:80"]),
        ("cart", &["10.0.0.1:80"]),
        ("web.shop", &["10.0.0.2:80"]),
    ];
    assert_eq!(reduced(&mut r, NOW), expect(all));
}

#[test]
fn what_is_handed_over_is_known_and_not_yet_synced() {
    let mut r = reducer(vec![], &[]);
    r.handed_over(Source::Etcd);
    let state = |r: &Reducer| r.sources()[&Source::Etcd].clone();
    assert!(state(&r).handed_over && !state(&r).synced);
    r.take(Update { source: Source::Etcd, change: Change::Lost("connection refused".to_owned()) }, NOW);
    assert!(state(&r).handed_over && !state(&r).synced);
    r.take(Update { source: Source::Etcd, change: Change::Synced }, NOW);
    assert!(state(&r).synced);
}

#[test]
fn a_place_that_was_remembered_counts_until_the_source_says_another_one() {
    let place = |zone: &str| Place { source: Source::Kubernetes, zone: zone.to_owned(), region: "r".to_owned() };
    let mut r = reducer(vec![], &[]);
    assert_eq!(reduced(&mut r, NOW), expect(&[]));
    r.remember_place(place("a"));
    assert!(reduced(&mut r, NOW).is_some(), "what is near is another question now");
    assert_eq!(r.place(), Some(&place("a")));
    let change = Change::Place { zone: "b".to_owned(), region: "r".to_owned() };
    r.take(Update { source: Source::Kubernetes, change }, NOW);
    assert_eq!(r.place(), Some(&place("b")));
    r.use_sources(&BTreeSet::from([Source::Registry]));
    assert_eq!(r.place(), None);
    r.remember_place(place("a"));
    assert_eq!(r.place(), None, "of a source that is not used");
}

#[test]
fn a_source_that_is_not_used_any_more_is_forgotten() {
    let mut r = reducer(vec![service("web", &[])], &[]);
    r.take(update(Source::Etcd, "web", said(&["10.0.0.1:1"]), true), NOW);
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", &["10.0.0.1:1"])]));
    r.use_sources(&BTreeSet::from([Source::Registry]));
    assert_eq!(reduced(&mut r, NOW), expect(&[("web", &[])]));
}

#[test]
fn a_service_of_the_files_that_stands_for_one_of_kubernetes_has_its_addresses_too() {
    let mut files = service("web", &[]);
    files.addresses = vec!["10.1.0.1:80".parse().unwrap()];
    let mut r = reducer(vec![files], &[("web", Source::Kubernetes, "shop/web")]);
    let description = Description { addresses: vec!["10.96.0.1:80".parse().unwrap()], ..Description::default() };
    let told = Said { description: Some(description), ..said(&["10.0.0.1:80"]).unwrap() };
    r.take(update(Source::Kubernetes, "shop/web", Some(told), true), NOW);
    let services = r.reduce(&Plain, NOW).unwrap();
    assert_eq!(services.len(), 1, "not web.shop beside it");
    assert_eq!(services[0].addresses.len(), 2);
}
