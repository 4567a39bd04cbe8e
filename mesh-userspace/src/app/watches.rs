//! Services that are watched: what changed about their endpoints, for all who watch.
//!
//! However many watch a service, its endpoints are looked at once for each change.

use super::{
    answer,
    counts::Counts,
    daemon::{Daemon, State},
    transitions::{self, Circuits},
};
use crate::api::{Event, Feed, KEPT, Reader, Refusal, WatchedEndpoint};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Notify, time::sleep};

/// A service that nobody watches any more is still followed for so long, for whoever comes back.
const COMES_BACK: Duration = Duration::from_secs(300);
/// Changes within this time are told together.
const TOGETHER: Duration = Duration::from_millis(5);
/// Of more changes at once nobody is told one by one: everybody gets a new snapshot.
const ONE_BY_ONE: usize = KEPT / 4;

/// All services that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    topics: Mutex<Topics>,
    touched: Notify,
}

#[derive(Debug, Default)]
struct Topics {
    by_service: HashMap<String, Topic>,
    /// The highest id that was ever used.
    highest: u64,
}

/// The endpoints of a service, by address; `None`: there is no such service.
type View = Option<BTreeMap<SocketAddr, WatchedEndpoint>>;

#[derive(Debug)]
struct Topic {
    feed: Arc<Feed>,
    known: View,
    /// All that is known as JSON, and the event after which that holds.
    snapshot: Option<(u64, Arc<str>)>,
    /// Since when nobody watches.
    idle_since: Option<Instant>,
}

impl Watches {
    /// Endpoints may have changed.
    pub(super) fn touch(&self) {
        self.touched.notify_one();
    }
}

/// Tells those who watch what changes; for ever.
pub(super) async fn follow(daemon: Arc<Daemon>) {
    loop {
        daemon.watches.touched.notified().await;
        let looker = Arc::clone(&daemon);
        // The state may be in use for a while.
        let _ = tokio::task::spawn_blocking(move || looker.look_at_watched()).await;
        sleep(TOGETHER).await;
    }
}

impl Daemon {
    /// Watches a service.
    pub(super) fn watch(&self, service: &str, after: Option<u64>) -> Result<Reader, Refusal> {
        let mut topics = self.watches.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let Topics { by_service, highest } = &mut *topics;
        // One that was gone may be back, and not have been looked at again: who just registered is not to be told otherwise.
        if by_service.get(service).is_none_or(|topic| topic.known.is_none()) {
            let known = view(self, &self.state(), service);
            match by_service.get_mut(service) {
                Some(topic) => {
                    topic.become_as(service, known);
                    *highest = (*highest).max(topic.feed.last());
                }
                None if known.is_none() => {}
                None => {
                    // Later than whatever this daemon or the one before it used.
                    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    *highest = u64::try_from(since.as_micros()).unwrap_or(0).max(*highest + 1);
                    let topic = Topic { feed: Feed::new(*highest), known, snapshot: None, idle_since: None };
                    by_service.insert(service.to_owned(), topic);
                }
            }
        }
        match by_service.get_mut(service) {
            Some(topic) if topic.known.is_some() => Ok(topic.read(after)),
            _ => {
                let message = format!("no service is named {service:?}; `mesh services` lists them");
                Err(Refusal::not_found(message))
            }
        }
    }

    fn look_at_watched(&self) {
        let mut topics = self.watches.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let Topics { by_service, highest } = &mut *topics;
        let now = Instant::now();
        by_service.retain(|_, topic| !topic.is_forgotten(now));
        for (service, topic) in by_service {
            // One after the other: whoever else needs the state gets it in between.
            let view = view(self, &self.state(), service);
            topic.become_as(service, view);
            *highest = (*highest).max(topic.feed.last());
        }
    }
}

impl Topic {
    fn is_forgotten(&mut self, now: Instant) -> bool {
        if Arc::strong_count(&self.feed) > 1 {
            self.idle_since = None;
            return false;
        }
        now.duration_since(*self.idle_since.get_or_insert(now)) > COMES_BACK
    }

    fn read(&mut self, after: Option<u64>) -> Reader {
        match after.and_then(|after| self.feed.resume(after)) {
            Some(reader) => reader,
            None => {
                let (id, data) = (self.feed.last(), self.snapshot());
                self.feed.read_from(Event { id, kind: "snapshot", data })
            }
        }
    }

    fn snapshot(&mut self) -> Arc<str> {
        let last = self.feed.last();
        if let Some((_, data)) = self.snapshot.as_ref().filter(|(of, _)| *of == last) {
            return Arc::clone(data);
        }
        let endpoints: Vec<&WatchedEndpoint> = self.known.iter().flat_map(BTreeMap::values).collect();
        let data = json(&endpoints);
        self.snapshot = Some((last, Arc::clone(&data)));
        data
    }

    /// Tells what is different about `view`.
    fn become_as(&mut self, service: &str, view: View) {
        let events = changes(service, self.known.as_ref(), view.as_ref());
        if events.is_empty() {
            return;
        }
        self.known = view;
        if events.len() <= ONE_BY_ONE {
            return self.feed.push(events);
        }
        self.snapshot = None;
        let data = self.snapshot();
        self.feed.push([("snapshot", data)]);
        if self.known.is_none() {
            self.feed.push(changes(service, Some(&BTreeMap::new()), None));
        }
    }
}

/// The events that lead from one view to another.
fn changes(
    service: &str,
    before: Option<&BTreeMap<SocketAddr, WatchedEndpoint>>,
    after: Option<&BTreeMap<SocketAddr, WatchedEndpoint>>,
) -> Vec<(&'static str, Arc<str>)> {
    let mut events = Vec::new();
    let gone = |address: &SocketAddr| after.is_none_or(|after| !after.contains_key(address));
    for address in before.into_iter().flat_map(BTreeMap::keys).filter(|address| gone(address)) {
        events.push(("removed", json(&serde_json::json!({ "service": service, "address": address }))));
    }
    let name = || json(&serde_json::json!({ "service": service }));
    match (before, after) {
        (Some(_), None) => events.push(("vanished", name())),
        (None, Some(_)) => events.push(("returned", name())),
        _ => {}
    }
    for (address, endpoint) in after.into_iter().flatten() {
        if before.and_then(|before| before.get(address)) != Some(endpoint) {
            events.push(("endpoint", json(endpoint)));
        }
    }
    events
}

fn json(value: &impl serde::Serialize) -> Arc<str> {
    // Texts and numbers can always be written.
    serde_json::to_string(value).unwrap_or_default().into()
}

fn view(daemon: &Daemon, state: &State, service: &str) -> View {
    let service = state.snapshot.service(service)?;
    let (counts, circuits) = (Counts::new(daemon, state), Circuits::new(daemon, state));
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let endpoints = service.endpoints.iter().map(|e| {
        let watched = WatchedEndpoint {
            service: service.name.clone(),
            address: e.address,
            weight: e.weight,
            zone: known(&e.zone),
            region: known(&e.region),
            node: known(&e.node),
            health: answer::health(counts.health(&service.name, e.address)),
            circuit: transitions::shown(circuits.word(&service.name, e.address), e.tripped),
            draining: e.draining,
        };
        (e.address, watched)
    });
    Some(endpoints.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CircuitState, EndpointHealth, Read};
    use proptest::prelude::*;

    fn endpoint(port: u16, weight: u16) -> (SocketAddr, WatchedEndpoint) {
        let address = SocketAddr::from(([10, 0, 0, 1], port));
        let watched = WatchedEndpoint {
            service: "web".to_owned(),
            address,
            weight,
            zone: None,
            region: None,
            node: None,
            health: EndpointHealth::Unknown,
            circuit: CircuitState::Closed,
            draining: false,
        };
        (address, watched)
    }

    fn topic(known: View) -> Topic {
        Topic { feed: Feed::new(100), known, snapshot: None, idle_since: None }
    }

    /// What a client knows that heard of everything: who watches builds the same from events.
    fn hear(known: &mut View, event: &Event) {
        let read = || serde_json::from_str::<WatchedEndpoint>(&event.data).unwrap();
        match event.kind {
            "snapshot" => {
                let all: Vec<WatchedEndpoint> = serde_json::from_str(&event.data).unwrap();
                *known = Some(all.into_iter().map(|e| (e.address, e)).collect());
            }
            "endpoint" => drop(known.as_mut().unwrap().insert(read().address, read())),
            "removed" => {
                let address = serde_json::from_str::<serde_json::Value>(&event.data).unwrap()["address"].clone();
                let address: SocketAddr = serde_json::from_value(address).unwrap();
                assert!(known.as_mut().unwrap().remove(&address).is_some(), "it was there");
            }
            "vanished" => *known = None,
            "returned" => *known = Some(BTreeMap::new()),
            other => panic!("{other}"),
        }
    }

    /// All that can be read without waiting.
    async fn read(reader: &mut Reader) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            tokio::select! {
                biased;
                read = reader.next() => match read {
                    Read::Event(event) => events.push(event),
                    other => panic!("{other:?}"),
                },
                () = std::future::ready(()) => return events,
            }
        }
    }

    #[tokio::test]
    async fn a_service_that_vanishes_is_an_event_and_its_return_too() {
        let mut topic = topic(Some([endpoint(1, 1)].into()));
        let mut reader = topic.read(None);
        topic.become_as("web", None);
        topic.become_as("web", Some([endpoint(2, 1)].into()));
        topic.become_as("web", Some([endpoint(2, 1)].into()));
        let kinds: Vec<_> = read(&mut reader).await.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["snapshot", "removed", "vanished", "returned", "endpoint"]);
    }

    #[tokio::test]
    async fn a_great_change_is_one_snapshot() {
        let mut topic = topic(Some(BTreeMap::new()));
        let mut reader = topic.read(None);
        topic.become_as("web", Some((1..=1000).map(|port| endpoint(port, 1)).collect()));
        let events = read(&mut reader).await;
        assert_eq!(events.len(), 2);
        let mut known = None;
        events.iter().for_each(|event| hear(&mut known, event));
        assert_eq!(known, topic.known);
    }

    proptest! {
        /// Whoever comes, goes and resumes knows what is, and heard of each event once.
        #[test]
        fn who_hears_of_every_event_knows_what_is(
            steps in prop::collection::vec(
                (prop::option::weighted(0.9, prop::collection::btree_map(1..8u16, 1..3u16, 0..8)), any::<bool>()), 1..40)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut topic = topic(Some(BTreeMap::new()));
                let (mut reader, mut known, mut last) = (topic.read(None), None, None);
                for (view, resume) in steps {
                    let view = view.map(|view| view.into_iter().map(|(port, weight)| endpoint(port, weight)).collect());
                    topic.become_as("web", view);
                    // Nobody is let in while there is no such service.
                    if resume && topic.known.is_some() {
                        reader = topic.read(last);
                    }
                    for event in read(&mut reader).await {
                        assert!(last.is_none_or(|last| event.id == last + 1), "{event:?} after {last:?}");
                        last = Some(event.id);
                        hear(&mut known, &event);
                    }
                    assert_eq!(known, topic.known);
                }
            });
        }
    }
}
