//! The registry as a source.

use super::Registrar;
use crate::discovery::{Change, Teller};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A change is written down so much later, with what came meanwhile.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// How long it takes until it is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(10);
/// Deadlines are looked at so much later at most, together with those that pass meanwhile.
const EXPIRE_TOGETHER: Duration = Duration::from_millis(50);
/// After something was told the next change waits so long, with what comes meanwhile, and so much longer for each
/// instance that was told: everything of a service is told again whenever one of its instances changes.
const REST: Duration = Duration::from_millis(1);
const REST_EACH: Duration = Duration::from_micros(2);
/// More changes than this at once are a burst, and the rest after them is longer.
const BURST: u64 = 16;
const BURST_REST: Duration = Duration::from_millis(50);

impl Registrar {
    /// Tells who is registered, and writes it down; for ever.
    pub async fn run(self: Arc<Self>, teller: Teller) {
        tokio::join!(self.tell(&teller), self.keep());
    }

    async fn tell(&self, teller: &Teller) {
        teller.say(Change::Listing).await;
        self.begin();
        self.tell_changes(teller).await;
        teller.say(Change::Synced).await;
        let mut due = self.expire().map(Instant::from_std);
        loop {
            match due {
                Some(due) => drop(timeout_at(due + EXPIRE_TOGETHER, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
            due = self.expire().map(Instant::from_std);
            match self.tell_changes(teller).await {
                (0, _) => {}
                (told, changes) => {
                    let rest = if changes > BURST { BURST_REST } else { REST };
                    sleep(rest + REST_EACH * told).await;
                }
            }
        }
    }

    /// Returns how many instances were told, and how many changes there were.
    async fn tell_changes(&self, teller: &Teller) -> (u32, u64) {
        let mut told: u32 = 0;
        let (services, changes) = self.to_tell();
        for (service, said) in services {
            let instances = said.as_ref().map_or(0, |said| said.instances.len());
            told = told.saturating_add(u32::try_from(instances).unwrap_or(u32::MAX)).saturating_add(1);
            teller.service(&*service, said).await;
        }
        (told, changes)
    }

    async fn keep(self: &Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            let mut at = Instant::now() + SAVE_AFTER;
            loop {
                sleep_until(at).await;
                let registrar = Arc::clone(self);
                // The file system may take its time.
                if tokio::task::spawn_blocking(move || registrar.save()).await.unwrap_or(true) {
                    break;
                }
                at = Instant::now() + SAVE_AGAIN;
            }
        }
    }
}
