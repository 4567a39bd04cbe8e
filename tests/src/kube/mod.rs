//! The API server of a cluster, as far as a watcher sees it: lists in pages, watches in chunks, bookmarks, versions that are
//! too old, refusals, connections that break anywhere, and restarts. It speaks HTTP/1.1, by TLS if need be, and has objects
//! in their real shape.

mod objects;
mod serve;
mod wanted;

pub use objects::{endpoint, pod, service, slice, terminating, with_ips};

use crate::{
    Certificates, Netns,
    ports::Port,
    wire::{self, Identity},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// An API server. Dropped, it stops.
#[derive(Debug)]
pub struct Kube {
    shared: Arc<Shared>,
    port: Port,
    dir: TempDir,
    identity: Identity,
    netns: Option<Arc<Netns>>,
}

/// Who asks, where nothing else is said.
const TOKEN: &str = "secret-token";

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By what they are called in paths, and `NAMESPACE/NAME`.
    objects: BTreeMap<(String, String), Object>,
    /// What happened: version, kind of event, what the object is called in paths, the object.
    events: Vec<(u64, &'static str, String, Object)>,
    /// Events up to this version are forgotten.
    forgotten: u64,
    /// Whether that is said by a status, and not by an event.
    gone_by_status: bool,
    /// Answers to the next requests.
    refusals: Vec<Refusal>,
    /// The token that is known.
    token: String,
    /// What nobody may ask for.
    forbidden: Vec<String>,
    /// Connections of an earlier age are closed.
    age: u64,
    /// Watches are closed within a line.
    within_a_line: bool,
    /// A list has no more than this in a page, whatever limit is asked for; 0: what is asked for.
    page: usize,
    requests: Vec<(Instant, String)>,
    running: bool,
    bookmarks: u64,
}

/// An object, and its text: a list of thousands is to come at once.
#[derive(Clone, Debug)]
struct Object {
    value: Arc<Value>,
    text: Arc<str>,
}

impl Object {
    fn new(value: Value) -> Self {
        Self { text: value.to_string().into(), value: Arc::new(value) }
    }
}

/// An answer instead of what is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// Its status.
    pub status: u16,
    /// Its `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Kube {
    /// One without any objects.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start() -> Self {
        Self::plain(None)
    }

    /// As [`Kube::start`], in a network namespace.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn inside(netns: &Arc<Netns>) -> Self {
        Self::plain(Some(netns.clone()))
    }

    fn plain(netns: Option<Arc<Netns>>) -> Self {
        Self::make(None, netns, |kube| {
            let cluster = json!({ "server": format!("http://{}", kube.address()) });
            (cluster, json!({ "token": TOKEN }))
        })
    }

    /// One that speaks TLS, as `server`. Its kubeconfig names the file of an authority, and one with a token, which is
    /// [`Kube::token_file`].
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn by_tls(made: &Certificates, server: &str, authority: &str) -> Self {
        let of = |kind: &str| made.at(&format!("{server}.{kind}"));
        Self::make(wire::identity(&of("pem"), &of("key")), None, |kube| {
            fs::write(kube.token_file(), TOKEN).expect("a token can be written");
            let (server, authority) = (format!("https://{}", kube.address()), made.at(&format!("{authority}.pem")));
            let cluster = json!({ "server": server, "certificate-authority": authority });
            (cluster, json!({ "tokenFile": kube.token_file() }))
        })
    }

    fn make(identity: Identity, netns: Option<Arc<Netns>>, told: impl FnOnce(&Self) -> (Value, Value)) -> Self {
        let dir = tempfile::Builder::new().prefix("mesh-kube-").tempdir().expect("a temporary directory can be made");
        let kube = Self { shared: Arc::default(), port: Port::new(), dir, identity, netns };
        kube.state().version = 100;
        kube.know(TOKEN);
        let (cluster, user) = told(&kube);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": user }],
        });
        fs::write(kube.kubeconfig(), config.to_string()).expect("a kubeconfig can be written");
        kube.start_again();
        kube
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The file with the token, of one that speaks TLS.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Knows this token from now on, and no other one.
    pub fn know(&self, token: &str) {
        token.clone_into(&mut self.state().token);
    }

    /// The file that says where it is, for `$KUBECONFIG`.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens again after [`Kube::stop`].
    ///
    /// # Panics
    /// Where it cannot.
    pub fn start_again(&self) {
        let bind = || self.there(|| TcpListener::bind(self.port.address()));
        let listener = crate::poll::within(Duration::from_secs(5), bind);
        let listener = listener.expect("the port of the API server is free");
        self.state().running = true;
        let (shared, identity) = (Arc::clone(&self.shared), self.identity.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                let (running, age) = (state.running, state.age);
                drop(state);
                if !running {
                    return;
                }
                if let Ok(stream) = stream {
                    let (shared, identity) = (Arc::clone(&shared), identity.clone());
                    thread::spawn(move || drop(serve::serve(&shared, stream, &identity, age)));
                }
            }
        });
    }

    /// Closes everything, as a crash does. Objects stay, as they do in etcd.
    pub fn stop(&self) {
        let mut state = self.state();
        state.running = false;
        state.age += 1;
        drop(state);
        self.shared.changed.notify_all();
        // Whoever accepts wakes up, and sees.
        let connect = || self.there(|| TcpStream::connect(self.port.address()));
        drop(connect());
        let _ = crate::poll::within(Duration::from_secs(5), || match connect() {
            Ok(_) => Err(()),
            Err(_) => Ok(()),
        });
    }

    /// Does something where it listens.
    fn there<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.netns {
            Some(netns) => netns.enter(work),
            None => work(),
        }
    }

    /// Makes an object, or another one of it.
    ///
    /// # Panics
    /// Where it has no name.
    pub fn apply(&self, plural: &str, mut object: Value) {
        let key = key(&object);
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Object::new(object);
        let before = state.objects.insert((plural.to_owned(), key), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push((version, kind, plural.to_owned(), object));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Removes an object.
    ///
    /// # Panics
    /// Where there is none.
    pub fn delete(&self, plural: &str, key: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let object = state.objects.remove(&(plural.to_owned(), key.to_owned()));
        let object = object.unwrap_or_else(|| panic!("there is no {plural} {key}"));
        let mut object = Value::clone(&object.value);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.events.push((version, "DELETED", plural.to_owned(), Object::new(object)));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Forgets what happened so far, as a server does after a few minutes. Whoever asks for it is told so by a status, or by
    /// an event.
    pub fn forget(&self, by_status: bool) {
        let mut state = self.state();
        state.version += 1;
        state.forgotten = state.version;
        state.gone_by_status = by_status;
        state.events.clear();
    }

    /// Closes all connections, watches within a line.
    pub fn cut(&self) {
        let mut state = self.state();
        state.age += 1;
        state.within_a_line = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Sends a bookmark to every watch.
    pub fn bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        state.bookmarks += 1;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Answers the next requests like this.
    pub fn refuse(&self, refusals: &[Refusal]) {
        self.state().refusals.extend(refusals);
    }

    /// Lets nobody ask for these any more; all else is allowed again.
    pub fn forbid(&self, plurals: &[&str]) {
        self.state().forbidden = plurals.iter().map(|plural| (*plural).to_owned()).collect();
    }

    /// Puts no more than so many objects into an answer.
    pub fn page(&self, page: usize) {
        self.state().page = page;
    }

    /// What was asked for, and when.
    #[must_use]
    pub fn requests(&self) -> Vec<(Instant, String)> {
        self.state().requests.clone()
    }

    /// How often this was asked for, by a part of the path and query.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.state().requests.iter().filter(|(_, path)| path.contains(part)).count()
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        if self.state().running {
            self.stop();
        }
    }
}

fn key(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().expect("an object has a name");
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
