//! The node live: one picture after another, for however many look.
//!
//! A picture is made once for all who look, and none is made while nobody does. There is only ever the newest one: whoever
//! reads slowly misses some, and what comes next for him is whole again instead of a difference to what he never saw.

use super::{
    feed::{Event, Read},
    types::{EndpointKey, Live},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{Notify, watch};

/// Where pictures are shown.
#[derive(Debug)]
pub struct Screen {
    newest: watch::Sender<Option<Arc<Picture>>>,
    last: AtomicU64,
    somebody: Notify,
}

/// The node at one moment.
#[derive(Debug)]
struct Picture {
    id: u64,
    live: Live,
    /// Written when somebody needs it.
    whole: OnceLock<Arc<str>>,
    /// What is different from the picture with the number before; `None`: that was another time.
    delta: Option<Arc<str>>,
}

impl Default for Screen {
    fn default() -> Self {
        Self { newest: watch::Sender::new(None), last: AtomicU64::new(0), somebody: Notify::new() }
    }
}

impl Screen {
    /// Somebody looks, from now on.
    #[must_use]
    pub fn look(&self) -> Viewer {
        let viewer = Viewer { newest: self.newest.subscribe(), seen: None };
        self.somebody.notify_one();
        viewer
    }

    /// Whether anybody looks.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// Returns as soon as somebody looks.
    pub async fn watched(&self) {
        while !self.is_watched() {
            self.somebody.notified().await;
        }
    }

    /// Shows the next picture.
    pub fn show(&self, live: Live) {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let before = self.newest.borrow().clone();
        let delta = before.map(|before| json(&delta(&before.live, &live)));
        self.newest.send_replace(Some(Arc::new(Picture { id, live, whole: OnceLock::new(), delta })));
    }

    /// Shows nothing: what was shown is too old for whoever comes next.
    pub fn clear(&self) {
        // A number that was never shown: whoever saw the last picture gets a whole one next.
        self.last.fetch_add(1, Ordering::Relaxed);
        self.newest.send_replace(None);
    }
}

impl Picture {
    fn whole(&self) -> Arc<str> {
        Arc::clone(self.whole.get_or_init(|| json(&self.live)))
    }
}

/// Looks at a [`Screen`].
#[derive(Debug)]
pub struct Viewer {
    newest: watch::Receiver<Option<Arc<Picture>>>,
    /// The number of the last picture that was seen.
    seen: Option<u64>,
}

impl Viewer {
    /// The newest picture, once there is one that was not seen. Nothing is lost where it is not waited for to the end.
    pub async fn next(&mut self) -> Read {
        let seen = self.seen;
        let is_new = |shown: &Option<Arc<Picture>>| shown.as_ref().is_some_and(|picture| Some(picture.id) != seen);
        let shown = self.newest.wait_for(is_new).await.map(|shown| shown.clone());
        let Ok(Some(picture)) = shown else { return Read::Ended };
        let id = picture.id;
        let delta = picture.delta.clone().filter(|_| seen.is_some_and(|seen| seen + 1 == id));
        let (kind, data) = match delta {
            Some(delta) => ("delta", delta),
            // Megabytes, where there are many endpoints: nobody else ought to wait for that.
            None => match tokio::task::spawn_blocking(move || picture.whole()).await {
                Ok(whole) => ("snapshot", whole),
                Err(_) => return Read::Ended,
            },
        };
        self.seen = Some(id);
        Read::Event(Event { id, kind, data })
    }
}

fn json(value: &impl Serialize) -> Arc<str> {
    // Texts and numbers can always be written.
    serde_json::to_string(value).unwrap_or_default().into()
}

/// What leads from one moment to another. Of what is there in both: what names it, and the fields that are different.
fn delta(before: &Live, now: &Live) -> Value {
    let mut delta = Map::new();
    delta.insert("time".to_owned(), Value::String(now.time.to_string()));
    let mut put = |name: &str, value: Value| drop(delta.insert(name.to_owned(), value));
    if before.ready != now.ready {
        put("ready", serde_json::to_value(&now.ready).unwrap_or_default());
    }
    if before.endpoints_left_out != now.endpoints_left_out {
        put("endpoints_left_out", now.endpoints_left_out.into());
    }
    if before.status != now.status {
        put("status", different(&before.status, &now.status, &[]));
    }
    if before.totals != now.totals {
        put("totals", different(&before.totals, &now.totals, &[]));
    }
    let services = changes(&before.services, &now.services, |s| s.service.name.clone(), &["name"]);
    let key =
        |e: &super::LiveEndpoint| EndpointKey { service: e.endpoint.service.clone(), address: e.endpoint.address };
    let endpoints = changes(&before.endpoints, &now.endpoints, key, &["service", "address"]);
    if !services.changed.is_empty() {
        put("services", Value::Array(services.changed));
    }
    if !endpoints.changed.is_empty() {
        put("endpoints", Value::Array(endpoints.changed));
    }
    if !services.removed.is_empty() || !endpoints.removed.is_empty() {
        put("removed", serde_json::json!({ "services": services.removed, "endpoints": endpoints.removed }));
    }
    Value::Object(delta)
}

/// What is different about a list.
struct Changes<K> {
    /// New rows whole, of others what is different.
    changed: Vec<Value>,
    removed: Vec<K>,
}

/// What leads from one list to another. Both are in the order of their keys.
fn changes<T: Serialize + PartialEq, K: Ord>(
    before: &[T],
    now: &[T],
    key: impl Fn(&T) -> K,
    names: &[&str],
) -> Changes<K> {
    let mut changes = Changes { changed: Vec::new(), removed: Vec::new() };
    let mut old = before.iter().peekable();
    for row in now {
        let this = key(row);
        while let Some(gone) = old.next_if(|old| key(old) < this) {
            changes.removed.push(key(gone));
        }
        match old.next_if(|old| key(old) == this) {
            Some(old) if old == row => {}
            Some(old) => changes.changed.push(different(old, row, names)),
            None => changes.changed.push(serde_json::to_value(row).unwrap_or_default()),
        }
    }
    changes.removed.extend(old.map(key));
    changes
}

/// The fields of `now` that are others than those of `before`, and those with these `names`.
fn different<T: Serialize>(before: &T, now: &T, names: &[&str]) -> Value {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, mut now) = (fields(before), fields(now));
    now.retain(|name, value| names.contains(&name.as_str()) || before.get(name) != Some(value));
    Value::Object(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{EndpointHealth, LiveEndpoint, sample};
    use proptest::prelude::*;
    use serde_json::json;

    fn endpoint(port: u16, weight: u16) -> LiveEndpoint {
        let mut endpoint = sample::live().endpoints.swap_remove(0);
        endpoint.endpoint.address.set_port(port);
        endpoint.endpoint.weight = weight;
        endpoint
    }

    /// The data of an event that can be read without waiting.
    async fn seen(viewer: &mut Viewer) -> (&'static str, Value) {
        match viewer.next().await {
            Read::Event(event) => (event.kind, serde_json::from_str(&event.data).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_difference_has_what_names_a_row_and_what_is_different_about_it() {
        let (screen, before) = (Screen::default(), sample::live());
        let mut viewer = screen.look();
        screen.show(before.clone());
        assert_eq!(seen(&mut viewer).await, ("snapshot", serde_json::to_value(&before).unwrap()));
        let mut now = before.clone();
        now.endpoints[0].endpoint.health = EndpointHealth::Unhealthy;
        now.endpoints.truncate(1);
        now.services[1].rates.requests_per_s = Some(2.5);
        now.status.bypass = true;
        screen.show(now);
        let (kind, delta) = seen(&mut viewer).await;
        let expected = json!({
            "time": before.time,
            "status": { "bypass": true },
            "services": [{ "name": "search", "requests_per_s": 2.5 }],
            "endpoints": [{ "service": "checkout", "address": "10.0.1.5:8080", "health": "unhealthy" }],
            "removed": { "services": [], "endpoints": [{ "service": "checkout", "address": "[fd00:1::5]:8080" }] },
        });
        assert_eq!((kind, delta), ("delta", expected));
    }

    #[tokio::test]
    async fn who_reads_slowly_misses_pictures_and_gets_a_whole_one_next() {
        let screen = Screen::default();
        let (mut quick, mut slow) = (screen.look(), screen.look());
        let mut live = sample::live();
        screen.show(live.clone());
        assert_eq!((seen(&mut quick).await.0, seen(&mut slow).await.0), ("snapshot", "snapshot"));
        for n in 1..=5 {
            live.status.uptime_s = n;
            screen.show(live.clone());
            assert_eq!(seen(&mut quick).await.0, "delta");
        }
        let (kind, data) = seen(&mut slow).await;
        assert_eq!((kind, &data["status"]["uptime_s"]), ("snapshot", &json!(5)));
        live.status.uptime_s = 6;
        screen.show(live);
        assert_eq!((seen(&mut quick).await.0, seen(&mut slow).await.0), ("delta", "delta"));
    }

    #[tokio::test]
    async fn after_a_pause_the_first_picture_is_whole() {
        let screen = Screen::default();
        assert!(!screen.is_watched());
        let mut viewer = screen.look();
        screen.watched().await;
        screen.show(sample::live());
        seen(&mut viewer).await;
        screen.clear();
        screen.show(sample::live());
        assert_eq!(seen(&mut viewer).await.0, "snapshot");
        drop(viewer);
        assert!(!screen.is_watched());
    }

    /// What a page makes of a snapshot and what follows it.
    fn hear(known: &mut Vec<Value>, delta: &Value) {
        let is = |a: &Value, b: &Value| a["service"] == b["service"] && a["address"] == b["address"];
        for gone in delta["removed"]["endpoints"].as_array().into_iter().flatten() {
            known.retain(|row| !is(row, gone));
        }
        for changed in delta["endpoints"].as_array().into_iter().flatten() {
            match known.iter_mut().find(|row| is(row, changed)) {
                Some(row) => row.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone()),
                None => known.push(changed.clone()),
            }
        }
        known.sort_by_key(|row| row["address"].as_str().unwrap().to_owned());
    }

    proptest! {
        #[test]
        fn who_hears_every_difference_knows_what_is(
            steps in prop::collection::vec(prop::collection::btree_map(1000..1009u16, 1..3u16, 0..9), 1..12)
        ) {
            let (mut before, mut known) = (sample::live(), Vec::new());
            before.endpoints.clear();
            for step in steps {
                let endpoints = step.into_iter().map(|(port, weight)| endpoint(port, weight)).collect();
                let now = Live { endpoints, ..before.clone() };
                hear(&mut known, &delta(&before, &now));
                prop_assert_eq!(&Value::Array(known.clone()), &serde_json::to_value(&now.endpoints).unwrap());
                before = now;
            }
        }
    }
}
