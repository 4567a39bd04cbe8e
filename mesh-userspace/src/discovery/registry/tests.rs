use super::{
    entries::Entries,
    registration::{MAX_METADATA, Registration, RegistrationError},
    *,
};
use crate::discovery::{Change, Source, Teller, Update};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

fn registration(ttl: u64) -> Registration {
    Registration {
        address: "10.0.0.1:80".parse().unwrap(),
        weight: 1,
        zone: String::new(),
        metadata: BTreeMap::new(),
        ttl: Duration::from_secs(ttl),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The ids that are registered at `now`.
fn ids(entries: &Entries, now: Duration) -> Vec<String> {
    entries.list(None, now).into_iter().map(|listed| format!("{}/{}", listed.service, listed.id)).collect()
}

#[test]
fn an_instance_counts_for_its_ttl_from_when_it_was_heard_of() {
    let mut entries = Entries::default();
    assert_eq!(entries.put("web", "a", registration(10), 7, seconds(0)), Ok(Put::Created));
    assert!(entries.expire(seconds(9)).is_empty());
    assert_eq!(entries.heartbeat("web", "a", seconds(9)), Some(seconds(10)));
    assert!(entries.expire(seconds(18)).is_empty());
    assert_eq!(entries.list(None, seconds(18))[0].remaining, seconds(1));
    assert_eq!(entries.expire(seconds(19)).len(), 1);
    assert_eq!(entries.heartbeat("web", "a", seconds(19)), None, "it has to register again");
    assert_eq!((entries.len(), entries.due()), (0, None));
}

#[test]
fn a_clock_that_stands_still_or_goes_back_drops_nobody() {
    let mut entries = Entries::default();
    entries.put("web", "a", registration(10), 0, seconds(100)).unwrap();
    entries.heartbeat("web", "a", seconds(50));
    assert!(entries.expire(seconds(50)).is_empty());
    assert!(entries.expire(seconds(109)).is_empty());
    assert_eq!(entries.expire(seconds(110)).len(), 1);
}

#[test]
fn the_same_again_is_a_heartbeat_and_something_else_replaces() {
    let mut entries = Entries::default();
    entries.put("web", "a", registration(10), 7, seconds(0)).unwrap();
    assert_eq!(entries.take_changed().len(), 1);
    assert_eq!(entries.put("web", "a", registration(10), 8, seconds(5)), Ok(Put::Same));
    assert_eq!(entries.take_changed(), []);
    assert!(entries.expire(seconds(14)).is_empty());
    let heavier = Registration { weight: 3, ..registration(2) };
    assert_eq!(entries.put("web", "a", heavier, 9, seconds(14)), Ok(Put::Replaced));
    let (_, said) = entries.take_changed().remove(0);
    assert_eq!(said.unwrap().instances[0].endpoint.weight, 3);
    assert_eq!(entries.list(Some("web"), seconds(14))[0].registered_at, 7, "registered all the time");
    assert_eq!(entries.expire(seconds(16)).len(), 1, "its new TTL is shorter");
    assert_eq!(entries.take_changed(), [("web".into(), None)]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let refused = |id: &str, registration: Registration| {
        let mut entries = Entries::default();
        let refused = entries.put("web", id, registration, 0, seconds(0)).unwrap_err();
        assert_eq!(entries.len(), 0);
        refused.to_string()
    };
    for id in ["", "a/b", "a b", "\n", "ä", &"x".repeat(254)] {
        assert!(refused(id, registration(10)).starts_with("id: expected 1 to 253 printable"), "{id:?}");
    }
    for ttl in [Duration::ZERO, Duration::from_millis(999), seconds(86_401), seconds(3600 * 24 * 3650)] {
        let error = refused("a", Registration { ttl, ..registration(1) });
        assert!(error.starts_with("ttl: expected 1s to 24h"), "{error}");
    }
    for zone in ["a\nb", &"z".repeat(254)] {
        assert!(refused("a", Registration { zone: zone.to_owned(), ..registration(1) }).starts_with("zone: "));
    }
    for (key, value) in [("a\nb", "v"), ("k", "\u{1b}[2J"), ("k", "\u{7f}"), ("k\0", "v")] {
        let metadata = [(key.to_owned(), value.to_owned())].into();
        let error = refused("a", Registration { metadata, ..registration(1) });
        assert_eq!(error, format!("metadata: {key:?}: expected text without control characters"));
    }
    let many = |n: usize| Registration {
        metadata: (0..n).map(|n| (n.to_string(), String::new())).collect(),
        ..registration(1)
    };
    assert_eq!(refused("a", many(MAX_ENTRIES + 1)), "metadata: at most 256 entries, found 257");
    assert_eq!(Entries::default().put("web", "a", many(MAX_ENTRIES), 0, seconds(0)), Ok(Put::Created));
    for service in ["", "Web", "a..b", "web.", "-web", "10.0.0.1", &"x".repeat(64)] {
        let error = Entries::default().put(service, "a", registration(1), 0, seconds(0)).unwrap_err().to_string();
        assert!(error.starts_with("service: expected a name"), "{error}");
    }
    let much =
        |bytes: usize| Registration { metadata: [("k".to_owned(), "v".repeat(bytes - 1))].into(), ..registration(1) };
    assert_eq!(refused("a", much(MAX_METADATA + 1)), "metadata: at most 64 KiB of keys and values, found 65537 bytes");
    assert_eq!(Entries::default().put("web", "a", much(MAX_METADATA), 0, seconds(0)), Ok(Put::Created));
}

#[test]
fn metadata_of_all_instances_is_bounded_and_freed() {
    let mut entries = Entries::default();
    let much = || Registration { metadata: [("k".to_owned(), "v".repeat(MAX_METADATA - 1))].into(), ..registration(1) };
    let mut n = 0;
    let full = loop {
        match entries.put("web", &n.to_string(), much(), 0, seconds(0)) {
            Ok(_) => n += 1,
            Err(e) => break e,
        }
    };
    // What an entry takes besides its texts counts, too.
    assert_eq!((n, matches!(full, RegistrationError::Full(_))), (4088, true), "{full}");
    assert!(entries.put("web", "without", registration(1), 0, seconds(0)).is_ok());
    entries.remove("web", "7").unwrap();
    assert_eq!(entries.put("web", "again", much(), 0, seconds(0)), Ok(Put::Created));
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut entries = Entries::default();
    for n in 0..MAX_INSTANCES {
        entries.put(&format!("s{}", n % 100), &n.to_string(), registration(10), 0, seconds(0)).unwrap();
    }
    let full = entries.put("web", "one-more", registration(10), 0, seconds(0)).unwrap_err();
    assert_eq!(
        full.to_string(),
        "the registry is full: it has 100000 instances; deregister instances that are not needed"
    );
    let heavier = Registration { weight: 2, ..registration(10) };
    assert_eq!(entries.put("s0", "0", heavier, 0, seconds(0)), Ok(Put::Replaced), "who is in may change");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, u64),
    Heartbeat(u8, u8),
    Remove(u8, u8),
    Expire,
    Wait(u64),
    Begin,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, 0..4u8, 1..6u64).prop_map(|(s, i, ttl)| Step::Put(s, i, ttl)),
        4 => (0..3u8, 0..4u8).prop_map(|(s, i)| Step::Heartbeat(s, i)),
        2 => (0..3u8, 0..4u8).prop_map(|(s, i)| Step::Remove(s, i)),
        4 => Just(Step::Expire),
        4 => (0..4u64).prop_map(Step::Wait),
        1 => Just(Step::Begin),
    ]
}

proptest! {
    /// Against a table of deadlines; and whoever is told of changes knows the same.
    #[test]
    fn there_is_whoever_registered_and_was_heard_of_in_time_and_nobody_else(steps in prop::collection::vec(step(), 0..200)) {
        let mut entries = Entries::default();
        let mut model: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Put(s, i, ttl) => {
                    let (s, i) = (s.to_string(), i.to_string());
                    entries.put(&s, &i, registration(ttl), 0, seconds(now)).unwrap();
                    model.insert((s, i), (ttl, now + ttl));
                }
                Step::Heartbeat(s, i) => {
                    let key = (s.to_string(), i.to_string());
                    let heard = entries.heartbeat(&key.0, &key.1, seconds(now));
                    prop_assert_eq!(heard, model.get(&key).map(|(ttl, _)| seconds(*ttl)));
                    model.entry(key).and_modify(|(ttl, deadline)| *deadline = now + *ttl);
                }
                Step::Remove(s, i) => {
                    let key = (s.to_string(), i.to_string());
                    prop_assert_eq!(entries.remove(&key.0, &key.1).is_some(), model.remove(&key).is_some());
                }
                Step::Expire => {
                    entries.expire(seconds(now));
                    model.retain(|_, (_, deadline)| *deadline > now);
                }
                Step::Wait(time) => now += time,
                Step::Begin => {
                    entries.begin(seconds(now));
                    model.values_mut().for_each(|(ttl, deadline)| *deadline = now + *ttl);
                }
            }
            let expected: Vec<String> = model.keys().map(|(s, i)| format!("{s}/{i}")).collect();
            prop_assert_eq!(ids(&entries, seconds(now)), expected);
            prop_assert_eq!(entries.len(), model.len());
            // Who looks when it is due misses nobody.
            let first = model.values().map(|(_, deadline)| seconds(*deadline)).min();
            prop_assert!(entries.due() <= first && entries.due().is_some() == first.is_some());
            for (service, said) in entries.take_changed() {
                match said {
                    Some(said) => {
                        told.insert(service.to_string(), said.instances.into_iter().map(|i| i.id).collect());
                    }
                    None => drop(told.remove(&*service)),
                }
            }
            let known: Vec<String> =
                told.iter().flat_map(|(s, ids)| ids.iter().map(move |i| format!("{s}/{i}"))).collect();
            prop_assert_eq!(ids(&entries, seconds(now)), known);
        }
    }
}

/// A registry at work as a source: what it says comes out here.
fn at_work(registrar: &Arc<Registrar>) -> mpsc::Receiver<Update> {
    let (updates, said) = mpsc::channel(100);
    tokio::spawn(Arc::clone(registrar).run(Teller::new(Source::Registry, updates)));
    said
}

/// The next service that is told, with the ids of its instances.
async fn told(said: &mut mpsc::Receiver<Update>) -> (String, Vec<String>) {
    loop {
        if let Change::Service { key, said, certain } = said.recv().await.unwrap().change {
            assert!(certain, "the registry knows");
            let ids = |said: crate::discovery::Said| said.instances.into_iter().map(|i| i.id).collect();
            return (key, said.map(ids).unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn changes_are_told_and_who_is_not_heard_of_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let registrar = Arc::new(Registrar::open(directory.path(), HashSet::new()));
    let mut said = at_work(&registrar);
    assert_eq!(said.recv().await.unwrap().change, Change::Listing);
    assert_eq!(said.recv().await.unwrap().change, Change::Synced);
    let made = registrar.register("web", "a", registration(1)).unwrap();
    assert_eq!(told(&mut said).await, ("web".to_owned(), vec!["a".to_owned()]));
    registrar.taken(1);
    registrar.in_force(&made).await;
    let began = std::time::Instant::now();
    assert_eq!(told(&mut said).await, ("web".to_owned(), vec![]));
    assert!((Duration::from_millis(900)..seconds(3)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_registry_opened_again_knows_everybody_for_a_whole_ttl() {
    let directory = tempfile::tempdir().unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::new());
    let metadata = [("version".to_owned(), "1.2".to_owned())].into();
    let said = Registration { weight: 3, zone: "a".to_owned(), metadata, ..registration(60) };
    registrar.register("web", "a", said.clone()).unwrap();
    registrar.register("web", "b", registration(60)).unwrap();
    registrar.deregister("web", "b").unwrap().unwrap();
    assert!(registrar.save());
    let before = registrar.list(None);
    let again = Arc::new(Registrar::open(directory.path(), HashSet::new()));
    assert_eq!(again.all_said(), registrar.all_said());
    let mut told = at_work(&again);
    assert_eq!(told.recv().await.unwrap().change, Change::Listing);
    assert!(matches!(told.recv().await.unwrap().change, Change::Service { .. }));
    let [after] = &again.list(None)[..] else { panic!("one instance") };
    assert_eq!((&after.registration, after.registered_at), (&said, before[0].registered_at));
    assert!(after.remaining > seconds(59), "{after:?}");
}

#[test]
fn a_torn_or_foreign_file_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.json");
    let texts = ["{\"version\":1,\"inst", "{\"version\":2,\"instances\":[]}", "", "\0\u{1}", "[]"];
    for (n, text) in texts.into_iter().enumerate() {
        fs::write(&path, text).unwrap();
        let registrar = Registrar::open(directory.path(), HashSet::new());
        assert!(registrar.is_empty());
        let number = if n == 0 { String::new() } else { format!(".{}", n + 1) };
        let aside = directory.path().join(format!("registry.json.bad{number}"));
        assert_eq!(fs::read_to_string(&aside).unwrap(), text, "no earlier one is lost");
        assert!(!path.exists());
        let trouble = registrar.trouble().unwrap();
        assert!(trouble.contains(&aside.display().to_string()), "{trouble}");
        assert_eq!(registrar.errors(), 1);
        registrar.register("web", "a", registration(60)).unwrap();
        assert!(registrar.save());
        let again = Registrar::open(directory.path(), HashSet::new());
        assert_eq!((again.len(), again.trouble(), again.errors()), (1, None, 0));
    }
}

#[test]
fn an_instance_that_makes_no_sense_is_left_out_alone_and_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.json");
    let record = |service: &str, id: &str, address: &str, ttl: u64| {
        format!(
            r#"{{"service":"{service}","id":"{id}","address":"{address}","weight":1,"zone":"","metadata":{{}},
                "ttl_ms":{ttl},"registered_at_ms":7}}"#
        )
    };
    let records = [
        record("web", "no-ttl", "10.0.0.1:80", 0),
        record("web", "good", "10.0.0.2:80", 60_000),
        record("a..b", "bad-name", "10.0.0.3:80", 60_000),
        record("web", "nowhere", "0.0.0.0:80", 60_000),
        record("web", "no-address", "nowhere", 60_000),
        r#"{"service":"web"}"#.to_owned(),
    ];
    fs::write(&path, format!(r#"{{"version":1,"instances":[{}]}}"#, records.join(","))).unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::new());
    let [known] = &registrar.list(None)[..] else { panic!("{:?}", registrar.list(None)) };
    assert_eq!((known.id.as_str(), known.registered_at), ("good", 7));
    assert_eq!(registrar.errors(), 5);
    let trouble = registrar.trouble().unwrap();
    assert!(trouble.contains("registry.json: left out: ") && trouble.ends_with("; and 4 more"), "{trouble}");
    assert!(path.exists());
}

#[test]
fn that_nothing_can_be_written_down_is_trouble_until_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::new());
    registrar.register("web", "a", registration(60)).unwrap();
    let obstacle = directory.path().join("registry.json.new");
    fs::create_dir(&obstacle).unwrap();
    assert!(!registrar.save());
    let trouble = registrar.trouble().unwrap();
    assert!(trouble.contains("not written down") && trouble.contains("registry.json"), "{trouble}");
    assert_eq!(registrar.errors(), 1);
    fs::remove_dir(&obstacle).unwrap();
    assert!(registrar.save());
    assert_eq!((registrar.trouble(), registrar.errors()), (None, 1));
}

#[test]
fn during_a_takeover_nothing_changes_and_the_successor_knows_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::new());
    registrar.register("web", "a", registration(60)).unwrap();
    registrar.freeze();
    assert_eq!(Registrar::open(directory.path(), HashSet::new()).len(), 1, "without waiting for the file");
    assert_eq!(registrar.register("web", "b", registration(60)), Err(RegistrationError::Frozen));
    assert_eq!(registrar.deregister("web", "a"), Err(RegistrationError::Frozen));
    assert_eq!(registrar.heartbeat("web", "a"), Some(seconds(60)));
    let path = directory.path().join("registry.json");
    fs::write(&path, "of the successor").unwrap();
    assert!(registrar.save());
    assert_eq!(fs::read_to_string(&path).unwrap(), "of the successor");
    registrar.thaw();
    assert!(registrar.save());
    assert_eq!(Registrar::open(directory.path(), HashSet::new()).len(), 1, "it goes on, and so does its file");
}

#[test]
fn where_nobody_can_be_reached_nobody_is_registered() {
    let directory = tempfile::tempdir().unwrap();
    let own = "127.0.0.1:15001".parse().unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::from([own]));
    for address in ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "10.0.0.1:0", "[fe80::1]:80", "[ff02::1]:80"] {
        let registration = Registration { address: address.parse().unwrap(), ..registration(60) };
        assert!(
            matches!(registrar.register("web", "a", registration), Err(RegistrationError::Invalid(_))),
            "{address}"
        );
    }
    let error = registrar.register("web", "a", Registration { address: own, ..registration(60) }).unwrap_err();
    assert_eq!(error.to_string(), "address: 127.0.0.1:15001: where this daemon itself listens");
    let mapped = Registration { address: "[::ffff:10.0.0.9]:80".parse().unwrap(), ..registration(60) };
    registrar.register("web", "a", mapped).unwrap();
    assert_eq!(registrar.list(None)[0].registration.address, "10.0.0.9:80".parse().unwrap());
}

/// Not a test of speed but of cost: run it with `--release` and `--ignored` to see what a heartbeat takes.
#[test]
#[ignore = "it measures"]
fn what_ten_thousand_instances_cost() {
    let directory = tempfile::tempdir().unwrap();
    let registrar = Registrar::open(directory.path(), HashSet::new());
    let names: Vec<(String, String)> = (0..10_000).map(|n| (format!("s{}", n % 100), format!("10.0.{n}:80"))).collect();
    for (service, id) in &names {
        registrar.register(service, id, registration(30)).unwrap();
    }
    let began = std::time::Instant::now();
    for _ in 0..100 {
        for (service, id) in &names {
            registrar.heartbeat(service, id).unwrap();
        }
        registrar.expire();
    }
    let each = began.elapsed() / 1_000_000;
    eprintln!("a heartbeat: {each:?}; 1,000 a second: {:.4} % of a core", each.as_secs_f64() * 1000.0 * 100.0);
}
