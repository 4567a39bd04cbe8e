use super::*;
use crate::model::{Protocol, tests::service};
use proptest::prelude::*;

fn pool(range: &str) -> Pool {
    let mut pool = Pool::default();
    pool.configure(Some(range.parse().unwrap()));
    pool
}

fn services(names: &[&str]) -> Vec<Arc<Service>> {
    names.iter().map(|name| Arc::new(service(name, &["10.0.0.1:8080"]))).collect()
}

fn settle(pool: &mut Pool, mut services: Vec<Arc<Service>>) -> Vec<Vec<String>> {
    pool.settle(&mut services);
    services.iter().map(|s| s.addresses.iter().map(ToString::to_string).collect()).collect()
}

fn with(name: &str, address: &str) -> Arc<Service> {
    Arc::new(Service { addresses: vec![address.parse().unwrap()], ..service(name, &["10.0.0.1:8080"]) })
}

#[test]
fn a_service_without_an_address_gets_one_with_the_ports_of_its_endpoints() {
    let mut pool = pool("240.10.0.0/16");
    let mut web = service("web", &["10.0.0.1:8080", "10.0.0.2:9090", "10.0.0.3:8080"]);
    let ip = |vips: &[String]| vips[0].rsplit_once(':').unwrap().0.to_owned();
    let vips = settle(&mut pool, vec![Arc::new(web.clone())]).remove(0);
    let ip = ip(&vips);
    assert_eq!(vips, [format!("{ip}:8080"), format!("{ip}:9090")]);
    web.endpoints.truncate(1);
    web.protocol = Protocol::Http;
    let vips = settle(&mut pool, vec![Arc::new(web)]).remove(0);
    assert_eq!(vips, [80, 8080, 9090].map(|port| format!("{ip}:{port}")), "a port stays while the service does");
    assert_eq!(settle(&mut pool, vec![with("own", "10.96.0.1:80")]), [["10.96.0.1:80"]]);
    let again = settle(&mut pool, services(&["web"])).remove(0);
    assert_eq!(again, [format!("{ip}:8080")], "the same address after it was gone");
}

#[test]
fn nothing_is_given_without_a_range_or_ports() {
    let mut pool = pool("240.10.0.0/16");
    assert_eq!(settle(&mut pool, vec![Arc::new(service("web", &[]))]), [[""; 0]]);
    pool.configure(None);
    assert_eq!(settle(&mut pool, services(&["web"])), [[""; 0]]);
}

#[test]
fn what_did_not_change_is_not_made_anew() {
    let mut pool = pool("240.10.0.0/16");
    let services = services(&["a", "b"]);
    let (mut first, mut second) = (services.clone(), services);
    pool.settle(&mut first);
    pool.settle(&mut second);
    assert!(first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(pool.take_changed().is_some());
    assert!(pool.take_changed().is_none());
}

#[test]
fn an_address_that_somebody_has_is_given_to_nobody() {
    let mut pool = pool("240.1.0.8/30");
    let first = settle(&mut pool, services(&["a"])).remove(0).remove(0);
    let ip = first.strip_suffix(":8080").unwrap();
    let mut two = services(&["a"]);
    two.push(with("explicit", &format!("{ip}:443")));
    let moved = settle(&mut pool, two).remove(0).remove(0);
    assert_ne!(first, moved);
    let endpoint = Arc::new(Service {
        addresses: vec!["10.96.0.1:80".parse().unwrap()],
        ..service("e", &["240.1.0.9:1", "240.1.0.10:1"])
    });
    let mut all = services(&["a"]);
    all.push(endpoint);
    assert_eq!(settle(&mut pool, all.clone())[0], [moved], "what was given stays");
    let mut fresh = self::pool("240.1.0.8/30");
    assert_eq!(settle(&mut fresh, all)[0], [""; 0], "endpoints listen at both");
}

#[test]
fn when_nothing_is_left_those_who_are_gone_for_longest_give_theirs_up() {
    let mut pool = pool("240.1.0.0/29");
    let names = ["a", "b", "c", "d", "e", "f"];
    let all = settle(&mut pool, services(&names));
    assert_eq!(pool.problems(), [""; 0]);
    let with_one_more = settle(&mut pool, services(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]));
    assert_eq!(with_one_more[..6], all);
    assert_eq!(with_one_more[6..], vec![Vec::<String>::new(); 5]);
    let [problem] = pool.problems() else { panic!("{:?}", pool.problems()) };
    assert!(problem.starts_with("g, h, i and 2 more: no address is left"), "{problem}");
    settle(&mut pool, services(&["a", "c", "d", "e", "f"]));
    settle(&mut pool, services(&["a", "d", "e", "f"]));
    let after = settle(&mut pool, services(&["a", "d", "e", "f", "g"]));
    assert_eq!(after[4], all[1], "b went first");
    let after = settle(&mut pool, services(&["a", "d", "e", "f", "g", "c"]));
    assert_eq!(after[5], all[2], "c has still its own");
}

#[test]
fn another_daemon_knows_what_was_given() {
    let mut first = pool("240.1.0.0/29");
    let given = settle(&mut first, services(&["a", "b", "c"]));
    settle(&mut first, services(&["a", "b"]));
    let mut second = pool("240.1.0.0/29");
    second.remember(first.take_changed().unwrap());
    assert_eq!(settle(&mut second, services(&["c", "x", "b", "a"]))[0], given[2]);
}

#[test]
fn ports_are_kept_over_a_restart_while_nobody_serves_the_service() {
    let mut first = pool("240.1.0.0/29");
    let given = settle(&mut first, vec![Arc::new(service("web", &["10.0.0.1:8080", "10.0.0.2:443"]))]);
    let before = first.take_changed().unwrap();
    let mut second = pool("240.1.0.0/29");
    second.remember(before.clone());
    assert_eq!(settle(&mut second, vec![Arc::new(service("web", &[]))]), given);
    assert_eq!(second.take_changed(), None, "nothing is to be written");
    settle(&mut second, vec![Arc::new(service("web", &["10.0.0.1:9090"]))]);
    assert_eq!(second.take_changed().unwrap()[0].ports, [443, 8080, 9090].into(), "a port more is");
    settle(&mut second, vec![]);
    assert_eq!(second.take_changed().unwrap()[0].ports, [].into(), "it is gone");
    let mut third = pool("240.1.0.0/29");
    third.remember(vec![Given { ports: (0..=u16::MAX).collect(), ..before[0].clone() }]);
    assert_eq!(settle(&mut third, vec![Arc::new(service("web", &[]))])[0].len(), MOST_PORTS);
}

#[test]
fn names_that_are_made_up_take_no_memory_without_end() {
    let mut pool = pool("fd00::/64");
    for turn in 0..3 {
        let names: Vec<String> = (0..10_000).map(|n| format!("s{turn}-{n}")).collect();
        settle(&mut pool, services(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    settle(&mut pool, services(&["web"]));
    let given = pool.take_changed().unwrap();
    assert_eq!(given.len(), 16_385);
    assert_eq!(given.iter().filter(|given| given.service.starts_with("s2-")).count(), 10_000, "the last ones are kept");
}

#[test]
fn another_range_means_other_addresses() {
    let mut pool = pool("240.1.0.0/24");
    settle(&mut pool, services(&["a", "b"]));
    pool.configure(Some("fd00:6d65:7368::/64".parse().unwrap()));
    let vips = settle(&mut pool, services(&["a", "b"])).concat();
    assert!(vips.iter().all(|vip| vip.starts_with("[fd00:6d65:7368:")), "{vips:?}");
}

proptest! {
    /// Services come and go; nobody shares, everybody keeps what it has while it is there.
    #[test]
    fn two_services_never_share_and_each_keeps_its_own(
        turns in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..10), 1..30),
        v6 in any::<bool>(),
    ) {
        let mut pool = pool(if v6 { "fd00::/125" } else { "240.1.0.0/29" });
        let mut before: HashMap<String, String> = HashMap::new();
        for there in turns {
            let names: Vec<String> = there.iter().map(|n| format!("s{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let given = settle(&mut pool, services(&names));
            let now: HashMap<String, String> = names
                .iter()
                .zip(&given)
                .filter_map(|(name, vips)| Some(((*name).to_owned(), vips.first()?.clone())))
                .collect();
            let distinct: HashSet<&String> = now.values().collect();
            prop_assert_eq!(distinct.len(), now.len());
            let size = if v6 { 7 } else { 6 };
            prop_assert_eq!(now.len(), names.len().min(size));
            for (name, vip) in &now {
                prop_assert!(before.get(name).is_none_or(|b| b == vip), "{} moved", name);
            }
            prop_assert_eq!(pool.problems().is_empty(), names.len() <= size);
            before = now;
        }
    }
}
