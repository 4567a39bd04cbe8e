//! The whole thing, with real sockets on loopback.

mod cost;
mod load;
mod retarget;
mod server;
mod verdicts;

use super::{Change, Checker, Sink, Target};
use crate::model::{Health, HealthCheck, HealthProbe};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Remembers what it is told.
#[derive(Default)]
struct Heard {
    changes: Mutex<Vec<Change>>,
    most_in_a_row: AtomicU32,
    traffic: AtomicBool,
}

impl Heard {
    /// The verdicts told of one endpoint, in order.
    fn of(&self, service: &str, address: SocketAddr) -> Vec<Health> {
        let changes = self.changes.lock().unwrap();
        changes.iter().filter(|c| *c.service == *service && c.address == address).map(|c| c.health).collect()
    }
}

impl Sink for Heard {
    fn changed(&self, changes: Vec<Change>) {
        self.changes.lock().unwrap().extend(changes);
    }

    fn passed(&self, _: &str, _: SocketAddr, in_a_row: u32) {
        self.most_in_a_row.fetch_max(in_a_row, Ordering::Relaxed);
    }

    fn succeeded_since(&self, _: &str, _: SocketAddr, _: Duration) -> bool {
        self.traffic.load(Ordering::Relaxed)
    }
}

fn checker() -> (Checker, Arc<Heard>) {
    let heard = Arc::<Heard>::default();
    (Checker::start(heard.clone(), 0).unwrap(), heard)
}

/// A check every `ms` milliseconds, with thresholds of 2.
fn every(ms: u64, probe: HealthProbe) -> Arc<HealthCheck> {
    let timeout = Duration::from_millis(500);
    let interval = Duration::from_millis(ms);
    Arc::new(HealthCheck { probe, interval, timeout, unhealthy_threshold: 2, healthy_threshold: 2 })
}

fn http() -> HealthProbe {
    HealthProbe::Http { path: "/".to_owned(), host: String::new(), expected_status: vec![200..=299] }
}

fn target(service: &str, address: SocketAddr, check: &Arc<HealthCheck>) -> Target {
    Target { service: service.into(), address, check: check.clone() }
}

/// Waits until `holds`, 10 s at most.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// An address where nobody listens.
fn closed() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sockets of this process that are connected to `address`.
fn connected_to(address: SocketAddr) -> usize {
    use nix::sys::socket::{SockaddrIn, getpeername};
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let fds = fds.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    fds.filter(|fd| getpeername::<SockaddrIn>(*fd).is_ok_and(|peer| SocketAddr::V4(peer.into()) == address)).count()
}
