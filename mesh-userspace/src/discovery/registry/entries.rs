//! Who is registered at a moment. Time is an argument: so long since some beginning, on a clock that only goes forward.

use super::registration::{MAX_ALL_METADATA, MAX_INSTANCES, Registration, RegistrationError};
use crate::{
    discovery::{Instance, Said},
    model::Endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// A registration as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) registration: Registration,
    /// When the instance was first registered, in milliseconds since 1970: for people.
    pub(super) registered_at: u64,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    /// When it is dropped unless it is heard of.
    deadline: Duration,
    /// Where it stands in the queue: not after the deadline. A heartbeat leaves it there.
    queued: (Duration, u64),
}

/// All instances.
///
/// A heartbeat only moves a deadline. Each instance stands once in a queue, and is looked at when its turn comes: it is
/// dropped then, or queued again if it was heard of. So the queue costs one step for each TTL, however many heartbeats.
#[derive(Debug, Default)]
pub(super) struct Entries {
    services: HashMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
    queue: BTreeMap<(Duration, u64), (Arc<str>, Arc<str>)>,
    /// Tells instances apart that are queued for one moment.
    number: u64,
    metadata: usize,
    /// Services that are not as they were at the last [`Entries::take_changed`].
    changed: BTreeSet<Arc<str>>,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// There was no such instance.
    Created,
    /// It said something else of itself before.
    Replaced,
    /// It said the same: it was heard of.
    Same,
}

/// An instance as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its service.
    pub service: String,
    /// What it is called.
    pub id: String,
    /// What it said of itself.
    pub registration: Registration,
    /// How long it still counts without being heard of.
    pub remaining: Duration,
    /// Since when it is registered without a break, in milliseconds since 1970.
    pub registered_at: u64,
}

impl Entries {
    /// Registers an instance at `now`, which the wall clock calls `wall` (milliseconds since 1970).
    pub(super) fn put(
        &mut self,
        service: &str,
        id: &str,
        registration: Registration,
        wall: u64,
        now: Duration,
    ) -> Result<Put, RegistrationError> {
        registration.check(service, id)?;
        let before = self.services.get(service).and_then(|instances| instances.get(id));
        let put = match before {
            None => Put::Created,
            Some(before) if before.record.registration == registration => Put::Same,
            Some(_) => Put::Replaced,
        };
        if put == Put::Same {
            self.heartbeat(service, id, now);
            return Ok(put);
        }
        if put == Put::Created && self.len() >= MAX_INSTANCES {
            return Err(RegistrationError::Full(format!("it has {MAX_INSTANCES} instances")));
        }
        let size = registration.metadata_size();
        let others = self.metadata - before.map_or(0, |before| before.record.registration.metadata_size());
        if size > 0 && others + size > MAX_ALL_METADATA {
            return Err(RegistrationError::Full(format!("it has {} MiB of metadata", MAX_ALL_METADATA >> 20)));
        }
        let registered_at = before.map_or(wall, |before| before.record.registered_at);
        self.insert(service, id, Arc::new(Record { registration, registered_at }), now);
        Ok(put)
    }

    /// Puts an instance in, which counts for its whole TTL from `now` on.
    pub(super) fn insert(&mut self, service: &str, id: &str, record: Arc<Record>, now: Duration) {
        let _ = self.take(service, id);
        let (service, id): (Arc<str>, Arc<str>) = match self.services.get_key_value(service) {
            Some((known, _)) => (Arc::clone(known), id.into()),
            None => (service.into(), id.into()),
        };
        self.metadata += record.registration.metadata_size();
        let deadline = now + record.registration.ttl;
        let queued = self.enqueue(deadline, (Arc::clone(&service), Arc::clone(&id)));
        self.changed.insert(Arc::clone(&service));
        self.services.entry(service).or_default().insert(id, Entry { record, deadline, queued });
    }

    fn enqueue(&mut self, at: Duration, who: (Arc<str>, Arc<str>)) -> (Duration, u64) {
        self.number += 1;
        let place = (at, self.number);
        self.queue.insert(place, who);
        place
    }

    /// An instance was heard of at `now`. Its TTL; `None`: it is not known, and has to register again.
    pub(super) fn heartbeat(&mut self, service: &str, id: &str, now: Duration) -> Option<Duration> {
        let entry = self.services.get_mut(service)?.get_mut(id)?;
        let ttl = entry.record.registration.ttl;
        // A clock that stands still must not shorten it.
        entry.deadline = entry.deadline.max(now + ttl);
        Some(ttl)
    }

    /// Deregisters an instance; `None`: it is not known.
    pub(super) fn remove(&mut self, service: &str, id: &str) -> Option<Arc<Record>> {
        let entry = self.take(service, id)?;
        let key = self.services.get_key_value(service).map_or_else(|| service.into(), |(key, _)| Arc::clone(key));
        self.changed.insert(key);
        if self.services.get(service).is_some_and(BTreeMap::is_empty) {
            self.services.remove(service);
        }
        Some(entry.record)
    }

    fn take(&mut self, service: &str, id: &str) -> Option<Entry> {
        let entry = self.services.get_mut(service)?.remove(id)?;
        self.queue.remove(&entry.queued);
        self.metadata -= entry.record.registration.metadata_size();
        Some(entry)
    }

    /// Drops whoever was not heard of in time. Who that is.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(Arc<str>, Arc<str>)> {
        let mut dropped = Vec::new();
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= now) {
            let (service, id) = first.remove();
            let Some(entry) = self.services.get_mut(&service).and_then(|s| s.get_mut(&id)) else { continue };
            if entry.deadline > now {
                let at = entry.deadline;
                let place = self.enqueue(at, (Arc::clone(&service), Arc::clone(&id)));
                if let Some(entry) = self.services.get_mut(&service).and_then(|s| s.get_mut(&id)) {
                    entry.queued = place;
                }
            } else {
                self.remove(&service, &id);
                dropped.push((service, id));
            }
        }
        dropped
    }

    /// When [`Entries::expire`] may have something to do; `None`: never.
    pub(super) fn due(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Everybody counts for the whole TTL from `now` on, and everything is told again.
    pub(super) fn begin(&mut self, now: Duration) {
        self.queue.clear();
        let mut number = self.number;
        for (service, instances) in &mut self.services {
            self.changed.insert(Arc::clone(service));
            for (id, entry) in instances {
                number += 1;
                entry.deadline = now + entry.record.registration.ttl;
                entry.queued = (entry.deadline, number);
                self.queue.insert(entry.queued, (Arc::clone(service), Arc::clone(id)));
            }
        }
        self.number = number;
    }

    /// Services that changed since this was asked last, as they are now; `None`: nobody serves them any more.
    pub(super) fn take_changed(&mut self) -> Vec<(Arc<str>, Option<Said>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|service| (Arc::clone(&service), self.said(&service))).collect()
    }

    /// Whether anything changed since [`Entries::take_changed`] was asked last.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn said(&self, service: &str) -> Option<Said> {
        let instance = |(id, entry): (&Arc<str>, &Entry)| {
            let Registration { address, weight, zone, .. } = &entry.record.registration;
            let endpoint = Endpoint { weight: *weight, zone: zone.clone(), ..Endpoint::new(*address) };
            Instance { id: id.to_string(), endpoint }
        };
        let instances = self.services.get(service)?;
        Some(Said { instances: instances.iter().map(instance).collect(), description: None })
    }

    /// All services, as they are.
    pub(super) fn all_said(&self) -> impl Iterator<Item = (&str, Said)> {
        self.services.keys().filter_map(|service| Some((&**service, self.said(service)?)))
    }

    /// All instances, or those of one service, sorted by service, address and id.
    pub(super) fn list(&self, service: Option<&str>, now: Duration) -> Vec<Listed> {
        let wanted: Vec<_> = match service {
            Some(service) => self.services.get_key_value(service).into_iter().collect(),
            None => self.services.iter().collect(),
        };
        let listed = |service: &Arc<str>, id: &Arc<str>, entry: &Entry| Listed {
            service: service.to_string(),
            id: id.to_string(),
            registration: entry.record.registration.clone(),
            remaining: entry.deadline.saturating_sub(now),
            registered_at: entry.record.registered_at,
        };
        let mut list: Vec<Listed> = wanted
            .into_iter()
            .flat_map(|(service, instances)| instances.iter().map(move |(id, entry)| listed(service, id, entry)))
            .collect();
        list.sort_by(|a, b| {
            (&a.service, a.registration.address, &a.id).cmp(&(&b.service, b.registration.address, &b.id))
        });
        list
    }

    /// One instance.
    pub(super) fn record(&self, service: &str, id: &str) -> Option<&Arc<Record>> {
        Some(&self.services.get(service)?.get(id)?.record)
    }

    /// All records, to be kept.
    pub(super) fn records(&self) -> Vec<(Arc<str>, Arc<str>, Arc<Record>)> {
        let all = self.services.iter().flat_map(|(service, instances)| {
            instances.iter().map(move |(id, entry)| (Arc::clone(service), Arc::clone(id), Arc::clone(&entry.record)))
        });
        all.collect()
    }

    /// How many instances there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
