//! Which services follow from all that was said.

use super::{
    Change, Description, Given, Said, Source, Update,
    merge::{canonical, merge},
    owners::Owners,
    pool::Pool,
};
use crate::model::{Protocol, Service};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// How often services are made again at most because addresses became VIPs, or are none any more, by making them.
const ROUNDS: usize = 3;

/// Makes services of what only sources know.
pub trait Describe {
    /// A service without endpoints, as `defaults` and a description have it; and what is wrong with the description, the
    /// rest of which counts.
    fn describe(
        &self,
        name: &str,
        protocol: Option<Protocol>,
        settings: &BTreeMap<String, String>,
    ) -> (Service, Vec<String>);
}

/// What the services of the files draw from: by service, each source with the key it has there.
pub type Drawn = HashMap<String, Vec<(Source, String)>>;

/// Joins what the files and the sources say.
///
/// What a source says of a service counts for the services of the files that draw from it, and where there are none, or
/// the key is the service's name in the registry or in etcd, for the service of that name, which is made if need be.
#[derive(Debug, Default)]
pub struct Reducer {
    grace: Duration,
    /// Where this daemon itself listens: no endpoint.
    refused: HashSet<SocketAddr>,
    /// In the order of the files.
    files: Vec<Arc<Service>>,
    /// Where each of them stands.
    places: HashMap<String, usize>,
    /// Which of them has a name in its `hosts`.
    hosts: HashMap<String, usize>,
    drawn: Drawn,
    /// Who draws from what.
    drawers: HashMap<(Source, String), Vec<String>>,
    said: HashMap<(Source, String), Held>,
    /// Of what was said, what answers contradict by saying that nobody is left: since when, and what they say.
    doubted: HashMap<(Source, String), (Duration, Option<Said>)>,
    /// Which keys count for a service besides those it draws from.
    named: BTreeMap<String, BTreeSet<(Source, String)>>,
    /// Services that are not as the files have them.
    merged: BTreeMap<String, Arc<Service>>,
    pool: Pool,
    owners: Owners,
    sources: BTreeMap<Source, SourceState>,
    /// Services to be made anew.
    dirty: HashSet<String>,
    /// What was wrong with each service when it was made.
    problems: BTreeMap<String, Vec<String>>,
    /// Who does not get which address.
    contested: Vec<String>,
    place: Option<Place>,
    changed: bool,
}

/// Where this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who says so.
    pub source: Source,
    /// Its zone; empty: not known.
    pub zone: String,
    /// Its region; empty: not known.
    pub region: String,
}

/// What is wrong with what was said of a service, and who said it.
type Problems = Vec<(Option<Source>, String)>;

/// What a source said of a service.
#[derive(Debug)]
struct Held {
    said: Arc<Said>,
    /// Whether it was named since the source began to tell all it knows.
    seen: bool,
}

/// How a source does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Whether it told all it knows at least once.
    pub synced: bool,
    /// Whether a daemon that this one followed knew all it knew, and left that.
    pub handed_over: bool,
    /// When it last said something, on the clock of [`Reducer::take`].
    pub last_update: Option<Duration>,
    /// Why it is not in touch; `None`: it is.
    pub error: Option<String>,
    /// Since when it is not.
    pub lost_at: Option<Duration>,
    /// Changes taken from it.
    pub updates: u64,
    /// How often it lost touch, and how many records were left out.
    pub errors: u64,
}

impl Reducer {
    /// What the files say from now on, and what their services draw from. Nobody's endpoint is an address in `refused`.
    pub fn configure(&mut self, files: Vec<Arc<Service>>, drawn: Drawn, grace: Duration, refused: HashSet<SocketAddr>) {
        self.dirty.extend(self.files.iter().chain(&files).map(|s| s.name.clone()));
        self.dirty.extend(self.merged.keys().cloned());
        self.places = files.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        let hosts = files.iter().enumerate().flat_map(|(i, s)| s.hosts.iter().map(move |host| (host, i)));
        self.hosts = hosts.map(|(host, i)| (host.trim_end_matches('.').to_owned(), i)).collect();
        self.files = files;
        self.grace = grace;
        self.refused = refused;
        self.drawers.clear();
        for (service, keys) in &drawn {
            for key in keys {
                self.drawers.entry(key.clone()).or_default().push(service.clone());
            }
        }
        self.drawn = drawn;
        self.named.clear();
        let keys: Vec<_> = self.said.keys().cloned().collect();
        keys.into_iter().for_each(|key| self.name(&key));
        self.dirty.extend(self.named.keys().cloned());
        self.changed = true;
    }

    /// From which range services without an address get one from now on; `None`: they get none.
    pub fn use_pool(&mut self, range: Option<IpNet>) {
        self.pool.configure(range);
        self.changed = true;
    }

    /// Puts in which addresses an earlier daemon gave.
    pub fn remember_given(&mut self, given: Vec<Given>) {
        self.pool.remember(given);
        self.changed = true;
    }

    /// Which addresses are given, if others than at the last call.
    pub fn take_given(&mut self) -> Option<Vec<Given>> {
        self.pool.take_changed()
    }

    /// The services of the files.
    #[must_use]
    pub fn files(&self) -> &[Arc<Service>] {
        &self.files
    }

    /// What the files say of a service, to be changed as they were; [`Reducer::reduce`] takes it over.
    pub fn file(&mut self, service: &str) -> Option<&mut Service> {
        let found = self.files.get_mut(*self.places.get(service)?)?;
        self.dirty.insert(service.to_owned());
        self.changed = true;
        Some(Arc::make_mut(found))
    }

    /// Whether a service is there only because instances of it were registered, where many may do so: nobody who has a say
    /// over this node has called it so.
    #[must_use]
    pub fn is_only_registered(&self, service: &str) -> bool {
        let registered = |(source, _): &(Source, String)| source.is_of_registrants();
        !self.places.contains_key(service) && self.named.get(service).is_some_and(|keys| keys.iter().all(registered))
    }

    /// What the services of the files draw from.
    pub fn drawn(&self) -> impl Iterator<Item = &(Source, String)> {
        self.drawn.values().flatten()
    }

    /// Which sources are used; what others said is forgotten.
    pub fn use_sources(&mut self, used: &BTreeSet<Source>) {
        self.sources.retain(|source, _| used.contains(source));
        self.place.take_if(|place| !used.contains(&place.source));
        for source in used {
            self.sources.entry(*source).or_default();
        }
        let gone: Vec<_> = self.said.keys().filter(|(source, _)| !used.contains(source)).cloned().collect();
        gone.into_iter().for_each(|key| self.forget(&key));
    }

    /// Puts in what a source said to an earlier daemon: it counts until the source is synced.
    pub fn remember(&mut self, source: Source, key: String, said: Said) {
        let key = (source, key);
        self.said.insert(key.clone(), Held { said: Arc::new(said), seen: false });
        self.name(&key);
        self.touch(&key);
    }

    /// All that a source knows was remembered: nobody has to wait for it to tell it again.
    pub fn remembered_all_of(&mut self, source: Source) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.synced = true;
        }
    }

    /// All that a source knew was remembered from the daemon before this one, which was at work until now.
    pub fn handed_over(&mut self, source: Source) {
        if let Some(state) = self.sources.get_mut(&source) {
            state.handed_over = true;
        }
    }

    /// Puts in where an earlier daemon was told that this node is: it counts until the source says it again.
    pub fn remember_place(&mut self, place: Place) {
        if self.sources.contains_key(&place.source) {
            self.place = Some(place);
            self.changed = true;
        }
    }

    /// All that is in force, to be remembered.
    pub fn in_force(&self) -> impl Iterator<Item = (Source, &str, &Arc<Said>)> {
        self.said.iter().map(|((source, key), held)| (*source, key.as_str(), &held.said))
    }

    /// How the sources do.
    #[must_use]
    pub fn sources(&self) -> &BTreeMap<Source, SourceState> {
        &self.sources
    }

    /// Where this node is, as a source knows it.
    #[must_use]
    pub const fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Whether every source told all it knows at least once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sources.values().all(|state| state.synced)
    }

    /// What is wrong with what was said, by service.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let of_all = self.contested.iter().chain(self.pool.problems());
        self.problems.values().flatten().chain(of_all).map(String::as_str)
    }

    /// Takes what a source says at `now`, on a clock that only goes forward.
    pub fn take(&mut self, update: Update, now: Duration) {
        let Update { source, change } = update;
        let Some(state) = self.sources.get_mut(&source) else { return };
        match change {
            Change::Listing => {
                for ((of, _), held) in &mut self.said {
                    held.seen &= *of != source;
                }
            }
            Change::Synced => {
                state.synced = true;
                (state.error, state.lost_at) = (None, None);
                state.last_update = Some(now);
                let gone: Vec<_> = self
                    .said
                    .iter()
                    .filter(|((of, _), held)| *of == source && !held.seen)
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    self.doubt(key, None, now);
                }
            }
            Change::Lost(why) => {
                state.errors += 1;
                state.lost_at.get_or_insert(now);
                state.error = Some(why);
            }
            Change::Skipped(_) => state.errors += 1,
            Change::Place { zone, region } => {
                let place = Some(Place { source, zone, region });
                self.changed |= self.place != place;
                self.place = place;
            }
            Change::Service { key, said, certain } => {
                state.updates += 1;
                state.last_update = Some(now);
                self.service((source, key), said, certain, now);
            }
        }
    }

    fn service(&mut self, key: (Source, String), said: Option<Said>, certain: bool, now: Duration) {
        let empty = said.as_ref().is_none_or(|said| said.instances.is_empty());
        if empty && !certain {
            return self.doubt(key, said, now);
        }
        self.doubted.remove(&key);
        match said {
            None => self.forget(&key),
            Some(said) => match self.said.get_mut(&key) {
                Some(held) if *held.said == said => held.seen = true,
                _ => {
                    self.said.insert(key.clone(), Held { said: Arc::new(said), seen: true });
                    self.name(&key);
                    self.touch(&key);
                }
            },
        }
    }

    /// An answer says that nobody is left, or that the service is gone.
    fn doubt(&mut self, key: (Source, String), said: Option<Said>, now: Duration) {
        match self.said.get_mut(&key) {
            Some(held) if !held.said.instances.is_empty() && !self.grace.is_zero() => {
                held.seen = true;
                let (endpoints, grace) = (held.said.instances.len(), self.grace);
                match self.doubted.entry(key) {
                    Entry::Occupied(mut doubt) => doubt.get_mut().1 = said,
                    Entry::Vacant(place) => {
                        let (source, name) = place.key();
                        let source = source.word();
                        tracing::info!(
                            "{source}: {name}: an answer has nobody; {endpoints} endpoints stay for {grace:?} (empty_grace)"
                        );
                        place.insert((now, said));
                    }
                }
            }
            _ => self.service(key, said, true, now),
        }
    }

    fn forget(&mut self, key: &(Source, String)) {
        self.doubted.remove(key);
        if self.said.remove(key).is_some() {
            self.touch(key);
            if let Some(service) = key.0.service(&key.1)
                && let Some(keys) = self.named.get_mut(&service)
            {
                keys.remove(key);
                if keys.is_empty() {
                    self.named.remove(&service);
                }
            }
        }
    }

    /// Notes for which service a key counts without being asked for.
    fn name(&mut self, key: &(Source, String)) {
        let asked = self.drawers.contains_key(key);
        // A Kubernetes service that one of the files stands for is not another one beside it.
        if let Some(service) = key.0.service(&key.1).filter(|_| !(asked && key.0 == Source::Kubernetes)) {
            self.named.entry(service).or_default().insert(key.clone());
        }
    }

    fn touch(&mut self, key: &(Source, String)) {
        self.dirty.extend(self.drawers.get(key).into_iter().flatten().cloned());
        self.dirty.extend(key.0.service(&key.1));
    }

    /// When there is something to do without anything being said; `None`: never.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let in_touch = |source: &Source| self.sources.get(source).is_some_and(|state| state.error.is_none());
        let doubted = self.doubted.iter().filter(|((source, _), _)| in_touch(source));
        doubted.map(|(_, (since, _))| *since + self.grace).min()
    }

    /// All services, those of the files first, if any is another one than at the last call.
    pub fn reduce(&mut self, describe: &dyn Describe, now: Duration) -> Option<Vec<Arc<Service>>> {
        let (grace, sources) = (self.grace, &self.sources);
        // A source that went wrong meanwhile is not believed about what it said just before.
        let in_touch = |source: &Source| sources.get(source).is_some_and(|state| state.error.is_none());
        let due = |(source, _): &(Source, String), since: Duration| in_touch(source) && since + grace <= now;
        let believed: Vec<_> = self.doubted.extract_if(|key, (since, _)| due(key, *since)).collect();
        for (key, (_, said)) in believed {
            tracing::warn!(
                "{}: {}: nobody is left, as all answers say: its endpoints are dropped",
                key.0.word(),
                key.1
            );
            self.service(key, said, true, now);
        }
        self.make_dirty(describe);
        let mut services = std::mem::take(&mut self.changed).then(|| self.collect());
        for _ in 0..ROUNDS {
            let news = self.owners.take_news();
            self.touch_at(&news);
            self.make_dirty(describe);
            match std::mem::take(&mut self.changed) {
                true => services = Some(self.collect()),
                false => break,
            }
        }
        services
    }

    /// Makes those services anew of which something is another than it was.
    fn make_dirty(&mut self, describe: &dyn Describe) {
        for name in std::mem::take(&mut self.dirty) {
            let file = self.places.get(&name).map(|i| &self.files[*i]);
            let (made, problems) = self.make(&name, file, describe);
            let known = self.problems.remove(&name).unwrap_or_default();
            for (source, _) in problems.iter().filter(|(_, problem)| !known.contains(problem)) {
                if let Some(state) = source.and_then(|source| self.sources.get_mut(&source)) {
                    state.errors += 1;
                }
            }
            if !problems.is_empty() {
                self.problems.insert(name.clone(), problems.into_iter().map(|(_, problem)| problem).collect());
            }
            self.changed |= match made {
                Some(service) if self.merged.get(&name).is_some_and(|old| **old == service) => false,
                Some(service) => {
                    self.merged.insert(name, Arc::new(service));
                    true
                }
                None => self.merged.remove(&name).is_some(),
            };
        }
    }

    /// Services with an instance at one of these addresses are to be made anew.
    fn touch_at(&mut self, addresses: &HashSet<SocketAddr>) {
        if addresses.is_empty() {
            return;
        }
        let there =
            |held: &Held| held.said.instances.iter().any(|i| addresses.contains(&canonical(i.endpoint.address)));
        let keys: Vec<_> = self.said.iter().filter(|(_, held)| there(held)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.touch(key));
    }

    /// A service as it is now; `None`: as the files have it, or not there. And what is wrong with what was said of it.
    fn make(&self, name: &str, file: Option<&Arc<Service>>, describe: &dyn Describe) -> (Option<Service>, Problems) {
        let drawn = self.drawn.get(name).into_iter().flatten();
        let named = self.named.get(name).into_iter().flatten();
        let keys: BTreeSet<&(Source, String)> = drawn.chain(named).collect();
        let said: Vec<(Source, &Said)> =
            keys.into_iter().filter_map(|key| Some((key.0, &*self.said.get(key)?.said))).collect();
        let [(first, _), ..] = &said[..] else { return (None, Vec::new()) };
        if let Some(owner) = self.hosts.get(name)
            && self.is_only_registered(name)
        {
            // Whoever registers must not get what the operator calls another service.
            let why = format!("{}: {name}: it is one of the hosts of {}", first.word(), self.files[*owner].name);
            return (None, vec![(Some(*first), why)]);
        }
        let descriptions = || said.iter().filter_map(|(_, said)| said.description.as_ref());
        let (mut base, mut problems) = match file {
            Some(file) => (Service::clone(file), Vec::new()),
            None => {
                let protocol = descriptions().find_map(|d| d.protocol);
                let settings = descriptions().find(|d| !d.settings.is_empty()).map(|d| &d.settings);
                let (service, problems) = describe.describe(name, protocol, settings.unwrap_or(&BTreeMap::new()));
                (service, problems.into_iter().map(|problem| (None, problem)).collect())
            }
        };
        for Description { addresses, hosts, .. } in descriptions() {
            base.addresses.extend(addresses.iter().filter(|a| !file.is_some_and(|f| f.addresses.contains(a))));
            base.hosts.extend(hosts.iter().filter(|h| !file.is_some_and(|f| f.hosts.contains(h))).cloned());
        }
        let (service, bad) = merge(base, &said, &self.refused, &self.owners);
        problems.extend(bad.into_iter().map(|(source, why)| (Some(source), format!("{}: {why}", source.word()))));
        (Some(service), problems)
    }

    fn collect(&mut self) -> Vec<Arc<Service>> {
        let of_files = self.files.iter().map(|file| self.merged.get(&file.name).unwrap_or(file));
        let others =
            self.merged.iter().filter(|(name, _)| !self.places.contains_key(*name)).map(|(_, service)| service);
        let mut services: Vec<Arc<Service>> = of_files.chain(others).cloned().collect();
        self.pool.settle(&mut services);
        // Addresses of the files are known to be each one service's.
        if !self.merged.is_empty() {
            self.contested = self.owners.settle(&mut services, &self.files);
        } else {
            self.contested.clear();
            self.owners = Owners::default();
        }
        services
    }
}

#[cfg(test)]
mod tests;
