//! The API of a Kubernetes cluster as a source.
//!
//! Services, EndpointSlices, this node and its pods are listed and watched; what becomes of a Service is decided in
//! `translate`. Nothing is told before both services and endpoints are listed once: a service without its endpoints would
//! take those of an earlier daemon away.
//!
//! | file | question |
//! | --- | --- |
//! | `objects` | what of an object is kept? |
//! | `ask` | how is the API server asked, and what is wrong with its answer? |
//! | `watch` | how is a kind of objects followed, whatever happens to server and connection? |
//! | `state` | which services follow anew from what changed? |
//! | `translate` | what does a Service with its EndpointSlices mean here? |
//! | `pods` | whose is a connection? |

mod ask;
mod objects;
mod pods;
mod state;
mod translate;
mod watch;

use super::{Change, Direct, Kubernetes, Teller, update::break_off};
use arc_swap::ArcSwap;
use objects::{Kept, Node, Pod, Service, Slice};
pub use pods::Pods;
use state::State;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};
use tokio::{sync::mpsc, task::JoinSet};
use translate::Here;
use watch::{Ear, Event, Scope};

/// Events that may wait to be taken. A watch that has more waits itself.
const WAITING: usize = 4096;

/// Services that another proxy sees to are none of ours.
const NOT_ANOTHERS: &str = "!service.kubernetes.io/service-proxy-name";

/// What a watch says.
enum Seen {
    Services(Event<Service>),
    Slices(Event<Slice>),
    Node(Event<Node>),
    Pods(Event<Pod>),
}

/// Which watch, by its number.
type Numbered = (usize, Seen);

/// Tells of the services of a cluster, for ever. The pods of this node are put into `pods`.
pub async fn run(settings: Kubernetes, direct: Direct, teller: Teller, pods: Arc<ArcSwap<Pods>>) {
    let (events, mut seen) = mpsc::channel(WAITING);
    // They end with this task.
    let mut watches = Watches { tasks: JoinSet::new(), direct, events, scopes: Vec::new() };
    let namespaces = match settings.namespaces.is_empty() {
        true => vec![None],
        false => settings.namespaces.iter().cloned().map(Some).collect(),
    };
    for namespace in namespaces {
        let labels = match settings.selector.as_str() {
            "" => NOT_ANOTHERS.to_owned(),
            selector => format!("{NOT_ANOTHERS},{selector}"),
        };
        // Slices have the labels of their service only where Kubernetes itself makes them.
        let scope = Scope { namespace, labels, fields: String::new() };
        let of_slices = Scope { labels: NOT_ANOTHERS.to_owned(), ..scope.clone() };
        watches.add(scope, Seen::Services);
        watches.add(of_slices, Seen::Slices);
    }
    let needed = 0..watches.scopes.len();
    let node = format!("metadata.name={}", settings.node);
    let node = watches.add(Scope { fields: node, ..Scope::default() }, Seen::Node);
    watches.add(Scope { fields: format!("spec.nodeName={}", settings.node), ..Scope::default() }, Seen::Pods);
    let mut source = Cluster {
        state: State::new(Here { node: settings.node.clone(), zone: settings.zone.clone() }),
        zone_is_configured: !settings.zone.is_empty(),
        node: settings.node,
        unlisted: needed.chain([node]).collect(),
        lost: BTreeSet::new(),
        told_lost: false,
        said: HashSet::new(),
        scopes: watches.scopes.clone(),
        synced: false,
        listing: false,
        pods,
        teller,
    };
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            received = seen.recv_many(&mut batch, WAITING) => if received == 0 { return },
            Some(ended) = watches.tasks.join_next() => return break_off(ended),
        }
        source.take(batch).await;
    }
}

/// Watches at work.
struct Watches {
    tasks: JoinSet<()>,
    direct: Direct,
    events: mpsc::Sender<Numbered>,
    scopes: Vec<Scope>,
}

impl Watches {
    /// Starts one more; its number.
    fn add<T: Kept>(&mut self, scope: Scope, means: fn(Event<T>) -> Seen) -> usize {
        let number = self.scopes.len();
        self.scopes.push(scope.clone());
        self.tasks.spawn(watch::watch(scope, self.direct, Ear { number, means, events: self.events.clone() }));
        number
    }
}

/// The source at work.
struct Cluster {
    state: State,
    /// Whether the operator says in which zone this node is.
    zone_is_configured: bool,
    node: String,
    scopes: Vec<Scope>,
    /// Watches that nothing was told before.
    unlisted: BTreeSet<usize>,
    /// Watches that are needed, and not in touch.
    lost: BTreeSet<usize>,
    /// Whether that was told, and not yet that they are again.
    told_lost: bool,
    /// What was said of watches that are not needed.
    said: HashSet<String>,
    synced: bool,
    /// Whether it was said that all is told from here on: once, since what was told is not told again.
    listing: bool,
    pods: Arc<ArcSwap<Pods>>,
    teller: Teller,
}

impl Cluster {
    async fn take(&mut self, batch: Vec<Numbered>) {
        for (number, seen) in batch {
            match seen {
                Seen::Services(event) => self.service(number, event).await,
                Seen::Slices(event) => self.slice(number, event).await,
                Seen::Node(event) => self.node(number, event).await,
                Seen::Pods(event) => self.pod(event).await,
            }
        }
        if !self.unlisted.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.listing, true) {
            self.teller.say(Change::Listing).await;
        }
        let (tellings, problems) = self.state.tell();
        for problem in problems {
            self.teller.skipped(problem).await;
        }
        for telling in tellings {
            match telling.certain {
                true => self.teller.service(telling.key, telling.said).await,
                false => self.teller.answer(telling.key, telling.said).await,
            }
        }
        if self.lost.is_empty() && (self.told_lost || !self.synced) {
            (self.synced, self.told_lost) = (true, false);
            self.teller.say(Change::Synced).await;
        }
    }

    /// What concerns every watch that is needed.
    async fn needed<T>(&mut self, number: usize, event: Event<T>) -> Option<Event<T>> {
        match event {
            Event::Lost(why) => {
                self.teller.lost(why).await;
                self.lost.insert(number);
                self.told_lost = true;
                None
            }
            Event::Skipped(why) => {
                self.teller.skipped(why).await;
                None
            }
            event => {
                if matches!(event, Event::Listed(_)) {
                    self.unlisted.remove(&number);
                }
                self.lost.remove(&number);
                Some(event)
            }
        }
    }

    async fn service(&mut self, number: usize, event: Event<Service>) {
        match self.needed(number, event).await {
            Some(Event::Listed(all)) => self.state.list_services(all, self.scopes[number].namespace.as_deref()),
            Some(Event::Applied(service)) => self.state.set_service(service, true),
            Some(Event::Deleted(key)) => self.state.remove_service(&key, true),
            _ => {}
        }
    }

    async fn slice(&mut self, number: usize, event: Event<Slice>) {
        match self.needed(number, event).await {
            Some(Event::Listed(all)) => self.state.list_slices(all, self.scopes[number].namespace.as_deref()),
            Some(Event::Applied(slice)) => self.state.set_slice(slice, true),
            Some(Event::Deleted(key)) => self.state.remove_slice(&key, true),
            _ => {}
        }
    }

    /// Something that services can do without is not known.
    async fn missed(&mut self, why: String) {
        if self.said.insert(why.clone()) {
            self.teller.skipped(why).await;
        }
    }

    async fn node(&mut self, number: usize, event: Event<Node>) {
        let node = match event {
            Event::Listed(all) => {
                self.unlisted.remove(&number);
                if all.is_empty() {
                    let node = &self.node;
                    let why = format!("no node is named {node}: its zone is not known; set NODE_NAME, or node.name");
                    return self.missed(why).await;
                }
                all.into_iter().next()
            }
            Event::Applied(node) => Some(node),
            Event::Lost(why) | Event::Skipped(why) => {
                self.unlisted.remove(&number);
                return self.missed(format!("the zone of this node is not known: {why}")).await;
            }
            Event::Deleted(_) | Event::InTouch => None,
        };
        if let Some(node) = node {
            let labels = node.metadata.labels;
            let (zone, region) = (labels.zone.unwrap_or_default(), labels.region.unwrap_or_default());
            if !self.zone_is_configured {
                self.state.set_zone(&zone);
            }
            self.teller.say(Change::Place { zone, region }).await;
        }
    }

    async fn pod(&mut self, event: Event<Pod>) {
        let mut pods = Pods::clone(&self.pods.load());
        match event {
            Event::Listed(all) => pods.list(all),
            Event::Applied(pod) => pods.set(pod),
            Event::Deleted(key) => pods.remove(&key),
            Event::Lost(why) | Event::Skipped(why) => {
                return self.missed(format!("connections are not named after pods: {why}")).await;
            }
            Event::InTouch => return,
        }
        self.pods.store(Arc::new(pods));
    }
}
