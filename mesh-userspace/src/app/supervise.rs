//! What keeps a source at work that broke off.

use crate::discovery::Teller;
use futures_util::FutureExt as _;
use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, time::Duration};
use tokio::time::{Instant, sleep};

/// The pause after a source broke off, and the longest, after which it may have broken off again and again.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// A source that was at work for so long has not broken off again and again.
const STEADY: Duration = Duration::from_secs(60);

/// Lets a source work, and begins anew whenever it breaks off: by a mistake of ours, which is one source's and no reason
/// for it to be silent for ever. What it said stays in force meanwhile.
pub(super) async fn keep_at_work<W: Future<Output = ()>>(teller: Teller, work: impl Fn() -> W) -> Infallible {
    let mut pause = FIRST;
    loop {
        let began = Instant::now();
        // Nothing is shared with the next attempt but what its locks guard.
        let why = match AssertUnwindSafe(work()).catch_unwind().await {
            Ok(()) => "it came to an end".to_owned(),
            Err(panic) => said(&*panic).to_owned(),
        };
        if began.elapsed() >= STEADY {
            pause = FIRST;
        }
        teller.lost(format!("broke off by a mistake in mesh ({why}) and is begun anew after {pause:?}")).await;
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it does not say why")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{Change, Source};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_source_that_broke_off_says_so_and_is_begun_anew() {
        let (updates, mut told) = mpsc::channel(16);
        let teller = Teller::new(Source::Etcd, updates);
        let attempts = AtomicU32::new(0);
        let work = || async {
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 => panic!("index {} out of bounds", 7),
                1 => {}
                _ => {
                    teller.say(Change::Synced).await;
                    std::future::pending().await
                }
            }
        };
        let mut heard = Vec::new();
        tokio::select! {
            never = keep_at_work(teller.clone(), work) => match never {},
            () = async {
                while heard.last() != Some(&Change::Synced) {
                    heard.push(told.recv().await.unwrap().change);
                }
            } => {}
        }
        let lost = |change: &Change| match change {
            Change::Lost(why) => why.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(lost(&heard[0]).contains("index 7 out of bounds"), "{heard:?}");
        assert!(lost(&heard[0]).contains("after 500ms") && lost(&heard[1]).contains("after 1s"), "{heard:?}");
    }
}
