//! What all keys together say.

use super::{
    record::{self, Record, shown},
    wire::KeyValue,
};
use crate::discovery::{Instance, Said};
use std::collections::{BTreeMap, HashMap};

/// What stands below the prefix.
#[derive(Debug, Default)]
pub(super) struct Known {
    prefix: String,
    /// When each key was last changed, whatever its value says.
    keys: HashMap<Vec<u8>, i64>,
    /// Who serves each service.
    services: BTreeMap<String, BTreeMap<String, Instance>>,
    /// Services of which something has not been told yet, and whether who went was seen going.
    changed: BTreeMap<String, bool>,
    /// The malformed records that have been named, with when they were changed.
    named: HashMap<Vec<u8>, i64>,
}

/// A service, what is known of it (`None`: nothing any more), and whether that nobody is left was seen happening.
pub(super) type Told = (String, Option<Said>, bool);

impl Known {
    /// Nothing yet, below this prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..Self::default() }
    }

    /// Nothing, to be filled from a list. Malformed records that were named are not named again.
    pub(super) fn again(&self) -> Self {
        Self { named: self.named.clone(), ..Self::new(&self.prefix) }
    }

    /// Takes a key with its value. Returns what is wrong with it, once for each change of a key.
    pub(super) fn put(&mut self, kv: KeyValue) -> Option<String> {
        let KeyValue { key, mod_revision, value } = kv;
        self.keys.insert(key.clone(), mod_revision);
        let names = record::split(&self.prefix, &key);
        let read = names.clone().and_then(|names| Ok((names, Record::parse(&value)?)));
        match read {
            Ok(((service, id), record)) => {
                self.named.remove(&key);
                let instances = self.services.entry(service.to_owned()).or_default();
                instances.insert(id.to_owned(), record.instance(id));
                self.changed.entry(service.to_owned()).or_insert(true);
                None
            }
            Err(why) => {
                // Who writes nonsense over a good record may be wrong: this is not believed as a removal is.
                if let Ok((service, id)) = names {
                    self.remove(service, id, false);
                }
                let again = self.named.insert(key.clone(), mod_revision) == Some(mod_revision);
                (!again).then(|| format!("{}: {why}", shown(&key)))
            }
        }
    }

    /// Takes a key out.
    pub(super) fn delete(&mut self, key: &[u8]) {
        self.keys.remove(key);
        self.named.remove(key);
        if let Ok((service, id)) = record::split(&self.prefix.clone(), key) {
            self.remove(service, id, true);
        }
    }

    fn remove(&mut self, service: &str, id: &str, certain: bool) {
        let Some(instances) = self.services.get_mut(service) else { return };
        if instances.remove(id).is_none() {
            return;
        }
        if instances.is_empty() {
            self.services.remove(service);
        }
        *self.changed.entry(service.to_owned()).or_insert(true) &= certain;
    }

    /// The list is complete: everything is to be told, and malformed records that are gone may be forgotten.
    pub(super) fn listed(&mut self) {
        let keys = &self.keys;
        self.named.retain(|key, _| keys.contains_key(key));
    }

    /// Whether something has not been told yet.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What has not been told yet.
    pub(super) fn changes(&mut self) -> Vec<Told> {
        let told = |(service, certain): (String, bool)| {
            let instances = self.services.get(&service);
            let said = instances.map(|i| Said { instances: i.values().cloned().collect(), description: None });
            (service, said, certain)
        };
        std::mem::take(&mut self.changed).into_iter().map(told).collect()
    }

    /// How many keys there are.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether a key is there, last changed at this revision.
    pub(super) fn has(&self, key: &[u8], revision: i64) -> bool {
        self.keys.get(key) == Some(&revision)
    }

    /// When a key was last changed that is still there; 0: there is none.
    pub(super) fn newest(&self) -> i64 {
        self.keys.values().copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kv(key: &str, mod_revision: i64, value: &str) -> KeyValue {
        KeyValue { key: format!("/p/{key}").into_bytes(), mod_revision, value: value.as_bytes().to_vec() }
    }

    fn at(host: u8) -> String {
        format!(r#"{{"address":"10.0.0.{host}:80"}}"#)
    }

    fn ids(told: &Told) -> Option<Vec<&str>> {
        told.1.as_ref().map(|said| said.instances.iter().map(|i| i.id.as_str()).collect())
    }

    #[test]
    fn a_burst_is_one_change_a_service() {
        let mut known = Known::new("/p");
        for i in 0..10_000 {
            assert_eq!(known.put(kv(&format!("shop/{i}"), i, &at(1))), None);
        }
        known.put(kv("cart/a", 10_001, &at(2)));
        let changes = known.changes();
        assert_eq!(changes.len(), 2);
        assert_eq!(ids(&changes[1]).unwrap().len(), 10_000);
        assert!(!known.is_changed());
        assert_eq!((known.count(), known.newest()), (10_001, 10_001));
    }

    #[test]
    fn who_was_deleted_is_gone_for_certain_and_who_was_spoilt_is_not() {
        let mut known = Known::new("/p");
        known.put(kv("shop/a", 1, &at(1)));
        known.put(kv("cart/a", 2, &at(2)));
        known.changes();
        known.delete(b"/p/shop/a");
        assert!(known.put(kv("cart/a", 3, "oops")).is_some());
        assert_eq!(known.changes(), [("cart".to_owned(), None, false), ("shop".to_owned(), None, true)]);
    }

    #[test]
    fn a_malformed_record_is_named_once_a_change_and_spoils_nothing_else() {
        let mut known = Known::new("/p");
        known.put(kv("shop/a", 1, &at(1)));
        let why = known.put(kv("shop/b", 2, "oops")).unwrap();
        assert!(why.starts_with("/p/shop/b: not the JSON of an instance"), "{why}");
        assert!(known.put(kv("Shop", 3, &at(3))).unwrap().contains("/p/SERVICE/INSTANCE"));
        assert_eq!(ids(&known.changes()[0]), Some(vec!["a"]));
        let mut listed = known.again();
        assert_eq!(listed.put(kv("shop/a", 1, &at(1))), None);
        assert_eq!(listed.put(kv("shop/b", 2, "oops")), None, "named before");
        assert!(listed.put(kv("shop/b", 4, "oops")).is_some(), "another change");
        listed.listed();
        assert_eq!(listed.named.len(), 1, "what is gone is forgotten");
        assert_eq!(listed.count(), 2);
    }

    proptest! {
        #[test]
        fn events_lead_to_what_a_list_says(events in prop::collection::vec((0u8..3, 0u8..4, prop::option::of(0u8..8)), 0..60)) {
            let mut followed = Known::new("/p");
            let mut stands = BTreeMap::new();
            for (i, (service, id, value)) in events.into_iter().enumerate() {
                let key = format!("s{service}/{id}");
                match value {
                    // One value is malformed.
                    Some(value) => {
                        let text = if value == 7 { "oops".to_owned() } else { at(value) };
                        let revision = i64::try_from(i).unwrap() + 1;
                        followed.put(kv(&key, revision, &text));
                        stands.insert(key, (revision, text));
                    }
                    None => {
                        followed.delete(format!("/p/{key}").as_bytes());
                        stands.remove(&key);
                    }
                }
            }
            let mut listed = Known::new("/p");
            for (key, (revision, text)) in &stands {
                listed.put(kv(key, *revision, text));
            }
            prop_assert_eq!(&followed.services, &listed.services);
            prop_assert_eq!((followed.count(), followed.newest()), (listed.count(), listed.newest()));
        }
    }
}
