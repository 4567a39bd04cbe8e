//! Names of the DNS as a source: looked up again when their records have run out.
//!
//! | file | question |
//! | --- | --- |
//! | `look` | what does the DNS answer? |
//! | `belief` | what of it is believed, and when is it asked again? |
//! | `records` | who serves a service by its records? |
//! | `touch` | is the source in touch? |

mod belief;
mod look;
mod records;
mod touch;

pub(super) use look::system_servers;

use super::{Change, Direct, Resolve, Said, Teller, update::break_off};
use belief::{Asked, Known, Verdict};
use look::Resolver;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};
use touch::Touch;

/// Names that are looked up at the same time.
const AT_ONCE: usize = 32;

/// Watches these names, `NAME:PORT` for addresses and `srv:NAME` for records that name targets and ports, until it is
/// dropped.
pub async fn run(settings: Resolve, names: BTreeSet<String>, direct: Direct, teller: Teller) {
    teller.say(Change::Listing).await;
    let resolver = Arc::new(Resolver::new(&settings, direct));
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let (sender, mut verdicts) = mpsc::channel(AT_ONCE);
    // What is dropped ends with all its tasks.
    let mut watches = JoinSet::new();
    let mut touch = Touch::new(names.iter().filter(|name| Asked::parse(name).is_some()).cloned());
    for name in names {
        let Some(asked) = Asked::parse(&name) else {
            teller.skipped(format!("{name} is neither NAME:PORT nor srv:NAME")).await;
            continue;
        };
        let watch = Watch {
            name,
            asked,
            settings: settings.clone(),
            resolver: Arc::clone(&resolver),
            permits: Arc::clone(&permits),
        };
        watches.spawn(watch.run(sender.clone()));
    }
    drop(sender);
    let mut said: HashMap<String, Said> = HashMap::new();
    loop {
        let (name, verdict) = tokio::select! {
            Some(heard) = verdicts.recv() => heard,
            Some(ended) = watches.join_next() => return break_off(ended),
            else => return,
        };
        if let Some(now) = verdict.said
            && said.get(&name) != Some(&now)
        {
            said.insert(name.clone(), now.clone());
            teller.answer(name.clone(), Some(now)).await;
        }
        for change in touch.hear(&name, verdict.answered, verdict.failed) {
            teller.say(change).await;
        }
    }
}

/// One name.
struct Watch {
    name: String,
    asked: Asked,
    settings: Resolve,
    resolver: Arc<Resolver>,
    permits: Arc<Semaphore>,
}

impl Watch {
    async fn run(self, verdicts: mpsc::Sender<(String, Verdict)>) {
        let mut known = Known::new(self.asked.clone());
        loop {
            // It is never closed.
            let Ok(permit) = self.permits.acquire().await else { return };
            let report = self.resolver.look(&self.asked).await;
            drop(permit);
            let verdict = known.hear(report, self.settings.refresh, fastrand::f64());
            let again = verdict.again;
            if verdicts.send((self.name.clone(), verdict)).await.is_err() {
                return;
            }
            sleep(again).await;
        }
    }
}
