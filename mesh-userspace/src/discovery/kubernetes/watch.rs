//! One kind of objects, from a list to events, for ever.
//!
//! Written over single requests, and not with the watcher of `kube`, for the sake of what that does not do: one malformed
//! object is left out and not the list with it; `Retry-After` is heeded; a silent connection is given up after two
//! minutes; and of objects only what is needed is ever held.

use super::{
    ask::{Failure, Server, Status, escape},
    objects::{Kept, Metadata},
};
use crate::discovery::Direct;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};

/// Objects in one answer of a list.
const PAGE: u32 = 500;

/// The largest object in a watch. The API server takes none of more than a few megabytes.
const LARGEST: usize = 64 << 20;

/// How long a watch may be silent. A bookmark comes each minute; where none does, nothing is lost by asking again.
const SILENCE: Duration = Duration::from_secs(120);

/// How long the server is to keep a watch open; half as much again by chance, so that not all nodes come back at once.
const KEEP: f64 = 300.0;

/// A watch that ended sooner did not go well.
const LASTING: Duration = Duration::from_secs(2);

/// So many of them in a row that told nothing are a fault: of what happens nothing is heard.
const BROKEN: u32 = 3;

/// What became of a kind of objects.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// All there are.
    Listed(Vec<T>),
    /// One is another one now, or new.
    Applied(T),
    /// One is gone: its key.
    Deleted(String),
    /// The server tells what changes, as it happens.
    InTouch,
    /// It does not, for a while.
    Lost(String),
    /// One was left out, or a part of one.
    Skipped(String),
}

/// Which objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// `None`: of all namespaces.
    pub(super) namespace: Option<String>,
    /// With these labels.
    pub(super) labels: String,
    /// With these fields.
    pub(super) fields: String,
}

impl Scope {
    /// The path and query of a request for these objects.
    fn path<T: Kept>(&self, more: &str) -> String {
        let mut path = T::GROUP.to_owned();
        if let Some(namespace) = &self.namespace {
            let _ = write!(path, "/namespaces/{namespace}");
        }
        let _ = write!(path, "/{}?{more}", T::PLURAL);
        for (key, value) in [("labelSelector", &self.labels), ("fieldSelector", &self.fields)] {
            if !value.is_empty() {
                let _ = write!(path, "&{key}={}", escape(value));
            }
        }
        path
    }
}

/// Who is told.
pub(super) struct Ear<T, S> {
    /// The number of the watch.
    pub(super) number: usize,
    /// What an event is among those of others.
    pub(super) means: fn(Event<T>) -> S,
    pub(super) events: mpsc::Sender<(usize, S)>,
}

impl<T, S> Ear<T, S> {
    async fn tell(&self, event: Event<T>) {
        // Nobody listens any more where the source ends: so does the watch, soon.
        let _ = self.events.send((self.number, (self.means)(event))).await;
    }
}

/// How a watch came to its end.
enum End {
    /// The server ended it, or the connection broke, as this says; and whether anything was heard before.
    Closed(String, bool),
    /// Nobody knows any more what happened since.
    Gone,
}

/// Watches these objects, for ever; `ear` is told.
pub(super) async fn watch<T: Kept, S: Send>(scope: Scope, direct: Direct, ear: Ear<T, S>) {
    let mut server = None;
    // How often in a row something failed.
    let mut failures = 0;
    // How often in a row a watch told nothing.
    let mut broken = 0;
    // Up to where everything is known; `None`: nothing is.
    let mut version: Option<String> = None;
    // The first list may be a little old, which spares the server: what happened since is told by the watch.
    let mut from_cache = true;
    loop {
        let began = Instant::now();
        let outcome = match &server {
            None => Server::infer(direct).await.map(|new| {
                server = Some(new);
                None
            }),
            Some(server) => match &mut version {
                None => list(server, &scope, from_cache, &ear).await.map(|listed| {
                    version = Some(listed);
                    None
                }),
                Some(version) => follow(server, &scope, version, &ear).await.map(Some),
            },
        };
        let wait = match outcome {
            Ok(None) => continue,
            Ok(Some(End::Closed(..))) if began.elapsed() >= LASTING => {
                (failures, broken) = (0, 0);
                delay(0, fastrand::f64())
            }
            Ok(Some(end)) => {
                let wait = delay(failures, fastrand::f64());
                failures += 1;
                match end {
                    End::Gone => {
                        tracing::debug!(
                            kind = T::PLURAL,
                            "listed anew: what happened since is not known to the server"
                        );
                        (version, from_cache) = (None, false);
                    }
                    End::Closed(why, false) if broken + 1 >= BROKEN => {
                        let why = format!("the watch of {} ends each time soon after it began: {why}", T::PLURAL);
                        ear.tell(Event::Lost(why)).await;
                        // A list tells all that the watch does not.
                        (version, from_cache) = (None, false);
                    }
                    End::Closed(_, heard) => broken = if heard { 0 } else { broken + 1 },
                }
                wait
            }
            Err(failure) => {
                let wait = delay(failures + 1, fastrand::f64());
                failures += 1;
                if failure.is_gone() {
                    (version, from_cache) = (None, false);
                } else {
                    if failure.is_unknown() || failure.status.is_none() {
                        // Whoever it is now, or wherever, may be written in other words by now.
                        server = None;
                    }
                    ear.tell(Event::Lost(failure.why)).await;
                }
                wait.max(failure.wait.mul_f64(1.0 + fastrand::f64() / 10.0))
            }
        };
        sleep(wait).await;
    }
}

/// How long to wait after so many failures in a row; `chance`: 0 to 1.
fn delay(failures: u32, chance: f64) -> Duration {
    match failures {
        0 => Duration::from_millis(100).mul_f64(chance),
        n => Duration::from_millis(250 << (n - 1).min(7)).min(Duration::from_secs(30)).mul_f64(0.5 + chance / 2.0),
    }
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// Tells of all there are; up to which version that is.
async fn list<T: Kept, S: Send>(
    server: &Server,
    scope: &Scope,
    from_cache: bool,
    ear: &Ear<T, S>,
) -> Result<String, Failure> {
    let mut kept = Vec::new();
    let mut skipped = Vec::new();
    let mut next = String::new();
    loop {
        let mut query = format!("limit={PAGE}");
        if !next.is_empty() {
            let _ = write!(query, "&continue={}", escape(&next));
        } else if from_cache {
            query.push_str("&resourceVersion=0&resourceVersionMatch=NotOlderThan");
        }
        let text = server.get::<T>("list", &scope.path::<T>(&query)).await?.whole(usize::MAX).await?;
        let metadata = decode_list::<T>(&text, &mut kept, &mut skipped)
            .map_err(|e| Failure::new(format!("a list of {} is not understood: {e}", T::PLURAL)))?;
        drop(text);
        let version = metadata.resource_version.filter(|v| !v.is_empty());
        match (metadata.r#continue.filter(|c| !c.is_empty()), version) {
            (Some(more), _) => next = more,
            (None, Some(version)) => {
                for why in skipped {
                    ear.tell(Event::Skipped(why)).await;
                }
                ear.tell(Event::Listed(kept)).await;
                return Ok(version);
            }
            (None, None) => return Err(Failure::new(format!("a list of {} has no resourceVersion", T::PLURAL))),
        }
    }
}

/// Adds what is in a list to `kept`.
fn decode_list<T: Kept>(text: &[u8], kept: &mut Vec<T>, skipped: &mut Vec<String>) -> serde_json::Result<ListMetadata> {
    let mut take = |raw: T::Raw, skipped: &mut Vec<String>| match keep::<T>(raw, skipped) {
        Ok(object) => kept.push(object),
        Err(why) => skipped.push(why),
    };
    // Where one of them is not as it should be, each by itself.
    match serde_json::from_slice::<List<T::Raw>>(text) {
        Ok(list) => {
            for raw in list.items.unwrap_or_default() {
                take(raw, skipped);
            }
            Ok(list.metadata)
        }
        Err(_) => {
            let list: List<serde_json::Value> = serde_json::from_slice(text)?;
            for value in list.items.unwrap_or_default() {
                let named = named(&value);
                match T::Raw::deserialize(value) {
                    Ok(raw) => take(raw, skipped),
                    Err(e) => skipped.push(format!("{} {named}: {e}", T::PLURAL)),
                }
            }
            Ok(list.metadata)
        }
    }
}

fn keep<T: Kept>(raw: T::Raw, skipped: &mut Vec<String>) -> Result<T, String> {
    T::keep(raw, skipped).map_err(|why| format!("{}: {why}", T::PLURAL))
}

/// What a malformed object is called, if it says so.
fn named(value: &serde_json::Value) -> String {
    let metadata = Metadata::deserialize(value.get("metadata").unwrap_or(&serde_json::Value::Null));
    metadata.map(|m| m.key()).unwrap_or_default()
}

#[derive(Deserialize)]
struct Line<T> {
    r#type: String,
    object: T,
}

/// What a line of a watch says.
enum Told<T> {
    Applied(T),
    Deleted(String),
    Bookmark,
    Error(Status),
    /// Left out: an object that is not understood.
    Not(String),
}

/// What a line says, and up to which version everything is known then.
fn decode_line<T: Kept>(line: &[u8], skipped: &mut Vec<String>) -> Result<(Told<T>, String), String> {
    fn parsed<R: DeserializeOwned>(line: &[u8]) -> Result<Line<R>, serde_json::Error> {
        serde_json::from_slice(line)
    }
    if let Ok(Line { r#type, object }) = parsed::<T::Raw>(line) {
        let metadata = T::metadata(&object);
        let version = metadata.resource_version.clone();
        let told = match r#type.as_str() {
            "ADDED" | "MODIFIED" => match keep::<T>(object, skipped) {
                Ok(object) => Told::Applied(object),
                Err(why) => Told::Not(why),
            },
            "DELETED" => Told::Deleted(metadata.key()),
            "BOOKMARK" => Told::Bookmark,
            "ERROR" => Told::Error(parsed::<Status>(line).map(|line| line.object).unwrap_or_default()),
            _ => Told::Not(format!("an event {type:?} of {}", T::PLURAL)),
        };
        return Ok((told, version));
    }
    let Line { r#type, object } = parsed::<serde_json::Value>(line).map_err(|e| e.to_string())?;
    let version = object.pointer("/metadata/resourceVersion").and_then(serde_json::Value::as_str).unwrap_or_default();
    let told = match r#type.as_str() {
        "ERROR" => Told::Error(Status::deserialize(&object).unwrap_or_default()),
        _ => {
            let why = parsed::<T::Raw>(line).err().map(|e| e.to_string()).unwrap_or_default();
            Told::Not(format!("{} {}: {why}", T::PLURAL, named(&object)))
        }
    };
    Ok((told, version.to_owned()))
}

/// Tells of what changes since `version`, which goes along.
async fn follow<T: Kept, S: Send>(
    server: &Server,
    scope: &Scope,
    version: &mut String,
    ear: &Ear<T, S>,
) -> Result<End, Failure> {
    let seconds = KEEP * (1.0 + fastrand::f64() / 2.0);
    let query =
        format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds:.0}&resourceVersion={}", escape(version));
    let mut answer = server.get::<T>("watch", &scope.path::<T>(&query)).await?;
    ear.tell(Event::InTouch).await;
    let mut heard = false;
    loop {
        // A connection that breaks, or is silent, is only another one to be made: from where it was.
        let line = match answer.line(LARGEST, SILENCE).await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(End::Closed("the server ended it".to_owned(), heard)),
            Err(failure) => {
                tracing::debug!(kind = T::PLURAL, "{}", failure.why);
                return Ok(End::Closed(failure.why, heard));
            }
        };
        heard = true;
        let mut skipped = Vec::new();
        let (told, new) = decode_line::<T>(&line, &mut skipped)
            // Nobody knows what it said: as if it had been missed.
            .map_err(|e| Failure { status: Some(410), ..Failure::new(format!("an event is not understood: {e}")) })?;
        for why in skipped {
            ear.tell(Event::Skipped(why)).await;
        }
        match told {
            Told::Applied(object) => ear.tell(Event::Applied(object)).await,
            Told::Deleted(key) => ear.tell(Event::Deleted(key)).await,
            Told::Bookmark => {}
            Told::Not(why) => ear.tell(Event::Skipped(why)).await,
            Told::Error(status) if status.code == 410 => return Ok(End::Gone),
            Told::Error(status) => {
                let why = format!("the watch of {} ended ({}): {}", T::PLURAL, status.code, status.message);
                return Err(Failure { status: Some(status.code), ..Failure::new(why) });
            }
        }
        // Only now: who is told nothing has not seen it.
        if !new.is_empty() {
            *version = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::objects::Service, *};
    use serde_json::json;

    #[test]
    fn delays_grow_to_half_a_minute() {
        assert_eq!(delay(0, 1.0), Duration::from_millis(100));
        assert_eq!((delay(1, 0.0), delay(1, 1.0)), (Duration::from_millis(125), Duration::from_millis(250)));
        assert_eq!(delay(3, 1.0), Duration::from_secs(1));
        assert_eq!((delay(100, 1.0), delay(u32::MAX, 0.0)), (Duration::from_secs(30), Duration::from_secs(15)));
    }

    #[test]
    fn a_request_names_namespace_and_selectors() {
        let scope = Scope { namespace: Some("shop".to_owned()), labels: "app=web".to_owned(), ..Scope::default() };
        assert_eq!(
            scope.path::<Service>("limit=5"),
            "/api/v1/namespaces/shop/services?limit=5&labelSelector=app%3Dweb"
        );
        assert_eq!(Scope::default().path::<Service>("limit=5"), "/api/v1/services?limit=5");
    }

    #[test]
    fn one_malformed_object_is_left_out_and_not_the_list() {
        let list = json!({ "metadata": { "resourceVersion": "9", "continue": "more" }, "items": [
            { "metadata": { "name": "a", "namespace": "b" }, "spec": { "ports": [{ "port": 80 }] } },
            { "metadata": { "name": "bad", "namespace": "b" }, "spec": { "ports": "eighty" } },
            { "metadata": { "name": "c", "namespace": "b" } },
            { "metadata": { "name": "D", "namespace": "b" } },
        ] });
        let (mut kept, mut skipped) = (Vec::<Service>::new(), Vec::new());
        let metadata = decode_list(list.to_string().as_bytes(), &mut kept, &mut skipped).unwrap();
        assert_eq!((metadata.resource_version.as_deref(), metadata.r#continue.as_deref()), (Some("9"), Some("more")));
        assert_eq!(kept.iter().map(Kept::key).collect::<Vec<_>>(), ["b/a", "b/c"]);
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        assert!(skipped[0].starts_with("services b/bad: "), "{skipped:?}");
    }

    #[test]
    fn lines_of_a_watch_say_what_happened() {
        let line =
            |line: serde_json::Value| decode_line::<Service>(line.to_string().as_bytes(), &mut Vec::new()).unwrap();
        let object = json!({ "metadata": { "name": "a", "namespace": "b", "resourceVersion": "12" } });
        let (told, version) = line(json!({ "type": "MODIFIED", "object": object }));
        assert!(matches!(told, Told::Applied(service) if service.key() == "b/a") && version == "12");
        let (told, _) = line(json!({ "type": "DELETED", "object": object }));
        assert!(matches!(told, Told::Deleted(key) if key == "b/a"));
        let bookmark = json!({ "kind": "Service", "metadata": { "resourceVersion": "20", "creationTimestamp": null } });
        let (told, version) = line(json!({ "type": "BOOKMARK", "object": bookmark }));
        assert!(matches!(told, Told::Bookmark) && version == "20");
        let status = json!({ "kind": "Status", "metadata": {}, "code": 410, "message": "too old" });
        let (told, version) = line(json!({ "type": "ERROR", "object": status }));
        assert!(matches!(told, Told::Error(status) if status.code == 410) && version.is_empty());
        let bad = json!({ "metadata": { "name": "a", "resourceVersion": "13" }, "spec": 5 });
        let (told, version) = line(json!({ "type": "ADDED", "object": bad }));
        assert!(matches!(told, Told::Not(why) if why.starts_with("services a: ")) && version == "13");
        assert!(decode_line::<Service>(b"{\"type\":", &mut Vec::new()).is_err());
    }
}
