//! What follows from passes and failures.

use super::{server::Server, *};

/// As [`every`], for a server whose answers no stall of this machine makes too late.
fn patient(ms: u64, probe: HealthProbe) -> Arc<HealthCheck> {
    Arc::new(HealthCheck { timeout: Duration::from_secs(5), ..(*every(ms, probe)).clone() })
}

#[test]
fn a_change_to_healthy_carries_no_reason() {
    let (checker, heard) = checker();
    let (address, check) = (closed(), every(50, HealthProbe::Tcp));
    checker.set_targets(vec![target("s", address, &check)]);
    wait("unhealthy", || checker.health("s", address).health == Health::Unhealthy);
    let report = checker.health("s", address);
    assert!(report.last_error.unwrap().contains("refused") && report.since.is_some());
    assert!(report.checks_total >= 2 && report.failures_total == report.checks_total);
    let _server = Server::at(address);
    wait("healthy", || heard.of("s", address).len() == 2);
    let report = checker.health("s", address);
    assert_eq!((report.health, report.last_error), (Health::Healthy, None));
    let changes = heard.changes.lock().unwrap();
    assert!(changes[0].health == Health::Unhealthy && changes[0].reason.as_ref().unwrap().contains("refused"));
    assert!(changes[1].health == Health::Healthy && changes[1].reason.is_none());
}

#[test]
fn an_endpoint_that_fails_every_other_check_stays_healthy() {
    let server = Server::http(Duration::ZERO, |nth| if nth % 2 == 0 { 200 } else { 503 });
    let (checker, heard) = checker();
    checker.set_targets(vec![target("s", server.address, &patient(30, http()))]);
    wait("20 checks", || checker.health("s", server.address).checks_total >= 20);
    assert_eq!(heard.of("s", server.address), [Health::Healthy]);
    assert_eq!(heard.most_in_a_row.load(Ordering::Relaxed), 0);
    let report = checker.health("s", server.address);
    assert!(report.failures_total.abs_diff(report.checks_total / 2) <= 1, "{report:?}");
}

#[test]
fn a_flapping_endpoint_changes_once_for_each_run() {
    let server = Server::http(Duration::ZERO, |nth| if nth / 4 % 2 == 0 { 200 } else { 503 });
    let (checker, heard) = checker();
    checker.set_targets(vec![target("s", server.address, &patient(50, http()))]);
    wait("32 checks", || checker.health("s", server.address).checks_total >= 32);
    // Checks end between a look at them and their end: there are so many at least, and no more than were begun.
    let least = checker.health("s", server.address).checks_total;
    checker.stop();
    let [least, most] = [least, server.accepted().len() as u64].map(|checks| (checks - 2) / 4 + 1);
    let verdicts = heard.of("s", server.address);
    assert!((least - 1..=most).contains(&(verdicts.len() as u64)), "{least} to {most}: {verdicts:?}");
    assert!(verdicts.windows(2).all(|two| two[0] != two[1]), "{verdicts:?}");
}

#[test]
fn real_traffic_takes_the_place_of_tcp_checks_only() {
    let (tcp, web) = (Server::plain(), Server::http(Duration::ZERO, |_| 200));
    let (checker, heard) = checker();
    heard.traffic.store(true, Ordering::Relaxed);
    let targets =
        [target("s", tcp.address, &every(50, HealthProbe::Tcp)), target("s", web.address, &every(50, http()))];
    checker.set_targets(targets.to_vec());
    wait("5 checks each", || targets.iter().all(|t| checker.health("s", t.address).checks_total >= 5));
    assert_eq!((tcp.accepted().len(), heard.of("s", tcp.address)), (0, vec![Health::Healthy]));
    assert!(web.accepted().len() >= 5 && checker.counters().skipped() >= 5);
    assert!(heard.most_in_a_row.load(Ordering::Relaxed) >= 5);
    heard.traffic.store(false, Ordering::Relaxed);
    wait("a check without traffic", || !tcp.accepted().is_empty());
}

#[test]
fn the_period_is_the_interval_however_long_a_check_takes() {
    let server = Server::http(Duration::from_millis(120), |_| 200);
    let (checker, _) = checker();
    checker.set_targets(vec![target("s", server.address, &every(200, http()))]);
    wait("12 checks", || server.accepted().len() >= 12);
    let accepted = server.accepted();
    // The first one comes while much else starts.
    let mean = (accepted[11] - accepted[1]) / 10;
    // 320 ms, were it counted from the check's end.
    assert!((Duration::from_millis(150)..=Duration::from_millis(290)).contains(&mean), "{mean:?}");
}
