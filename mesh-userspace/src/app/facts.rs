//! What is known of services: what the files say, and what sources add to it.

use super::{discovery, host};
use crate::{
    api::Discovered,
    config::{Config, Template},
    discovery::{Cache, Given, Kept, Known, Place, Reducer, Said, Source, SourceState, Trouble, Update, Vips},
    model::Service,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// All services, and where they come from.
#[derive(Debug)]
pub(super) struct Facts {
    reducer: Reducer,
    template: Template,
    /// Those of the files first, in their order.
    services: Vec<Arc<Service>>,
    /// What sources said to daemons before this one.
    cache: Cache,
    /// Which addresses they gave to services.
    vips: Vips,
    /// As they stand there, or will.
    given: Arc<Vec<Given>>,
    /// Whether something is known that the cache does not know.
    unsaved: bool,
    /// How often something was to be written down, and which time it was last.
    saves: u64,
    written: Arc<Mutex<u64>>,
    /// Whether the last time failed.
    failed: Arc<AtomicBool>,
    /// What was wrong with both files when they were read.
    found: [Trouble; 2],
    /// Why they are not written.
    unwritten: Arc<Mutex<Vec<String>>>,
}

/// Whether this process runs in a Kubernetes cluster: its kubelet says so in the environment of each container.
pub(super) fn in_cluster() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
}

/// The sources all of whose knowledge a daemon `left` in this directory.
fn left_in(directory: &Path, left: &Discovered) -> impl Iterator<Item = Source> {
    let here = fs::canonicalize(directory).is_ok_and(|directory| directory == left.directory);
    left.sources.iter().filter(move |_| here).filter_map(|word| Source::from_word(word))
}

impl Facts {
    /// What the files say (`files` were taken out of `config`), what sources said to an earlier daemon, of which some is
    /// `left` by the one that this one follows, and who is `registered`.
    pub(super) fn new(
        config: &Config,
        files: Vec<Arc<Service>>,
        registered: Vec<(String, Said)>,
        left: &Discovered,
    ) -> Self {
        let cache = Cache::new(&config.node.state_dir);
        let mut facts = Self {
            reducer: Reducer::default(),
            template: Template::new(config.defaults.clone()),
            services: Vec::new(),
            unsaved: false,
            saves: 0,
            written: Arc::default(),
            failed: Arc::default(),
            found: Default::default(),
            unwritten: Arc::default(),
            cache,
            vips: Vips::new(&config.node.state_dir),
            given: Arc::default(),
        };
        facts.configure(config, files);
        let Kept { records: given, trouble: of_vips } = facts.vips.read();
        facts.given = Arc::new(given.clone());
        facts.reducer.remember_given(given);
        let known = facts.cache.read();
        facts.found = [of_vips, known.trouble.clone()];
        facts.found.iter().for_each(Trouble::log);
        facts.remember(known, left_in(&config.node.state_dir, left));
        for (service, said) in registered {
            facts.reducer.remember(Source::Registry, service, said);
        }
        // It is this daemon's own: a successor must not be less ready than who went before.
        facts.reducer.remembered_all_of(Source::Registry);
        facts.settle(Duration::ZERO);
        facts.unsaved = false;
        facts
    }

    /// Takes what sources said to an earlier daemon, which knew all that those know that are `complete`.
    fn remember(&mut self, known: Known, complete: impl Iterator<Item = Source>) {
        for (source, key, said) in known.said {
            if self.reducer.sources().contains_key(&source) {
                self.reducer.remember(source, key, said);
            }
        }
        if let Some(place) = known.place {
            self.reducer.remember_place(place);
        }
        complete.for_each(|source| self.reducer.handed_over(source));
    }

    /// Takes what the files say from now on.
    pub(super) fn configure(&mut self, config: &Config, files: Vec<Arc<Service>>) {
        let drawn = config.drawn(&files);
        self.template = Template::new(config.defaults.clone());
        self.reducer.configure(files, drawn, config.discovery.empty_grace.get(), own(config));
        self.reducer.use_sources(&discovery::used(config, self.names()));
        self.reducer.use_pool(config.discovery.names().pool);
    }

    /// Takes what a source says at `now`, since the daemon's start.
    pub(super) fn take(&mut self, update: Update, now: Duration) {
        self.reducer.take(update, now);
    }

    /// Makes the services anew where something changed. Returns whether anything did.
    pub(super) fn settle(&mut self, now: Duration) -> bool {
        let Some(services) = self.reducer.reduce(&self.template, now) else { return false };
        self.services = services;
        self.unsaved = true;
        true
    }

    /// When [`Facts::settle`] has something to do without anything being said, since the daemon's start.
    pub(super) fn due(&self) -> Option<Duration> {
        self.reducer.due()
    }

    /// All services; those of the files first, in their order.
    pub(super) fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// As the files have them.
    pub(super) fn files(&self) -> &[Arc<Service>] {
        self.reducer.files()
    }

    /// What the files say of a service, to be changed as they were.
    pub(super) fn file(&mut self, service: &str) -> Option<&mut Service> {
        self.reducer.file(service)
    }

    /// How the sources do.
    pub(super) fn sources(&self) -> &BTreeMap<Source, SourceState> {
        self.reducer.sources()
    }

    /// Where this node is, as a source knows it.
    pub(super) const fn place(&self) -> Option<&Place> {
        self.reducer.place()
    }

    /// What is wrong with what they say.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        self.reducer.problems()
    }

    /// What is wrong with the files in which it is written down, found at the start or now.
    pub(super) fn trouble(&self) -> Vec<String> {
        let mut trouble = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trouble.extend(self.found.iter().filter_map(Trouble::summary));
        trouble
    }

    /// All services, each with whether it is called so by nobody but those who registered instances of it.
    pub(super) fn named(&self) -> impl Iterator<Item = (&Arc<Service>, bool)> {
        let files = self.files().len();
        let registered = move |i: usize, name: &str| i >= files && self.reducer.is_only_registered(name);
        self.services.iter().enumerate().map(move |(i, service)| (service, registered(i, &service.name)))
    }

    /// The names that services draw from the DNS.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.reducer.drawn().filter(|(source, _)| *source == Source::Dns).map(|(_, key)| key.clone()).collect()
    }

    /// Writes down what sources said, and which addresses services were given, if anything is new.
    /// Returns whether that is done.
    pub(super) fn save(&mut self) -> bool {
        // Also what is being written at this moment, by whoever could wait: it is skipped there, or overwritten here.
        self.unsaved = true;
        if let Some(unsaved) = self.unsaved() {
            unsaved.write();
        }
        !self.failed.load(Ordering::Relaxed)
    }

    /// What sources said and which addresses were given, if anything is new, to be written down by whoever can wait.
    pub(super) fn unsaved(&mut self) -> Option<Unsaved> {
        let given = self.reducer.take_given();
        self.unsaved |= self.failed.swap(false, Ordering::Relaxed);
        if !std::mem::take(&mut self.unsaved) && given.is_none() {
            return None;
        }
        self.given = given.map_or_else(|| Arc::clone(&self.given), Arc::new);
        // The registry has a file of its own.
        let known = self.reducer.in_force().filter(|(source, _, _)| *source != Source::Registry);
        let known = known.map(|(source, key, said)| (source, key.to_owned(), Arc::clone(said))).collect();
        self.saves += 1;
        let (number, written) = (self.saves, Arc::clone(&self.written));
        let (cache, vips, given) = (self.cache.clone(), self.vips.clone(), Arc::clone(&self.given));
        let place = self.reducer.place().cloned();
        let (failed, unwritten) = (Arc::clone(&self.failed), Arc::clone(&self.unwritten));
        Some(Unsaved { known, place, cache, given, vips, number, written, failed, unwritten })
    }
}

/// What sources said and which addresses were given, to be written down.
#[derive(Debug)]
pub(super) struct Unsaved {
    known: Vec<(Source, String, Arc<Said>)>,
    place: Option<Place>,
    cache: Cache,
    given: Arc<Vec<Given>>,
    vips: Vips,
    number: u64,
    /// The number of the last that was.
    written: Arc<Mutex<u64>>,
    failed: Arc<AtomicBool>,
    unwritten: Arc<Mutex<Vec<String>>>,
}

impl Unsaved {
    /// Writes it down, unless something newer was.
    pub(super) fn write(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > self.number {
            return;
        }
        *written = self.number;
        let known = self.known.iter().map(|(source, key, said)| (*source, key.as_str(), &**said));
        let cache = self.cache.write(known, self.place.as_ref()).map_err(|why| {
            format!("what sources said is not written down, a restart without them would not know it: {why}")
        });
        let vips = self
            .vips
            .write(&self.given)
            .map_err(|why| format!("addresses of services are not written down, a restart may move some: {why}"));
        let trouble: Vec<String> = [cache, vips].into_iter().filter_map(Result::err).collect();
        let mut known = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.iter().filter(|why| !known.contains(why)).for_each(|why| tracing::error!("{why}"));
        if !trouble.is_empty() {
            self.failed.store(true, Ordering::Relaxed);
        }
        *known = trouble;
    }
}

/// Where this daemon itself listens: an endpoint there would be a circle, or lay the daemon open to whoever dials a service.
pub(super) fn own(config: &Config) -> HashSet<SocketAddr> {
    let mut own = HashSet::new();
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    own.extend(loopback.map(|ip| SocketAddr::new(ip, config.proxy.port)));
    let (admin, discovery) = (&config.admin, &config.discovery);
    let listens = [
        config.proxy.http.0,
        Some(admin.listen.0),
        admin.metrics_listen.0,
        discovery.registry.listen.0,
        discovery.dns_listen.0,
    ];
    for listen in listens.into_iter().flatten().filter(|listen| listen.port() != 0) {
        own.insert(listen);
        if listen.ip().is_unspecified() {
            own.extend(loopback.into_iter().chain(host().addresses).map(|ip| SocketAddr::new(ip, listen.port())));
        }
    }
    own
}
