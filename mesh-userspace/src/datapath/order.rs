//! In which order services are changed when VIPs move between them.

use super::change::Change;
use mesh_common::service::VipKey;
use std::collections::{HashMap, HashSet};

/// The changes of services, each followed by the VIPs that come to it; a service that a VIP moves to stands before the
/// one that it leaves.
pub(super) fn in_order(
    mut changes: HashMap<u32, Vec<Change>>,
    old: &HashMap<VipKey, u32>,
    new: &HashMap<VipKey, u32>,
) -> Vec<Change> {
    let mut before: HashMap<u32, Vec<u32>> = HashMap::new();
    for (key, to) in new {
        let from = old.get(key);
        if from != Some(to) {
            changes.entry(*to).or_default().push(Change::Vip(*key, *to));
            if let Some(from) = from {
                before.entry(*from).or_default().push(*to);
            }
        }
    }
    // Depth first with a stack of our own: a chain of moves may be as long as there are services.
    let mut ordered = Vec::new();
    let mut seen = HashSet::new();
    let mut ids: Vec<u32> = changes.keys().copied().collect();
    ids.sort_unstable();
    for id in ids {
        let mut stack = vec![(id, false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                ordered.extend(changes.remove(&id).unwrap_or_default());
            } else if seen.insert(id) {
                stack.push((id, true));
                stack.extend(before.get(&id).into_iter().flatten().map(|to| (*to, false)));
            }
        }
    }
    ordered
}
