//! Other targets while checks run.

use super::{server::Server, *};

#[test]
fn removed_targets_stop_and_unchanged_ones_keep_schedule_and_verdict() {
    let (stays, goes) = (Server::plain(), Server::plain());
    let (checker, heard) = checker();
    let check = every(200, HealthProbe::Tcp);
    let both = vec![target("s", stays.address, &check), target("s", goes.address, &check)];
    checker.set_targets(both.clone());
    wait("both healthy", || both.iter().all(|t| !heard.of("s", t.address).is_empty()));
    checker.set_targets(vec![both[0].clone()]);
    wait("forgotten", || checker.health("s", goes.address) == Default::default());
    pause(20);
    let (before, start) = (goes.accepted().len(), Instant::now());
    let made = stays.accepted().len();
    // Equal settings, though not the same ones in memory, are no change.
    for _ in 0..20 {
        checker.set_targets(vec![target("s", stays.address, &every(200, HealthProbe::Tcp))]);
        pause(50);
    }
    let expected = start.elapsed().as_millis() / 200;
    let made = (stays.accepted().len() - made) as u128;
    assert!((expected - 1..=expected + 2).contains(&made), "{made} checks instead of {expected}");
    assert_eq!(goes.accepted().len(), before);
    assert_eq!(heard.of("s", stays.address), [Health::Healthy]);
}

#[test]
fn services_with_equal_checks_share_one() {
    let server = Server::plain();
    let (checker, heard) = checker();
    let ask = |service| target(service, server.address, &every(100, HealthProbe::Tcp));
    checker.set_targets(vec![ask("a"), ask("b"), ask("a")]);
    wait("10 checks", || checker.health("a", server.address).checks_total >= 10);
    let made = server.accepted().len() as u64;
    for service in ["a", "b"] {
        assert_eq!(heard.of(service, server.address), [Health::Healthy]);
        assert!(checker.health(service, server.address).checks_total.abs_diff(made) <= 3);
    }
    // Another one is told what is known, at once, and the check goes on as it was.
    checker.set_targets(vec![ask("b"), ask("c")]);
    wait("told", || heard.of("c", server.address) == [Health::Healthy]);
    assert!(checker.health("c", server.address).checks_total <= 1);
    assert!(checker.health("b", server.address).checks_total >= 10);
    assert_eq!(heard.of("b", server.address), [Health::Healthy]);
    assert_eq!(checker.health("a", server.address), Default::default());
}

#[test]
fn other_settings_keep_the_verdict_and_the_totals() {
    let (checker, heard) = checker();
    let address = closed();
    let first = every(50, HealthProbe::Tcp);
    checker.set_targets(vec![target("s", address, &first)]);
    wait("unhealthy", || !heard.of("s", address).is_empty());
    let before = checker.health("s", address);
    let patient = Arc::new(HealthCheck { healthy_threshold: 5, ..(*first).clone() });
    for check in [patient, every(70, http()), every(20, HealthProbe::Grpc)] {
        checker.set_targets(vec![target("s", address, &check)]);
        let seen = checker.health("s", address).checks_total;
        for _ in 0..20 {
            let now = checker.health("s", address);
            assert!(now.health == Health::Unhealthy && now.since == before.since && now.last_error.is_some());
            assert!(now.checks_total >= seen && now.failures_total == now.checks_total);
            pause(2);
        }
        wait("more checks", || checker.health("s", address).checks_total > seen + 2);
    }
    assert_eq!(heard.of("s", address), [Health::Unhealthy]);
}

#[test]
fn who_leaves_a_shared_check_takes_its_verdict_along() {
    let server = Server::plain();
    let (checker, heard) = checker();
    let shared = every(50, HealthProbe::Tcp);
    checker.set_targets(vec![target("a", server.address, &shared), target("b", server.address, &shared)]);
    wait("both healthy", || ["a", "b"].iter().all(|s| !heard.of(s, server.address).is_empty()));
    // New in "c" and known in "b": what is known counts, for both.
    let own = every(3_600_000, HealthProbe::Tcp);
    let targets = [("a", &shared), ("c", &own), ("b", &own)].map(|(s, check)| target(s, server.address, check));
    checker.set_targets(targets.to_vec());
    wait("told", || heard.of("c", server.address) == [Health::Healthy]);
    for service in ["a", "b"] {
        assert_eq!(heard.of(service, server.address), [Health::Healthy]);
        assert_eq!(checker.health(service, server.address).health, Health::Healthy);
    }
}

#[test]
fn a_service_may_check_an_address_unlike_another_service() {
    let server = Server::http(Duration::ZERO, |_| 503);
    let (checker, heard) = checker();
    checker.set_targets(vec![
        target("tcp", server.address, &every(50, HealthProbe::Tcp)),
        target("http", server.address, &every(50, http())),
    ]);
    wait("both told", || ["tcp", "http"].iter().all(|s| !heard.of(s, server.address).is_empty()));
    assert_eq!(heard.of("tcp", server.address), [Health::Healthy]);
    assert_eq!(heard.of("http", server.address), [Health::Unhealthy]);
}
