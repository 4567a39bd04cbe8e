//! How often endpoints of a service were picked, by policy and by how near they are.

use crate::{model::Policy, policy::Tier};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Workers beyond share their counters.
const WORKERS: usize = 8;

/// Counters, each worker's on a cache line of its own. Room is made for policies that pick.
#[derive(Debug, Default)]
pub struct Picks([OnceLock<Box<[OfWorker; WORKERS]>>; Policy::ALL.len()]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct OfWorker([AtomicU64; Tier::COUNT]);

impl Picks {
    /// One more.
    pub(super) fn count(&self, policy: Policy, tier: Tier, worker: usize) {
        let workers = self.0[policy as usize].get_or_init(Box::default);
        workers[worker % WORKERS].0[tier as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every policy and tier that was counted, with its number.
    pub fn counts(&self) -> impl Iterator<Item = (Policy, Tier, u64)> + '_ {
        let used = Policy::ALL.into_iter().filter_map(|policy| Some((policy, self.0[policy as usize].get()?)));
        let each = used.flat_map(|(policy, workers)| {
            Tier::ALL.into_iter().map(move |tier| {
                let of = |worker: &OfWorker| worker.0[tier as usize].load(Ordering::Relaxed);
                (policy, tier, workers.iter().map(of).sum())
            })
        });
        each.filter(|(_, _, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_pick_adds_up_by_policy_and_tier() {
        let picks = Picks::default();
        assert_eq!(picks.counts().count(), 0);
        for worker in 0..2 * WORKERS {
            picks.count(Policy::PeakEwma, Tier::Zone, worker);
        }
        picks.count(Policy::PeakEwma, Tier::Remote, 0);
        picks.count(Policy::RoundRobin, Tier::Zone, 1);
        let counts: Vec<_> = picks.counts().collect();
        let expected = [
            (Policy::RoundRobin, Tier::Zone, 1),
            (Policy::PeakEwma, Tier::Zone, 16),
            (Policy::PeakEwma, Tier::Remote, 1),
        ];
        assert_eq!(counts, expected);
    }
}
