//! The circuits of endpoints, as operators see and change them.

use super::{
    answer::wanted,
    daemon::{Daemon, State},
    door::{changed, fact_to_persist, nothing_left, refusal},
    transitions::{Circuits, shown},
};
use crate::{
    api::{Circuit, Kind, Refusal, Response},
    config,
    model::{BreakerOverride, Endpoint, OverrideError, Service},
};
use mesh_common::breaker;
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

impl Daemon {
    /// The circuits of all endpoints, or those of one service.
    pub(super) fn circuits(&self, service: Option<&str>) -> Result<Vec<Circuit>, Refusal> {
        let state = self.state();
        let services = wanted(state.snapshot.services(), service)?;
        let now = Circuits::new(self, &state);
        // A snapshot is sorted already.
        let of =
            |service: &Arc<Service>| service.endpoints.iter().map(|e| circuit(&now, service, e)).collect::<Vec<_>>();
        Ok(services.iter().flat_map(of).collect())
    }

    /// Holds the circuit of an endpoint open, or those of all endpoints of a service.
    pub(super) fn trip_circuit(&self, service: &str, address: Option<SocketAddr>) -> Result<Response, Refusal> {
        let mut state = self.state_to_change()?;
        let found = find(&state, service)?;
        let aimed_at = aimed_at(&found, address)?;
        let closed: Vec<SocketAddr> = aimed_at.iter().filter(|e| !e.tripped).map(|e| e.address).collect();
        if closed.is_empty() {
            let message = match address {
                Some(address) => format!("{service}: the circuit of {address} is held open already"),
                None => format!("{service}: all circuits are held open already"),
            };
            return Err(Refusal::new(Kind::Conflict, message));
        }
        let turned: Vec<SocketAddr> = {
            let now = Circuits::new(self, &state);
            closed
                .iter()
                .copied()
                .filter(|address| now.word(service, *address).state() != breaker::State::Open)
                .collect()
        };
        let problems = self.hold(&mut state, service, &closed, true)?;
        turned.iter().for_each(|address| self.count_turn(&state, service, *address, breaker::State::Open));
        let left = state.snapshot.service(service).and_then(|s| nothing_left(service, &s.endpoints));
        drop(state);
        let message = match closed.as_slice() {
            [address] => format!("{service}: circuit of {address} is held open: it gets no new connections"),
            more => {
                format!("{service}: circuits of {} endpoints are held open: they get no new connections", more.len())
            }
        };
        let mut changed = changed(message, None);
        changed.warnings = problems;
        changed.warnings.extend(left);
        Ok(Response::Changed(changed))
    }

    /// Closes the circuit of an endpoint, or those of all endpoints of a service, and holds them no longer.
    pub(super) fn reset_circuit(&self, service: &str, address: Option<SocketAddr>) -> Result<Response, Refusal> {
        let mut state = self.state_to_change()?;
        let found = find(&state, service)?;
        let aimed_at: Vec<(SocketAddr, bool)> =
            aimed_at(&found, address)?.iter().map(|e| (e.address, e.tripped)).collect();
        let held: Vec<SocketAddr> = aimed_at.iter().filter(|(_, held)| *held).map(|(address, _)| *address).collect();
        let mut reset = held.clone();
        for (address, held) in aimed_at {
            let was = self.close(&mut state, &found, address).unwrap_or_default();
            match held {
                false if !was.is_calm() => reset.push(address),
                // One that was held may have been opened by traffic as well, and closing that is counted.
                true if was.state() == breaker::State::Closed => {
                    self.count_turn(&state, service, address, breaker::State::Closed);
                }
                _ => {}
            }
        }
        let problems = if held.is_empty() {
            // What is said below is so when it is said.
            self.refresh(&mut state);
            Vec::new()
        } else {
            self.hold(&mut state, service, &held, false)?
        };
        drop(state);
        let message = match (reset.as_slice(), address) {
            ([], Some(address)) => {
                let message = format!("{service}: the circuit of {address} is closed and not held: nothing to reset");
                return Err(Refusal::new(Kind::Conflict, message));
            }
            ([], None) => {
                let message = format!("{service}: all circuits are closed and none is held: nothing to reset");
                return Err(Refusal::new(Kind::Conflict, message));
            }
            ([address], _) => format!("{service}: circuit of {address} is closed: it gets connections again"),
            (more, _) => {
                format!("{service}: circuits of {} endpoints are closed: they get connections again", more.len())
            }
        };
        let mut changed = changed(message, None);
        changed.warnings = problems;
        Ok(Response::Changed(changed))
    }

    /// Changes when a service's circuits open.
    pub(super) fn set_breaker(
        &self,
        service: &str,
        change: BreakerOverride,
        persist: bool,
    ) -> Result<Response, Refusal> {
        check(change)?;
        let mut state = self.state_to_change()?;
        let before = find(&state, service)?.settings.breaker.clone();
        let mut written = None;
        if persist && let Some(fact) = fact_to_persist(&mut state, service)? {
            // The files must stay valid: what is open for longer at first must be allowed to be.
            let max_reset_timeout = change.reset_timeout.filter(|time| *time > fact.settings.breaker.max_reset_timeout);
            let BreakerOverride { failure_threshold, reset_timeout } = change;
            let lasting = config::Change::Breaker { failure_threshold, reset_timeout, max_reset_timeout };
            written = Some(self.persist(service, lasting)?);
            // The files say so from now on, also to the next change that comes before they are read again.
            let breaker = &mut Arc::make_mut(&mut fact.settings).breaker;
            breaker.failure_threshold = failure_threshold.unwrap_or(breaker.failure_threshold);
            breaker.reset_timeout = reset_timeout.unwrap_or(breaker.reset_timeout);
            breaker.max_reset_timeout = max_reset_timeout.unwrap_or(breaker.max_reset_timeout);
        }
        let set = self.change(&mut state, |overrides, services| overrides.set_breaker(services, service, change));
        let mut warnings = set.map_err(refusal)?;
        if change.failure_threshold == Some(0) {
            // Nor are they open any more.
            let found = find(&state, service)?;
            for endpoint in &found.endpoints {
                self.close(&mut state, &found, endpoint.address);
            }
            self.refresh(&mut state);
        }
        drop(state);
        let mut parts = Vec::new();
        if let Some(threshold) = change.failure_threshold {
            parts.push(format!("failure_threshold {} → {threshold}", before.failure_threshold));
            if threshold == 0 {
                warnings.push(format!("circuits of {service} do not open by themselves any more"));
            }
        }
        if let Some(time) = change.reset_timeout {
            let word = config::Duration::from;
            parts.push(format!("reset_timeout {} → {}", word(before.reset_timeout), word(time)));
            if time > before.max_reset_timeout {
                let max = word(before.max_reset_timeout);
                warnings.push(format!("max_reset_timeout was less, {max}: it is {} too now", word(time)));
            }
        }
        let mut changed = changed(format!("{service}: {}", parts.join(", ")), written);
        changed.warnings = warnings;
        Ok(Response::Changed(changed))
    }

    /// Counts that a circuit came into a state because an operator wanted it.
    fn count_turn(&self, state: &State, service: &str, address: SocketAddr, to: breaker::State) {
        let datapath = state.datapath.as_ref().zip(self.tables());
        match datapath.and_then(|(datapath, tables)| Some((tables, datapath.endpoint_row(service, address)?))) {
            Some((tables, slot)) => tables.count_transition(slot.id(), to),
            None => {
                let table = self.http.shared.table.load();
                if let Some(endpoint) = table.service(service).and_then(|service| service.endpoint(address)) {
                    endpoint.transitions[to as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Holds circuits open, or no longer. Returns what did not fit into the tables.
    fn hold(
        &self,
        state: &mut State,
        service: &str,
        addresses: &[SocketAddr],
        held: bool,
    ) -> Result<Vec<String>, Refusal> {
        let set = self.change(state, |overrides, services| {
            addresses.iter().try_for_each(|address| overrides.set_tripped(services, service, *address, held))
        });
        set.map_err(refusal)
    }
}

fn circuit(now: &Circuits<'_>, service: &Service, endpoint: &Endpoint) -> Circuit {
    let word = now.word(&service.name, endpoint.address);
    let waits = word.state() == breaker::State::Open && !endpoint.tripped;
    Circuit {
        service: service.name.clone(),
        endpoint: endpoint.address,
        state: shown(word, endpoint.tripped),
        consecutive_failures: word.failures().into(),
        openings: word.openings(now.now_ms).into(),
        retry_at: waits.then(|| now.time(word.deadline())),
        forced: endpoint.tripped,
    }
}

fn find(state: &State, service: &str) -> Result<Arc<Service>, Refusal> {
    state.snapshot.service(service).cloned().ok_or_else(|| refusal(OverrideError::NoService(service.to_owned())))
}

/// The endpoint with this address, or all.
fn aimed_at(service: &Service, address: Option<SocketAddr>) -> Result<Vec<&Endpoint>, Refusal> {
    let wanted = |endpoint: &&Endpoint| address.is_none_or(|address| endpoint.address == address);
    let found: Vec<&Endpoint> = service.endpoints.iter().filter(wanted).collect();
    match address {
        Some(address) if found.is_empty() => {
            Err(refusal(OverrideError::NoEndpoint { service: service.name.clone(), address }))
        }
        None if found.is_empty() => {
            let message = format!("{} has no endpoints, hence no circuits", service.name);
            Err(Refusal::new(Kind::Conflict, message))
        }
        _ => Ok(found),
    }
}

/// Whether thresholds are such as a configuration may have.
fn check(change: BreakerOverride) -> Result<(), Refusal> {
    let BreakerOverride { failure_threshold, reset_timeout } = change;
    if failure_threshold.is_none() && reset_timeout.is_none() {
        return Err(Refusal::invalid("nothing to change: give failure_threshold, reset_timeout, or both"));
    }
    if let Some(threshold) = failure_threshold
        && !config::FAILURE_THRESHOLD.contains(&threshold)
    {
        let (least, most) = config::FAILURE_THRESHOLD.into_inner();
        return Err(Refusal::invalid(format!("failure_threshold: expected {least} to {most}, found {threshold}")));
    }
    if let Some(time) = reset_timeout
        && !config::RESET_TIMEOUT.contains(&time)
    {
        let (least, most) = config::RESET_TIMEOUT.into_inner();
        let (least, most) = (config::Duration::from(least), config::Duration::from(most));
        let message = format!("reset_timeout: expected {least} to {most}, found {} ms", time.as_millis());
        return Err(Refusal::invalid(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn thresholds_are_such_as_a_configuration_may_have() {
        let said = |failure_threshold, reset_timeout: Option<u64>| {
            let reset_timeout = reset_timeout.map(Duration::from_millis);
            check(BreakerOverride { failure_threshold, reset_timeout }).map_err(|refusal| refusal.message)
        };
        assert_eq!(said(Some(0), None), Ok(()));
        assert_eq!(said(Some(1000), Some(100)), Ok(()));
        assert_eq!(said(None, Some(86_400_000)), Ok(()));
        assert!(said(None, None).unwrap_err().starts_with("nothing to change"));
        assert_eq!(said(Some(1001), None).unwrap_err(), "failure_threshold: expected 0 to 1000, found 1001");
        assert_eq!(said(None, Some(99)).unwrap_err(), "reset_timeout: expected 100ms to 24h, found 99 ms");
        assert!(said(None, Some(u64::MAX)).is_err());
    }

    #[test]
    fn a_circuit_is_that_of_an_endpoint_that_is_there() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mut service = Service {
            name: "web".to_owned(),
            addresses: Vec::new(),
            hosts: Vec::new(),
            routes: Arc::default(),
            protocol: crate::model::Protocol::Tcp,
            policy: crate::model::Policy::RoundRobin,
            settings: Arc::default(),
            endpoints: vec![Endpoint::new(address), Endpoint::new("10.0.0.2:80".parse().unwrap())],
        };
        assert_eq!(aimed_at(&service, None).unwrap().len(), 2);
        assert_eq!(aimed_at(&service, Some(address)).unwrap()[0].address, address);
        let missing = aimed_at(&service, Some("10.0.0.3:80".parse().unwrap())).unwrap_err();
        assert_eq!(missing.kind, Kind::NotFound);
        service.endpoints.clear();
        assert_eq!(aimed_at(&service, None).unwrap_err().kind, Kind::Conflict);
    }
}
