//! How long requests and connects of services take, as the daemon tells it to all who look at it live.

use crate::api::{Client, Percentiles, Received};
use serde::{Deserialize, Deserializer};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

/// How soon a daemon that told nothing, or nothing more, is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is known of each service that was asked something lately.
pub(super) type Latencies = HashMap<String, Latency>;

/// How long what was asked of a service took lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    /// From the head of a request to the end of its answer.
    pub(super) requests: Option<Percentiles>,
    /// From the SYN to the established connection.
    pub(super) connects: Option<Percentiles>,
}

/// Follows what is told live until it is dropped.
pub(super) struct Follower {
    task: JoinHandle<()>,
    known: watch::Receiver<Latencies>,
}

impl Follower {
    /// Begins to follow. A daemon that has no place for another viewer, or is away, is asked again later.
    pub(super) fn start(client: &Client) -> Self {
        let (client, (tell, known)) = (client.clone(), watch::channel(Latencies::new()));
        let task = tokio::spawn(async move {
            loop {
                if let Ok(mut events) = client.live().await {
                    while let Ok(event) = events.next().await {
                        tell.send_modify(|known| hear(known, &event));
                    }
                }
                // Nobody knows how long things take now.
                tell.send_modify(Latencies::clear);
                sleep(AGAIN).await;
            }
        });
        Self { task, known }
    }

    /// What is known now.
    pub(super) fn latest(&self) -> Latencies {
        self.known.borrow().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an event says of latencies; all else of it is passed over.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    removed: Removed,
}

/// A field that is not there is as it was.
#[derive(Deserialize)]
struct Service {
    name: String,
    #[serde(default, deserialize_with = "said")]
    request_percentiles: Option<Option<Percentiles>>,
    #[serde(default, deserialize_with = "said")]
    connect_percentiles: Option<Option<Percentiles>>,
}

#[derive(Default, Deserialize)]
struct Removed {
    services: Vec<String>,
}

/// Tells null from nothing.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Percentiles>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn hear(known: &mut Latencies, event: &Received) {
    let Ok(told) = serde_json::from_str::<Told>(&event.data) else { return };
    if event.kind == "snapshot" {
        known.clear();
    }
    for name in told.removed.services {
        known.remove(&name);
    }
    for Service { name, request_percentiles, connect_percentiles } in told.services {
        let latency = known.entry(name).or_default();
        latency.requests = request_percentiles.unwrap_or(latency.requests);
        latency.connects = connect_percentiles.unwrap_or(latency.connects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const fn percentiles(p99_ms: f64) -> Percentiles {
        Percentiles { p50_ms: 1.0, p90_ms: 2.0, p99_ms }
    }

    fn event(kind: &str, data: &Value) -> Received {
        Received { id: Some(1), kind: kind.to_owned(), data: data.to_string() }
    }

    #[test]
    fn what_is_not_said_again_is_as_it_was() {
        let mut known = Latencies::new();
        let mut hear = |kind, data: Value| {
            super::hear(&mut known, &event(kind, &data));
            let mut all: Vec<_> = known.iter().map(|(name, latency)| (name.clone(), *latency)).collect();
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            all
        };
        let latency = |requests, connects| Latency { requests, connects };
        let (web, db) = ("web".to_owned(), "db".to_owned());
        let all = json!({ "time": "x", "services": [
            { "name": "db", "healthy": 1, "request_percentiles": null, "connect_percentiles": percentiles(3.0) },
            { "name": "web", "request_percentiles": percentiles(4.0), "connect_percentiles": null },
        ] });
        let first =
            [(db.clone(), latency(None, Some(percentiles(3.0)))), (web.clone(), latency(Some(percentiles(4.0)), None))];
        assert_eq!(hear("snapshot", all), first);
        assert_eq!(hear("delta", json!({ "services": [{ "name": "web", "rate": 2 }] })), first);
        let changed = json!({ "services": [{ "name": "web", "request_percentiles": null }], "removed": { "services": ["db"], "endpoints": [{}] } });
        assert_eq!(hear("delta", changed), [(web, Latency::default())]);
        assert_eq!(hear("delta", json!("nonsense")).len(), 1);
        assert_eq!(hear("snapshot", json!({ "services": [] })), []);
    }
}
