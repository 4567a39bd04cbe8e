//! Servers that hang, more checks than fit, and the end.

use super::{server::mute, *};
use crate::health::engine::AT_ONCE;

/// A check that hangs for `ms` milliseconds at a mute server.
fn hanging(ms: u64, probe: HealthProbe) -> Arc<HealthCheck> {
    let time = Duration::from_millis(ms);
    Arc::new(HealthCheck { timeout: time, ..(*every(ms, probe)).clone() })
}

#[test]
fn checks_of_a_server_that_never_answers_end_and_leave_nothing_open() {
    let (_listener, address) = mute();
    let (checker, heard) = checker();
    let checks = [hanging(100, http()), hanging(100, HealthProbe::Grpc)];
    checker.set_targets(vec![target("http", address, &checks[0]), target("grpc", address, &checks[1])]);
    for service in ["http", "grpc"] {
        wait("10 checks", || checker.health(service, address).checks_total >= 10);
        assert_eq!(heard.of(service, address), [Health::Unhealthy]);
        let error = checker.health(service, address).last_error.unwrap();
        assert_eq!(error, "no answer within 100ms");
    }
    for _ in 0..50 {
        // One that ended may be closed a moment after the next began.
        assert!(connected_to(address) <= 4, "{}", connected_to(address));
        pause(2);
    }
    checker.set_targets(Vec::new());
    wait("closed", || connected_to(address) == 0);
}

#[test]
fn no_more_checks_are_under_way_than_allowed_and_all_get_their_turn() {
    let (_listener, mute) = mute();
    let (checker, heard) = checker();
    let check = Arc::new(HealthCheck { unhealthy_threshold: 1, ..(*hanging(700, http())).clone() });
    let address = |n: u8, m: u8| SocketAddr::from(([127, 1, n, m], mute.port()));
    let targets: Vec<_> = (0..3).flat_map(|n| (1..=250).map(move |m| address(n, m))).collect();
    checker.set_targets(targets.iter().map(|&address| target("s", address, &check)).collect());
    let mut most = 0;
    wait("all checked", || {
        let fds =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let peers = fds.filter_map(|fd| nix::sys::socket::getpeername::<nix::sys::socket::SockaddrIn>(fd).ok());
        most = most.max(peers.filter(|peer| peer.port() == mute.port()).count());
        heard.changes.lock().unwrap().len() == targets.len()
    });
    assert!((AT_ONCE - 10..=AT_ONCE).contains(&most), "{most}");
    assert!(checker.counters().late() > 0);
}

#[test]
fn stopping_ends_the_thread_and_the_checks_under_way() {
    let (_listener, address) = mute();
    let (checker, heard) = checker();
    let check = hanging(60_000, http());
    let soon = every(10, HealthProbe::Tcp);
    checker.set_targets(vec![target("s", address, &check), target("t", address, &soon)]);
    wait("one hangs", || connected_to(address) > 0 && checker.health("t", address).checks_total > 0);
    wait("it is the slow one", || {
        pause(1000);
        connected_to(address) > 0
    });
    let start = Instant::now();
    checker.stop();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!((connected_to(address), Arc::strong_count(&heard)), (0, 1));
}

#[test]
fn a_removed_target_is_let_go_even_while_its_check_hangs() {
    let (_listener, address) = mute();
    let (checker, _) = checker();
    checker.set_targets(vec![target(
        "s",
        address,
        &Arc::new(HealthCheck { timeout: Duration::from_secs(60), ..(*every(10, http())).clone() }),
    )]);
    wait("it hangs", || connected_to(address) == 1);
    checker.set_targets(Vec::new());
    wait("closed", || connected_to(address) == 0);
}

/// Lets its checker go from the checks' own thread.
#[derive(Default)]
struct Last(Mutex<Option<Checker>>);

impl Sink for Last {
    fn changed(&self, _: Vec<Change>) {
        self.0.lock().unwrap().take();
    }

    fn passed(&self, _: &str, _: SocketAddr, _: u32) {}

    fn succeeded_since(&self, _: &str, _: SocketAddr, _: Duration) -> bool {
        true
    }
}

#[test]
fn the_checks_own_thread_can_let_the_checker_go() {
    let last = Arc::<Last>::default();
    let checker = Checker::start(last.clone(), 0).unwrap();
    checker.set_targets(vec![target("s", closed(), &every(10, HealthProbe::Tcp))]);
    *last.0.lock().unwrap() = Some(checker);
    wait("the thread has ended", || Arc::strong_count(&last) == 1);
}
