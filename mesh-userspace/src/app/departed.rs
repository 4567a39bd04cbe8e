//! Endpoints and services that left: what was counted of them is told a while longer, so that no scrape misses the end of it.
//!
//! Their connections may be open still; those are counted on. What was never used leaves without a word.

use super::counts::Counts;
use crate::{
    kernel::Tables,
    model::Snapshot,
    proxy::{self, EndpointState},
    telemetry::metrics::{EndpointReport, Picked, ServiceReport},
};
use mesh_common::{
    endpoint::{EndpointCounts, EndpointTimes, Slot},
    reason::ServiceCounts,
};
use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// How long they are told. Ten scrapes at the usual interval of a minute; what Linkerd's proxy keeps idle series for.
const KEPT: Duration = Duration::from_secs(600);

/// How many endpoints are kept, and services, some 1 KiB each: where addresses come and go faster, the oldest are given up.
const MOST: usize = 10_000;

/// What left within the last minutes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Departed {
    endpoints: VecDeque<Endpoint>,
    services: VecDeque<Service>,
}

/// An endpoint that left its service.
#[derive(Debug)]
struct Endpoint {
    since: Duration,
    service: Arc<str>,
    address: SocketAddr,
    /// Its row in the kernel, which goes on counting until another endpoint has it.
    slot: Option<Slot>,
    /// As it was when it left.
    counts: EndpointCounts,
    times: EndpointTimes,
    /// What the proxy remembers of it, and counts on.
    requests: Option<Arc<EndpointState>>,
}

/// A service that left.
#[derive(Debug)]
struct Service {
    since: Duration,
    name: Arc<str>,
    counts: ServiceCounts,
    picks: Vec<Picked>,
    requests: Option<Arc<proxy::Service>>,
}

/// Responses of an endpoint that left a service which is still there.
pub(super) type Responses = (Arc<str>, SocketAddr, Arc<EndpointState>);

impl Departed {
    /// Notes what is in `before` and no longer in `after`, and forgets what came back. `counts` are those of `before`; `now`:
    /// since the start of the daemon.
    pub(super) fn note(&mut self, before: &Snapshot, after: &Snapshot, counts: &Counts<'_>, now: Duration) {
        self.expire(now);
        self.endpoints.retain(|e| {
            let service = after.service(&e.service);
            service.is_none_or(|s| s.endpoints.binary_search_by_key(&e.address, |e| e.address).is_err())
        });
        self.services.retain(|s| after.service(&s.name).is_none());
        for service in before.services() {
            let still = after.service(&service.name);
            if still.is_some_and(|still| Arc::ptr_eq(still, service)) {
                continue;
            }
            let name: Arc<str> = service.name.as_str().into();
            let requests = counts.requests(&name);
            let stays = |at| still.is_some_and(|s| s.endpoints.binary_search_by_key(&at, |e| e.address).is_ok());
            let mut picked = false;
            // Of those only: a service of thousands changes by one endpoint at a time.
            for address in service.endpoints.iter().map(|e| e.address).filter(|at| !stays(*at)) {
                let counted = counts.endpoint(&name, address);
                let own = requests.and_then(|s| s.endpoint(address));
                picked |= counted.picked > 0;
                if counted == EndpointCounts::default() && own.is_none_or(|own| own.responses.counts().next().is_none())
                {
                    continue;
                }
                self.endpoints.push_back(Endpoint {
                    since: now,
                    service: Arc::clone(&name),
                    address,
                    slot: counts.datapath.and_then(|datapath| datapath.endpoint_row(&name, address)),
                    counts: counted,
                    times: counts.times(&name, address),
                    requests: own.map(Arc::clone),
                });
            }
            if still.is_some() {
                continue;
            }
            let all = counts.service(&name);
            let asked = requests.filter(|s| s.state().was_asked());
            if picked || asked.is_some() || all.iter().any(|n| *n > 0) {
                let picks = counts.picks(&name, picked);
                let requests = asked.map(Arc::clone);
                self.services.push_back(Service { since: now, name, counts: all, picks, requests });
            }
        }
        self.endpoints.drain(..self.endpoints.len().saturating_sub(MOST));
        self.services.drain(..self.services.len().saturating_sub(MOST));
    }

    /// Forgets what left long ago.
    pub(super) fn expire(&mut self, now: Duration) {
        let old = |since: Duration| now.saturating_sub(since) >= KEPT;
        self.endpoints.drain(..self.endpoints.iter().take_while(|e| old(e.since)).count());
        self.services.drain(..self.services.iter().take_while(|s| old(s.since)).count());
    }

    /// Adds what the kernel counted to `services`, which are sorted by name and stay so. `tables`: where it goes on counting.
    pub(super) fn add_to(&self, services: &mut Vec<ServiceReport>, tables: Option<&Tables>) {
        if self.endpoints.is_empty() && self.services.is_empty() {
            return;
        }
        let gone = self.services.iter().map(|s| ServiceReport {
            name: s.name.to_string(),
            counts: s.counts,
            picks: s.picks.clone(),
            endpoints: Vec::new(),
        });
        services.extend(gone);
        services.sort_by(|a, b| a.name.cmp(&b.name));
        for endpoint in &self.endpoints {
            let Ok(at) = services.binary_search_by(|s| s.name.as_str().cmp(&endpoint.service)) else { continue };
            services[at].endpoints.push(endpoint.report(tables));
        }
    }

    /// Services that requests were sent to, and responses of endpoints that left services which are still there.
    pub(super) fn requests(&self) -> (impl Iterator<Item = &Arc<proxy::Service>>, Vec<Responses>) {
        let left: HashSet<&str> = self.services.iter().filter(|s| s.requests.is_some()).map(|s| &*s.name).collect();
        let responses = self.endpoints.iter().filter(|e| !left.contains(&*e.service)).filter_map(|e| {
            let state = e.requests.as_ref()?;
            Some((Arc::clone(&e.service), e.address, Arc::clone(state)))
        });
        (self.services.iter().filter_map(|s| s.requests.as_ref()), responses.collect())
    }
}

impl Endpoint {
    fn report(&self, tables: Option<&Tables>) -> EndpointReport {
        let row =
            tables.zip(self.slot).filter(|(tables, slot)| tables.has(*slot)).map(|(tables, slot)| (tables, slot.id()));
        let (counts, times) = match (row, &self.requests) {
            (Some((tables, id)), _) => (tables.endpoint_counts(id), tables.endpoint_times(id)),
            (None, Some(own)) if self.slot.is_none() => (own.connections.counts(), self.times),
            (None, _) => (self.counts, self.times),
        };
        EndpointReport {
            address: self.address.to_string(),
            counts,
            circuit: None,
            healthy: None,
            times: Some(times).filter(|times| times.connect.count() > 0).map(Box::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(departed: &mut Departed, minute: u64) {
        let since = Duration::from_secs(60 * minute);
        departed.endpoints.push_back(Endpoint {
            since,
            service: "web".into(),
            address: SocketAddr::from(([10, 0, 0, 1], u16::try_from(minute).unwrap())),
            slot: None,
            counts: EndpointCounts { opened: minute, ..EndpointCounts::default() },
            times: EndpointTimes::default(),
            requests: None,
        });
        let counts = ServiceCounts::default();
        departed.services.push_back(Service { since, name: "gone".into(), counts, picks: Vec::new(), requests: None });
    }

    #[test]
    fn what_left_is_told_for_ten_minutes() {
        let mut departed = Departed::default();
        [1, 2, 5].into_iter().for_each(|minute| left(&mut departed, minute));
        let told = |departed: &Departed| {
            let web = ServiceReport {
                name: "web".to_owned(),
                counts: ServiceCounts::default(),
                picks: Vec::new(),
                endpoints: Vec::new(),
            };
            let mut services = vec![web];
            departed.add_to(&mut services, None);
            let opened = services.last().unwrap().endpoints.iter().map(|e| e.counts.opened).collect::<Vec<_>>();
            (services.iter().map(|s| s.name.clone()).collect::<Vec<_>>(), opened)
        };
        assert_eq!(
            told(&departed),
            (vec!["gone".to_owned(), "gone".to_owned(), "gone".to_owned(), "web".to_owned()], vec![1, 2, 5])
        );
        departed.expire(Duration::from_secs(12 * 60));
        assert_eq!(told(&departed), (vec!["gone".to_owned(), "web".to_owned()], vec![5]));
        departed.expire(Duration::from_secs(60 * 60));
        assert_eq!(told(&departed), (vec!["web".to_owned()], vec![]));
    }
}
