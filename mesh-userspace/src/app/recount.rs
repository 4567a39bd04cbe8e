//! Whether the kernel counts active connections right: compared with the connections that are there.
//!
//! `opened - closed` drifts only where a connection ended unseen: while somebody had taken the programs off the cgroup,
//! or with a cgroup that was removed. A correction is a difference that is added, never a number that is stored, so
//! what programs count at the same moment stays counted.

use super::daemon::{Daemon, now};
use mesh_common::endpoint::{Counter, EndpointCounts, Slot};
use std::{collections::HashMap, sync::atomic::Ordering};

/// How often connections are counted again, in nanoseconds.
const AGAIN: u64 = 60_000_000_000;

/// An endpoint whose count did not agree with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    opened: u64,
    closed: u64,
    live: u64,
}

/// What the last count left in doubt.
#[derive(Debug, Default)]
pub(super) struct Recount {
    doubts: HashMap<u64, Doubt>,
    again_at: u64,
}

impl Recount {
    /// By how much each endpoint's `closed` is too small: where two counts in a row found the same connections missing,
    /// and nothing began or ended there from the beginning of the first to the end of the second.
    fn judge(
        &mut self,
        before: &HashMap<u64, EndpointCounts>,
        live: &HashMap<u64, u64>,
        after: impl Fn(Slot) -> EndpointCounts,
    ) -> Vec<(Slot, u64)> {
        let earlier = std::mem::take(&mut self.doubts);
        let mut missing = Vec::new();
        for (slot, counts) in before {
            let doubt =
                Doubt { opened: counts.opened, closed: counts.closed, live: live.get(slot).copied().unwrap_or(0) };
            let now = after(Slot(*slot));
            let rests = (now.opened, now.closed) == (doubt.opened, doubt.closed);
            if !rests || counts.active() <= doubt.live {
                continue;
            }
            if earlier.get(slot) == Some(&doubt) {
                missing.push((Slot(*slot), counts.active() - doubt.live));
            } else {
                self.doubts.insert(*slot, doubt);
            }
        }
        missing
    }
}

impl Daemon {
    /// Counts active connections again, now and then.
    pub(super) fn recount_active(&self) {
        let mut recount = self.recount.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if recount.again_at > now() {
            return;
        }
        recount.again_at = now() + AGAIN;
        let Some(tables) = self.tables() else { return };
        if !self.unseen.load(Ordering::Acquire) {
            return recount.doubts.clear();
        }
        // Those of the proxy, where the kernel does not see them.
        let mut live: HashMap<u64, u64> = HashMap::new();
        let before: HashMap<u64, EndpointCounts> = {
            let (state, table) = (self.state(), self.http.shared.table.load());
            let Some(datapath) = &state.datapath else { return };
            let all = state.snapshot.services().iter().flat_map(|s| s.endpoints.iter().map(move |e| (s, e.address)));
            let mut before = HashMap::new();
            for (service, address) in all {
                let Some(slot) = datapath.endpoint_row(&service.name, address) else { continue };
                let counts = tables.endpoint_counts(slot.id());
                if counts.active() == 0 {
                    continue;
                }
                before.insert(slot.0, counts);
                if let (false, Some(own)) = (self.seen, table.service(&service.name).and_then(|s| s.endpoint(address)))
                {
                    live.insert(slot.0, own.connections.counts().active());
                }
            }
            before
        };
        if before.is_empty() {
            self.unseen.store(false, Ordering::Release);
            return recount.doubts.clear();
        }
        let looked = self.look(&mut |connection| {
            let record = &connection.live.record;
            *live.entry(Slot::new(record.id, record.tag).0).or_default() += 1;
        });
        // Who was not seen is not gone.
        if let Err(why) = looked {
            tracing::debug!("active connections are not counted again: {why}");
            return recount.doubts.clear();
        }
        for (slot, missing) in recount.judge(&before, &live, |slot| tables.endpoint_counts(slot.id())) {
            tracing::warn!(
                endpoint_row = slot.id(),
                missing,
                "connections ended unseen: the active count is corrected"
            );
            tables.add_to(slot, Counter::Closed, missing);
        }
        if before.iter().all(|(slot, counts)| counts.active() <= live.get(slot).copied().unwrap_or(0)) {
            self.unseen.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(opened: u64, closed: u64) -> EndpointCounts {
        EndpointCounts { opened, closed, ..EndpointCounts::default() }
    }

    #[test]
    fn connections_that_are_missing_twice_while_nothing_moves_have_ended() {
        let slot = Slot::new(3, 7);
        let judge = |recount: &mut Recount, counts: EndpointCounts, live: u64, after: EndpointCounts| {
            recount.judge(&HashMap::from([(slot.0, counts)]), &HashMap::from([(slot.0, live)]), |_| after)
        };
        let mut recount = Recount::default();
        assert_eq!(judge(&mut recount, counts(10, 4), 2, counts(10, 4)), []);
        assert_eq!(judge(&mut recount, counts(10, 4), 2, counts(10, 4)), [(slot, 4)]);
        assert_eq!(judge(&mut recount, counts(10, 8), 2, counts(10, 8)), [], "corrected");
        // Something moved during the look, or between two looks; or there are more than were counted.
        let mut recount = Recount::default();
        assert_eq!(judge(&mut recount, counts(10, 4), 2, counts(11, 4)), []);
        assert_eq!(judge(&mut recount, counts(10, 4), 2, counts(10, 4)), []);
        assert_eq!(judge(&mut recount, counts(11, 5), 2, counts(11, 5)), []);
        assert_eq!(judge(&mut recount, counts(11, 5), 7, counts(11, 5)), []);
    }
}
