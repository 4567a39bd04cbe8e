//! What changed since.

use super::{
    client::{self, Client, Failure},
    known::Known,
    list,
    members::Members,
    wire::{self, WatchResponse},
};
use crate::discovery::{Change, Direct, Etcd, Teller};
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};

/// The first change is told at once; what follows it within this time, together.
const GATHER: Duration = Duration::from_millis(20);

/// A connection that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(5);

/// How often the history may turn out to be gone before the connection is given up.
const RELISTS: usize = 3;

/// What is known, and when it was so.
#[derive(Debug)]
struct Seen {
    prefix: String,
    known: Known,
    /// What is known is so at this revision of the store; 0: nothing is known.
    revision: i64,
    /// The latest revision of which a part was seen: large ones come in fragments.
    partly: i64,
    /// Since when it is known of the connection that works.
    synced: Option<Instant>,
}

impl Seen {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), known: Known::new(prefix), revision: 0, partly: 0, synced: None }
    }

    /// Takes what a watch says. Returns what is malformed.
    fn take(&mut self, answer: WatchResponse) -> Vec<String> {
        let mut skipped = Vec::new();
        let tells_progress = answer.events.is_empty() && !answer.created && !answer.fragment;
        for event in answer.events {
            let Some(kv) = event.kv else { continue };
            self.partly = self.partly.max(kv.mod_revision);
            if event.kind == wire::DELETED {
                self.known.delete(&kv.key);
            } else {
                skipped.extend(self.known.put(kv));
            }
        }
        if tells_progress {
            // Everything up to this revision has been sent. It is not so with events, which may lag behind the store.
            self.partly = self.partly.max(answer.header.map_or(0, |header| header.revision));
        }
        if !answer.fragment {
            self.revision = self.revision.max(self.partly);
        }
        skipped
    }
}

/// Watches a prefix and tells what is there, for ever.
pub async fn run(settings: Etcd, direct: Direct, teller: Teller) {
    let mut seen = Seen::new(&settings.prefix);
    let mut members = Members::new(settings, direct);
    loop {
        seen.synced = None;
        let why = match members.connect().await {
            Ok(client) => match attend(&client, &mut seen, &teller).await {
                Err(why) => why,
                Ok(never) => match never {},
            },
            Err(why) => why,
        };
        if seen.synced.is_some_and(|since| since.elapsed() >= STEADY) {
            members.worked();
        }
        // What was seen of half a revision is told with the other half, or by a list.
        if let Some(why) = members.failed(&why) {
            teller.lost(why).await;
        }
        sleep(members.pause(fastrand::f64())).await;
    }
}

/// Lists where need be, and watches, until the connection breaks.
async fn attend(client: &Client, seen: &mut Seen, teller: &Teller) -> Result<Infallible, Failure> {
    for _ in 0..RELISTS {
        let resumes = seen.revision > 0 && list::is_same(client, &seen.prefix, &seen.known, seen.revision).await?;
        if !resumes {
            list(client, seen, teller).await?;
        }
        match follow(client, seen, teller).await {
            Err(Failure::Forgotten) => seen.revision = 0,
            ended => return ended,
        }
    }
    Err(Failure::Forgotten)
}

/// Tells all that is there.
async fn list(client: &Client, seen: &mut Seen, teller: &Teller) -> Result<(), Failure> {
    let (mut known, revision, skipped) = list::all(client, &seen.prefix, &seen.known).await?;
    teller.say(Change::Listing).await;
    for (service, said, _) in known.changes() {
        teller.answer(service, said).await;
    }
    for why in skipped {
        teller.skipped(why).await;
    }
    teller.say(Change::Synced).await;
    (seen.known, seen.revision, seen.partly) = (known, revision, revision);
    Ok(())
}

/// Tells what changes.
async fn follow(client: &Client, seen: &mut Seen, teller: &Teller) -> Result<Infallible, Failure> {
    let (key, end) = list::below(&seen.prefix);
    let (created, mut answers) = client.watch(key, end, seen.revision + 1).await?;
    if created.header.as_ref().is_some_and(|header| header.revision < seen.revision) {
        return Err(Failure::Forgotten);
    }
    teller.say(Change::Synced).await;
    seen.synced = Some(Instant::now());
    let mut answer = created;
    // Whether what was not told is due, and when something was last told.
    let mut due: Option<Instant> = None;
    let mut told: Option<Instant> = None;
    loop {
        for why in seen.take(answer) {
            teller.skipped(why).await;
        }
        let now = Instant::now();
        if seen.known.is_changed() && due.is_none() {
            due = Some(told.map_or(now, |told| now.max(told + GATHER)));
        }
        answer = loop {
            if due.is_some_and(|due| due <= Instant::now()) {
                for (service, said, certain) in seen.known.changes() {
                    teller.say(Change::Service { key: service, said, certain }).await;
                }
                told = Some(Instant::now());
                due = None;
            }
            tokio::select! {
                answer = client::next(&mut answers) => break answer?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::wire::{Event, KeyValue, ResponseHeader},
        *,
    };

    fn put(key: &str, mod_revision: i64) -> Event {
        let value = br#"{"address":"10.0.0.1:80"}"#.to_vec();
        Event { kind: 0, kv: Some(KeyValue { key: key.as_bytes().to_vec(), mod_revision, value }) }
    }

    fn answer(revision: i64, events: Vec<Event>) -> WatchResponse {
        WatchResponse { header: Some(ResponseHeader { revision }), events, ..WatchResponse::default() }
    }

    #[test]
    fn a_watch_goes_on_after_the_last_event_it_saw_whole() {
        let mut seen = Seen::new("/p");
        seen.revision = 10;
        // The answer to the creation says where the store is, not what was sent.
        seen.take(WatchResponse { created: true, ..answer(50, vec![]) });
        assert_eq!(seen.revision, 10);
        seen.take(answer(50, vec![put("/p/a/1", 20)]));
        assert_eq!(seen.revision, 20);
        seen.take(WatchResponse { fragment: true, ..answer(50, vec![put("/p/a/2", 30)]) });
        assert_eq!(seen.revision, 20);
        seen.take(answer(50, vec![put("/p/a/3", 30)]));
        assert_eq!(seen.revision, 30);
        seen.take(answer(45, vec![]));
        assert_eq!(seen.revision, 45);
        assert_eq!((seen.known.count(), seen.known.newest()), (3, 30));
    }
}
