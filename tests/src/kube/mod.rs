//! The API server of a cluster, as far as a watcher sees it: lists in pages, watches in chunks, bookmarks, versions that are
//! too old, refusals, connections that break anywhere, and restarts. It speaks HTTP/1.1, by TLS if need be, and has objects
//! in their real shape.

use crate::{
    Certificates, Netns,
    ports::Port,
    wire::{self, Identity, Wire},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
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
                    thread::spawn(move || drop(serve(&shared, stream, &identity, age)));
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

/// One connection, request after request.
fn serve(shared: &Shared, stream: TcpStream, identity: &Identity, age: u64) -> io::Result<()> {
    let mut reader = BufReader::new(Wire::new(stream, identity, Duration::from_millis(50))?);
    let locked = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let mut head = Vec::<u8>::new();
        while !head.ends_with(b"\r\n\r\n") {
            match reader.read_until(b'\n', &mut head) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            if locked().age != age {
                return reader.get_ref().cut();
            }
        }
        let wire = reader.get_mut();
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut state = locked();
        state.requests.push((Instant::now(), path.clone()));
        let (resource, query) = path.split_once('?').unwrap_or((&path, ""));
        let wanted = Wanted::new(resource, query);
        let known = head.to_ascii_lowercase().contains(&format!("authorization: bearer {}\r", state.token));
        let refusal = if !known {
            Some(Refusal { status: 401, retry_after: None })
        } else if state.forbidden.contains(&wanted.plural) {
            Some(Refusal { status: 403, retry_after: None })
        } else if state.refusals.is_empty() {
            None
        } else {
            Some(state.refusals.remove(0))
        };
        if let Some(refusal) = refusal {
            drop(state);
            answer(wire, refusal, &status(refusal.status, &format!("refused: {resource}")).to_string())?;
        } else if wanted.watch {
            let from: u64 = wanted.param("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
            if from < state.forgotten && state.gone_by_status {
                drop(state);
                let gone = status(410, "too old resource version").to_string();
                answer(wire, Refusal { status: 410, retry_after: None }, &gone)?;
            } else {
                drop(state);
                return watch(shared, wire, age, &wanted, from);
            }
        } else {
            let list = list(&state, &wanted);
            drop(state);
            answer(wire, Refusal { status: 200, retry_after: None }, &list)?;
        }
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code })
}

fn answer(wire: &mut Wire, how: Refusal, body: &str) -> io::Result<()> {
    let more = how.retry_after.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 {} X\r\ncontent-type: application/json\r\n{more}", how.status);
    wire.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    wire.flush()
}

/// What a request is about.
struct Wanted {
    plural: String,
    namespace: Option<String>,
    params: Vec<(String, String)>,
    watch: bool,
}

impl Wanted {
    fn new(resource: &str, query: &str) -> Self {
        let parts: Vec<&str> = resource.split('/').collect();
        let namespace = parts.iter().position(|part| *part == "namespaces").and_then(|i| parts.get(i + 1));
        let params: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), unescape(value)))
            .collect();
        Self {
            plural: (*parts.last().unwrap_or(&"")).to_owned(),
            namespace: namespace.map(|n| (*n).to_owned()),
            watch: params.iter().any(|(key, value)| key == "watch" && value == "1"),
            params,
        }
    }

    fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn matches(&self, plural: &str, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |part: &str| match (part.strip_prefix('!'), part.split_once('=')) {
            (Some(key), None) => metadata["labels"][key].is_null(),
            (_, Some((key, value))) => metadata["labels"][key] == value,
            _ => !metadata["labels"][part].is_null(),
        };
        let field = |part: &str| match part.split_once('=') {
            Some((path, value)) => object.pointer(&format!("/{}", path.replace('.', "/"))) == Some(&json!(value)),
            None => false,
        };
        let parts = |key| self.param(key).unwrap_or_default().split(',').filter(|part| !part.is_empty());
        plural == self.plural
            && self.namespace.as_ref().is_none_or(|n| metadata["namespace"] == **n)
            && parts("labelSelector").all(label)
            && parts("fieldSelector").all(field)
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: Vec<u8> = rest.by_ref().take(2).collect();
            bytes.push(u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).unwrap_or(b'?'));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn list(state: &State, wanted: &Wanted) -> String {
    let all = state.objects.iter().filter(|((plural, _), object)| wanted.matches(plural, &object.value));
    let all: Vec<&str> = all.map(|(_, object)| &*object.text).collect();
    let asked = wanted.param("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
    let limit = if state.page > 0 { state.page.min(asked) } else { asked };
    let from: usize = wanted.param("continue").and_then(|c| c.parse().ok()).unwrap_or(0);
    let page: Vec<&str> = all.iter().copied().skip(from).take(limit).collect();
    let left = all.len().saturating_sub(from + page.len());
    let mut metadata = json!({ "resourceVersion": state.version.to_string() });
    if left > 0 {
        metadata["continue"] = json!((from + page.len()).to_string());
        metadata["remainingItemCount"] = json!(left);
    }
    format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{}]}}"#, page.join(","))
}

fn watch(shared: &Shared, wire: &mut Wire, age: u64, wanted: &Wanted, mut from: u64) -> io::Result<()> {
    wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bookmarks = state.bookmarks;
    loop {
        let mut lines = Vec::new();
        if from < state.forgotten {
            lines.push(json!({ "type": "ERROR", "object": status(410, "too old resource version") }).to_string());
        }
        for (version, kind, plural, object) in &state.events {
            if *version > from && wanted.matches(plural, &object.value) {
                lines.push(format!(r#"{{"type":"{kind}","object":{}}}"#, object.text));
            }
        }
        let gone = from < state.forgotten;
        from = state.version.max(from);
        if state.bookmarks > bookmarks {
            bookmarks = state.bookmarks;
            let metadata = json!({ "resourceVersion": from.to_string(), "creationTimestamp": null });
            lines.push(json!({ "type": "BOOKMARK", "object": { "metadata": metadata, "spec": {} } }).to_string());
        }
        let (ended, within_a_line) = (state.age != age, state.within_a_line);
        drop(state);
        if ended {
            if within_a_line {
                chunk(wire, "{\"type\":\"MODIFIED\",\"object\":{\"metad")?;
            }
            return wire.cut();
        }
        for line in lines {
            let line = format!("{line}\n");
            // Where a chunk ends means nothing.
            let (one, other) = line.split_at(line.len() / 3);
            chunk(wire, one)?;
            chunk(wire, other)?;
        }
        if gone {
            wire.write_all(b"0\r\n\r\n")?;
            return wire.cut();
        }
        state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.age == age && state.version <= from && state.bookmarks == bookmarks {
            let waited = shared.changed.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn chunk(wire: &mut Wire, text: &str) -> io::Result<()> {
    wire.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
    wire.flush()
}

/// A Service of the namespace `shop`: its name, ClusterIP and ports, as `(name, port)`.
#[must_use]
pub fn service(name: &str, ip: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": name }))
        .collect();
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": name },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"v1\"}\n" },
            "managedFields": managed("kubectl-client-side-apply"),
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports, "selector": { "app": name },
            "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
        },
        "status": { "loadBalancer": {} },
    })
}

/// A [`service`] of these families, by its ClusterIPs.
#[must_use]
pub fn with_ips(mut service: Value, ips: &[&str]) -> Value {
    let families: Vec<&str> = ips.iter().map(|ip| family(ip)).collect();
    let policy = if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    service["spec"]["clusterIP"] = json!(ips[0]);
    service["spec"]["clusterIPs"] = json!(ips);
    service["spec"]["ipFamilies"] = json!(families);
    service["spec"]["ipFamilyPolicy"] = json!(policy);
    service
}

/// The family of an address, as the API calls it.
fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// An EndpointSlice of a service of the namespace `shop`: its ports, as `(name, port)`, and its [`endpoint`]s, all of the
/// family of the first.
#[must_use]
pub fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: &[Value]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" })).collect();
    let first = endpoints.first().and_then(|endpoint| endpoint["addresses"][0].as_str());
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": name, "generateName": format!("{service}-"), "namespace": "shop", "generation": 3,
            "uid": format!("uid-of-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app": service, "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": service, "uid": "u", "controller": true }],
            "managedFields": managed("kube-controller-manager"),
        },
        "addressType": first.map_or("IPv4", family), "endpoints": endpoints, "ports": ports,
    })
}

/// A pod of the namespace `shop` on the daemon's node.
#[must_use]
pub fn pod(name: &str, uid: &str) -> Value {
    let metadata = json!({ "name": name, "namespace": "shop", "uid": uid });
    json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": { "nodeName": "test-node" } })
}

/// An endpoint that is ready.
#[must_use]
pub fn endpoint(address: &str) -> Value {
    json!({
        "addresses": [address], "conditions": { "ready": true, "serving": true, "terminating": false },
        "nodeName": "test-node", "zone": "zone-1",
        "targetRef": { "kind": "Pod", "namespace": "shop", "name": format!("pod-{address}"), "uid": "u" },
    })
}

/// An endpoint that is about to go, and serves until then.
#[must_use]
pub fn terminating(address: &str) -> Value {
    let mut endpoint = endpoint(address);
    endpoint["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
    endpoint
}

fn managed(manager: &str) -> Value {
    let fields = json!({ "f:metadata": { "f:labels": { ".": {}, "f:app": {} } }, "f:spec": { "f:ports": {} } });
    json!([{
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }])
}
