//! What checks cost. `cargo nextest run --release -p mesh-userspace --run-ignored only --no-capture health_checks_cost`

use super::*;
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::AtomicU64;

/// Takes the time of the checks' own thread.
#[derive(Default)]
struct Clock {
    passes: AtomicU64,
    asked: AtomicBool,
    cpu: Mutex<Option<Duration>>,
}

impl Clock {
    fn read(&self) -> (Duration, u64) {
        self.asked.store(true, Ordering::SeqCst);
        loop {
            if let Some(cpu) = self.cpu.lock().unwrap().take() {
                return (cpu, self.passes.load(Ordering::SeqCst));
            }
            pause(1);
        }
    }
}

impl Sink for Clock {
    fn changed(&self, changes: Vec<Change>) {
        assert!(changes.iter().all(|change| change.health == Health::Healthy), "{changes:?}");
    }

    fn passed(&self, _: &str, _: SocketAddr, _: u32) {
        self.passes.fetch_add(1, Ordering::SeqCst);
        if self.asked.swap(false, Ordering::SeqCst) {
            let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
            *self.cpu.lock().unwrap() = Some(time.into());
        }
    }

    fn succeeded_since(&self, _: &str, _: SocketAddr, _: Duration) -> bool {
        false
    }
}

#[test]
#[ignore = "takes half a minute and a quiet machine"]
fn health_checks_cost_less_than_a_fifth_of_a_core_for_10_000_endpoints() {
    // One listener for all of 127.0.0.0/8. Its queue is long: a full one would cost the checks a SYN and a second.
    let (listener, address) = server::mute();
    let port = address.port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let clock = Arc::<Clock>::default();
    let checker = Checker::start(clock.clone(), 0).unwrap();
    let check = Arc::new(HealthCheck::default());
    let address = |n, m| SocketAddr::from(([127, 1, n, m], port));
    let addresses: Vec<_> = (0..40).flat_map(|n| (1..=250).map(move |m| address(n, m))).collect();
    checker.set_targets(addresses.iter().map(|&address| target("s", address, &check)).collect());
    // Past the first checks, and until every endpoint has passed often enough to be heard of.
    pause(13_000);
    let (before, start) = (clock.read(), Instant::now());
    pause(15_000);
    let (after, took) = (clock.read(), start.elapsed());
    let (cpu, passes) = (after.0 - before.0, after.1 - before.1);
    let share = cpu.as_secs_f64() / took.as_secs_f64();
    println!(
        "{passes} checks in {took:.1?}: {cpu:.2?} of CPU, {:.1} % of one core, {:.1?} a check; {} late, {} failed",
        100.0 * share,
        cpu / u32::try_from(passes).unwrap(),
        checker.counters().late(),
        addresses.iter().map(|&address| checker.health("s", address).failures_total).sum::<u64>(),
    );
    let rate = passes as f64 / took.as_secs_f64();
    assert!((1900.0..2100.0).contains(&rate), "{rate} checks a second");
    assert!(share < 0.2, "{share}");
}
