//! What operators changed while the daemon runs, laid over what discovery says.

use super::{Policy, Service};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// Runtime changes. They hold until the daemon restarts, also over reloads, and also for an endpoint that goes and
/// comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    policies: HashMap<String, Policy>,
    breakers: HashMap<String, BreakerOverride>,
    endpoints: HashMap<String, BTreeMap<SocketAddr, EndpointOverride>>,
}

/// One runtime change, as it is handed from one daemon to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// How a service's endpoints are picked.
    Policy {
        /// The service.
        service: String,
        /// The policy.
        policy: Policy,
    },
    /// When a service's circuits open, and for how long.
    Breaker {
        /// The service.
        service: String,
        /// What is different.
        change: BreakerOverride,
    },
    /// What is different about an endpoint.
    Endpoint {
        /// Of this service.
        service: String,
        /// Where it listens.
        address: SocketAddr,
        /// Its weight; `None`: as its source says.
        weight: Option<u16>,
        /// Whether it drains; `None`: as its source says.
        draining: Option<bool>,
        /// Whether its circuit is held open.
        tripped: bool,
    },
}

/// Changes of services and endpoints that are not there wait until they are.
impl FromIterator<Override> for Overrides {
    fn from_iter<I: IntoIterator<Item = Override>>(changes: I) -> Self {
        let mut overrides = Self::default();
        for change in changes {
            match change {
                Override::Policy { service, policy } => drop(overrides.policies.insert(service, policy)),
                Override::Breaker { service, change } => drop(overrides.breakers.insert(service, change)),
                Override::Endpoint { service, address, weight, draining, tripped } => {
                    let endpoints = overrides.endpoints.entry(service).or_default();
                    endpoints.insert(address, EndpointOverride { weight, draining, tripped });
                }
            }
        }
        overrides
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EndpointOverride {
    weight: Option<u16>,
    draining: Option<bool>,
    tripped: bool,
}

/// What operators changed about the circuits of a service; `None`: as its source says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerOverride {
    /// [`Breaker::failure_threshold`](super::Breaker::failure_threshold).
    pub failure_threshold: Option<u32>,
    /// [`Breaker::reset_timeout`](super::Breaker::reset_timeout).
    pub reset_timeout: Option<Duration>,
}

/// Why a runtime change makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// No such service.
    #[error("no service is named {0:?}; `mesh services` lists them")]
    NoService(String),
    /// The service has no such endpoint.
    #[error("service {service:?} has no endpoint {address}; `mesh endpoints {service}` lists them")]
    NoEndpoint {
        /// The service.
        service: String,
        /// The address that is none of its endpoints.
        address: SocketAddr,
    },
}

impl Overrides {
    /// Sets the policy of a service.
    ///
    /// # Errors
    /// [`OverrideError::NoService`].
    pub fn set_policy(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        policy: Policy,
    ) -> Result<(), OverrideError> {
        find(services, service)?;
        self.policies.insert(service.to_owned(), policy);
        Ok(())
    }

    /// Sets the weight of an endpoint.
    ///
    /// # Errors
    /// [`OverrideError`], if there is no such service or endpoint.
    pub fn set_weight(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        address: SocketAddr,
        weight: u16,
    ) -> Result<(), OverrideError> {
        self.endpoint(services, service, address)?.weight = Some(weight);
        Ok(())
    }

    /// Takes an endpoint out of selection, or puts it back.
    ///
    /// # Errors
    /// [`OverrideError`], if there is no such service or endpoint.
    pub fn set_draining(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        address: SocketAddr,
        draining: bool,
    ) -> Result<(), OverrideError> {
        self.endpoint(services, service, address)?.draining = Some(draining);
        Ok(())
    }

    /// Holds the circuit of an endpoint open, or no longer.
    ///
    /// # Errors
    /// [`OverrideError`], if there is no such service or endpoint.
    pub fn set_tripped(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        address: SocketAddr,
        tripped: bool,
    ) -> Result<(), OverrideError> {
        self.endpoint(services, service, address)?.tripped = tripped;
        Ok(())
    }

    /// Changes when a service's circuits open; what is `None` stays as it is.
    ///
    /// # Errors
    /// [`OverrideError::NoService`].
    pub fn set_breaker(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        change: BreakerOverride,
    ) -> Result<(), OverrideError> {
        find(services, service)?;
        let breaker = self.breakers.entry(service.to_owned()).or_default();
        breaker.failure_threshold = change.failure_threshold.or(breaker.failure_threshold);
        breaker.reset_timeout = change.reset_timeout.or(breaker.reset_timeout);
        Ok(())
    }

    fn endpoint(
        &mut self,
        services: &[Arc<Service>],
        service: &str,
        address: SocketAddr,
    ) -> Result<&mut EndpointOverride, OverrideError> {
        let found = find(services, service)?;
        if !found.endpoints.iter().any(|e| e.address == address) {
            return Err(OverrideError::NoEndpoint { service: service.to_owned(), address });
        }
        Ok(self.endpoints.entry(service.to_owned()).or_default().entry(address).or_default())
    }

    /// Every change, in no particular order.
    pub fn list(&self) -> impl Iterator<Item = Override> + '_ {
        let policies = self.policies.iter();
        let policies = policies.map(|(service, policy)| Override::Policy { service: service.clone(), policy: *policy });
        let endpoints = self.endpoints.iter().flat_map(|(service, endpoints)| {
            endpoints.iter().map(|(address, change)| Override::Endpoint {
                service: service.clone(),
                address: *address,
                weight: change.weight,
                draining: change.draining,
                tripped: change.tripped,
            })
        });
        let breakers = self.breakers.iter();
        let breakers =
            breakers.map(|(service, change)| Override::Breaker { service: service.clone(), change: *change });
        policies.chain(breakers).chain(endpoints)
    }

    /// `service` as it is after these changes; `None` if none concerns it.
    #[must_use]
    pub fn apply(&self, service: &Service) -> Option<Service> {
        let (policy, endpoints) = (self.policies.get(&service.name), self.endpoints.get(&service.name));
        let breaker = self.breakers.get(&service.name);
        if policy.is_none() && endpoints.is_none() && breaker.is_none() {
            return None;
        }
        let mut changed = service.clone();
        changed.policy = policy.copied().unwrap_or(changed.policy);
        if let Some(change) = breaker {
            let breaker = &mut Arc::make_mut(&mut changed.settings).breaker;
            breaker.failure_threshold = change.failure_threshold.unwrap_or(breaker.failure_threshold);
            breaker.reset_timeout = change.reset_timeout.unwrap_or(breaker.reset_timeout);
            breaker.max_reset_timeout = breaker.max_reset_timeout.max(breaker.reset_timeout);
        }
        for endpoint in &mut changed.endpoints {
            if let Some(change) = endpoints.and_then(|e| e.get(&endpoint.address)) {
                endpoint.weight = change.weight.unwrap_or(endpoint.weight);
                endpoint.draining = change.draining.unwrap_or(endpoint.draining);
                endpoint.tripped = change.tripped;
            }
        }
        Some(changed)
    }
}

fn find<'a>(services: &'a [Arc<Service>], name: &str) -> Result<&'a Service, OverrideError> {
    services.iter().map(Arc::as_ref).find(|s| s.name == name).ok_or_else(|| OverrideError::NoService(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::service;

    #[test]
    fn changes_are_the_same_after_they_were_handed_on() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let services = [Arc::new(service("web", &["10.0.0.1:80"]))];
        let mut overrides = Overrides::default();
        overrides.set_policy(&services, "web", Policy::Random).unwrap();
        overrides.set_draining(&services, "web", address, true).unwrap();
        overrides.set_weight(&services, "web", address, 3).unwrap();
        overrides.set_tripped(&services, "web", address, true).unwrap();
        let threshold = BreakerOverride { failure_threshold: Some(2), reset_timeout: None };
        overrides.set_breaker(&services, "web", threshold).unwrap();
        let time = BreakerOverride { failure_threshold: None, reset_timeout: Some(Duration::from_secs(600)) };
        overrides.set_breaker(&services, "web", time).unwrap();
        assert_eq!(overrides.list().collect::<Overrides>(), overrides);
        let changed = overrides.list().collect::<Overrides>().apply(&services[0]).unwrap();
        assert_eq!((changed.policy, changed.endpoints[0].weight), (Policy::Random, 3));
        assert!(changed.endpoints[0].draining && changed.endpoints[0].tripped);
        let breaker = &changed.settings.breaker;
        assert_eq!((breaker.failure_threshold, breaker.reset_timeout), (2, Duration::from_secs(600)));
        assert_eq!(breaker.max_reset_timeout, Duration::from_secs(600), "never below the first one");
    }
}
