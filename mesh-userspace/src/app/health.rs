//! Health checks and the rest of the daemon: what is checked, and what follows from a verdict.

use super::{
    daemon::{Daemon, State, now},
    transitions::Circuits,
};
use crate::{
    health::{Change, Checker, Sink, Target},
    model::{Health, HealthCheck, Snapshot},
};
use mesh_common::breaker::{self, Word};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// Checks a second that this daemon makes at most. Where more are asked for, all intervals grow.
const MOST_A_SECOND: f64 = 2000.0;

/// The daemon, as checks see it.
struct Ears {
    daemon: Weak<Daemon>,
    /// Passes of endpoints since their circuit became what it is.
    passes: Passes,
}

/// By service and endpoint: the circuit's word, and passes since it became that.
type Passes = Mutex<HashMap<(Box<str>, SocketAddr), (Word, u32)>>;

/// Starts checking.
///
/// # Errors
/// The system's, where there can be no thread.
pub(super) fn start(daemon: &Arc<Daemon>) -> io::Result<()> {
    let ears = Ears { daemon: Arc::downgrade(daemon), passes: Mutex::default() };
    let checker = Checker::start(Arc::new(ears), daemon.mark)?;
    checker.set_targets(targets(&daemon.state().snapshot));
    // It is set once: the daemon starts once.
    let _ = daemon.checker.set(checker);
    Ok(())
}

impl Daemon {
    /// From now on what the snapshot says is checked. Endpoints that are checked no longer have no verdict.
    pub(super) fn check(&self, state: &mut State) {
        let Some(checker) = self.checker.get() else { return };
        if let Some(datapath) = &mut state.datapath {
            datapath.forget_verdicts(&state.snapshot);
        }
        checker.set_targets(targets(&state.snapshot));
    }

    /// What the last check that failed said, of an endpoint that is unhealthy.
    pub(super) fn health_error(&self, service: &str, address: SocketAddr) -> Option<String> {
        self.checker.get()?.health(service, address).last_error
    }

    fn heard(&self, changes: &[Change]) {
        let mut state = self.state();
        let snapshot = Arc::clone(&state.snapshot);
        let Some(datapath) = &mut state.datapath else { return };
        for Change { service, address, health, reason } in changes {
            let Some(service) = snapshot.service(service) else { continue };
            // It may have gone, or its service may no longer want to know, since the check began.
            let wanted = service.settings.health_check.is_some();
            if !wanted || !service.endpoints.iter().any(|e| e.address == *address) {
                continue;
            }
            if datapath.set_health(service, *address, *health, now()) {
                let (service, endpoint) = (service.name.as_str(), address);
                match health {
                    Health::Unhealthy => {
                        let why = reason.as_deref().unwrap_or_default();
                        tracing::warn!(service, %endpoint, why, "unhealthy");
                    }
                    Health::Healthy | Health::Unknown => tracing::info!(service, %endpoint, "healthy"),
                }
            }
        }
        if state.may_change().is_ok() {
            self.refresh(&mut state);
        }
    }

    /// Closes the circuit of an endpoint that passed its checks often enough since it opened.
    fn close_early(&self, name: &str, address: SocketAddr, passes: &Passes) {
        let mut state = self.state();
        let snapshot = Arc::clone(&state.snapshot);
        if state.may_change().is_err() {
            return;
        }
        let Some(word) = Circuits::new(self, &state).known(name, address) else { return };
        let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(name), address);
        if word.state() == breaker::State::Closed {
            if !passes.is_empty() {
                passes.remove(&key);
            }
            return;
        }
        let seen = passes.entry(key).or_insert((word, 0));
        *seen = if seen.0 == word { (word, seen.1 + 1) } else { (word, 1) };
        let Some(service) = snapshot.service(name) else { return };
        let enough = service.settings.health_check.as_ref().map_or(u32::MAX, |check| check.healthy_threshold);
        if seen.1 >= enough && self.close(&mut state, service, address).is_some() {
            tracing::info!(service = name, endpoint = %address, "circuit closed: the endpoint passes its health checks");
            self.refresh(&mut state);
        }
    }

    /// Whether a connection to an endpoint was established at most `since` ago.
    fn succeeded_since(&self, service: &str, address: SocketAddr, since: Duration) -> bool {
        let state = self.state();
        let (Some(tables), Some(datapath)) = (self.tables(), &state.datapath) else { return false };
        let at = datapath.endpoint_row(service, address).map_or(0, |slot| tables.established_at(slot.id()));
        at != 0 && Duration::from_nanos(now().saturating_sub(at)) <= since
    }
}

impl Sink for Ears {
    fn changed(&self, changes: Vec<Change>) {
        if let Some(daemon) = self.daemon.upgrade() {
            daemon.heard(&changes);
        }
    }

    fn passed(&self, service: &str, address: SocketAddr, _: u32) {
        if let Some(daemon) = self.daemon.upgrade() {
            daemon.close_early(service, address, &self.passes);
        }
    }

    fn succeeded_since(&self, service: &str, address: SocketAddr, since: Duration) -> bool {
        self.daemon.upgrade().is_some_and(|daemon| daemon.succeeded_since(service, address, since))
    }
}

/// What is to be checked. Draining endpoints are too: they may come back.
fn targets(snapshot: &Snapshot) -> Vec<Target> {
    let checked = || snapshot.services().iter().filter_map(|s| Some((s, s.settings.health_check.as_ref()?)));
    let a_second: f64 = checked().map(|(s, check)| s.endpoints.len() as f64 / check.interval.as_secs_f64()).sum();
    let stretch = (a_second / MOST_A_SECOND).max(1.0);
    if stretch > 1.0 {
        tracing::warn!(
            "{a_second:.0} health checks a second are asked for: each is made {stretch:.1} times less often; set a longer \
             health_check.interval"
        );
    }
    // Services with equal checks share one.
    let mut shared: HashMap<&HealthCheck, Arc<HealthCheck>> = HashMap::new();
    let mut targets = Vec::new();
    for (service, check) in checked() {
        let stretched = || Arc::new(HealthCheck { interval: check.interval.mul_f64(stretch), ..check.clone() });
        let check = shared.entry(check).or_insert_with(stretched);
        let name: Arc<str> = service.name.as_str().into();
        let target = |address| Target { service: Arc::clone(&name), address, check: Arc::clone(check) };
        targets.extend(service.endpoints.iter().map(|e| target(e.address)));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Overrides, Service, Settings, tests::service as plain};

    fn service(name: &str, endpoints: u16, check: Option<HealthCheck>) -> Arc<Service> {
        let endpoint = |port| Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)));
        let settings = Arc::new(Settings { health_check: check, ..Settings::default() });
        let endpoints = (1..=endpoints).map(endpoint).collect();
        Arc::new(Service { settings, endpoints, ..plain(name, &[]) })
    }

    #[test]
    fn services_without_checks_are_not_checked_and_equal_checks_are_shared() {
        let check = Some(HealthCheck::default());
        let services = [service("a", 2, check.clone()), service("b", 3, None), service("c", 1, check)];
        let targets = targets(&Snapshot::new(&services, &Overrides::default()));
        let names: Vec<&str> = targets.iter().map(|t| &*t.service).collect();
        assert_eq!(names, ["a", "a", "c"]);
        assert!(Arc::ptr_eq(&targets[0].check, &targets[2].check));
        assert_eq!(targets[0].check.interval, Duration::from_secs(5));
    }

    #[test]
    fn more_checks_than_can_be_made_are_made_less_often() {
        let check = HealthCheck { interval: Duration::from_secs(1), ..HealthCheck::default() };
        let targets = targets(&Snapshot::new(&[service("a", 8000, Some(check))], &Overrides::default()));
        assert_eq!(targets[0].check.interval, Duration::from_secs(4));
    }
}
