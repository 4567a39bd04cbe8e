//! Whose a service row is, and whose it was: the tables know a service by the hash of its name only.

use super::change::Change;
use crate::model::Snapshot;
use mesh_common::service::name_hash;
use std::collections::HashMap;

/// The names behind service rows. A row keeps the name of a service that was removed until another one gets it, so
/// that connections that outlive their service still have its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    by_row: HashMap<u32, Owner>,
    /// Rows in use whose service we have not met yet, by the hash of its name.
    unnamed: HashMap<u64, (u32, u64)>,
}

#[derive(Clone, Debug)]
struct Owner {
    name: Box<str>,
    /// Since when the row is this service's; 0 if it was so before us.
    since: u64,
}

impl Owners {
    /// Takes over rows that an earlier daemon used: the row and the hash of the service's name.
    pub(super) fn adopt(&mut self, rows: impl Iterator<Item = (u32, u64)>) {
        self.unnamed.extend(rows.filter(|(row, _)| !self.by_row.contains_key(row)).map(|(row, name)| (name, (row, 0))));
    }

    /// Learns the names of rows whose use began with these changes at `now`, which lead to `snapshot`.
    pub(super) fn learn(&mut self, changes: &[Change], snapshot: &Snapshot, now: u64) {
        for change in changes {
            if let Change::Service(row, service) = change {
                self.unnamed.insert(service.name, (*row, now));
            }
        }
        if self.unnamed.is_empty() {
            return;
        }
        for service in snapshot.services() {
            if let Some((row, since)) = self.unnamed.remove(&name_hash(&service.name)) {
                self.by_row.insert(row, Owner { name: service.name.as_str().into(), since });
            }
        }
        // What is left belongs to services that are gone: nobody can say their names.
        self.unnamed = HashMap::new();
    }

    /// The service whose row this was at `then`.
    pub(super) fn name(&self, row: u32, then: u64) -> Option<&str> {
        self.by_row.get(&row).filter(|owner| owner.since <= then).map(|owner| &*owner.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Overrides, Policy, Protocol, Service};
    use mesh_common::service::ServiceRow;
    use std::sync::Arc;

    fn snapshot(names: &[&str]) -> Snapshot {
        let service = |name: &&str| Service {
            name: (*name).to_owned(),
            addresses: Vec::new(),
            hosts: Vec::new(),
            routes: Arc::default(),
            protocol: Protocol::Tcp,
            policy: Policy::RoundRobin,
            settings: std::sync::Arc::default(),
            endpoints: Vec::new(),
        };
        Snapshot::new(&names.iter().map(service).map(Arc::new).collect::<Vec<_>>(), &Overrides::default())
    }

    fn begins(row: u32, name: &str) -> Change {
        Change::Service(row, ServiceRow { name: name_hash(name), ..ServiceRow::default() })
    }

    #[test]
    fn a_removed_service_keeps_its_name_until_another_one_gets_its_row() {
        let mut owners = Owners::default();
        owners.learn(&[begins(3, "web")], &snapshot(&["web"]), 100);
        owners.learn(&[Change::FreeService(3)], &snapshot(&[]), 200);
        assert_eq!(owners.name(3, 150), Some("web"));
        owners.learn(&[begins(3, "api")], &snapshot(&["api"]), 300);
        assert_eq!((owners.name(3, 150), owners.name(3, 300)), (None, Some("api")), "never another service's name");
    }

    #[test]
    fn rows_of_an_earlier_daemon_have_had_their_names_all_along() {
        let mut owners = Owners::default();
        owners.adopt([(1, name_hash("web")), (2, name_hash("gone"))].into_iter());
        owners.learn(&[Change::FreeService(2)], &snapshot(&["web"]), 100);
        assert_eq!((owners.name(1, 5), owners.name(2, 5)), (Some("web"), None));
        // The tables are read again where a write failed; what is known stays.
        owners.adopt([(1, name_hash("web"))].into_iter());
        owners.learn(&[], &snapshot(&["web"]), 200);
        assert_eq!(owners.name(1, 5), Some("web"));
    }
}
