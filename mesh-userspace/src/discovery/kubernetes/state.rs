//! What is known of a cluster, and which services follow from it anew. Pure.

use super::{
    objects::{Kept, Service, Slice},
    translate::{Here, translate},
};
use crate::discovery::Said;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Services and slices of the watched namespaces.
#[derive(Debug, Default)]
pub(super) struct State {
    here: Here,
    /// By `NAMESPACE/NAME`.
    services: HashMap<String, Service>,
    /// By the service's `NAMESPACE/NAME`, and their own.
    slices: HashMap<String, BTreeMap<String, Slice>>,
    /// To which service a slice belongs.
    owners: HashMap<String, String>,
    /// The keys under which a service was told.
    told: HashMap<String, Vec<String>>,
    /// Services to be told anew, and whether all that changed was an event.
    dirty: BTreeMap<String, bool>,
    /// What is wrong with objects as they are.
    skipped: HashMap<String, Vec<String>>,
}

/// One service to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Telling {
    pub(super) key: String,
    pub(super) said: Option<Said>,
    /// Whether it follows from events, and not from a list.
    pub(super) certain: bool,
}

impl State {
    /// Nothing is known but where this node is.
    pub(super) fn new(here: Here) -> Self {
        Self { here, ..Self::default() }
    }

    /// This node is somewhere else than was known.
    pub(super) fn set_zone(&mut self, zone: &str) {
        if self.here.zone != zone {
            zone.clone_into(&mut self.here.zone);
            let all: Vec<String> = self.services.keys().cloned().collect();
            all.into_iter().for_each(|key| self.touch(key, true));
        }
    }

    fn touch(&mut self, service: String, certain: bool) {
        self.dirty.entry(service).and_modify(|before| *before &= certain).or_insert(certain);
    }

    /// A service is another one, or new.
    pub(super) fn set_service(&mut self, service: Service, certain: bool) {
        let key = service.key();
        if self.services.get(&key) != Some(&service) {
            self.services.insert(key.clone(), service);
            self.touch(key, certain);
        }
    }

    /// A service is gone.
    pub(super) fn remove_service(&mut self, key: &str, certain: bool) {
        if self.services.remove(key).is_some() {
            self.touch(key.to_owned(), certain);
        }
    }

    /// A slice is another one, or new.
    pub(super) fn set_slice(&mut self, slice: Slice, certain: bool) {
        let key = slice.key();
        let owner = format!("{}/{}", slice.namespace, slice.service);
        if self.owners.get(&key).is_some_and(|before| *before != owner) {
            self.remove_slice(&key, certain);
        }
        // One that is of no service is of no use.
        if slice.service.is_empty() {
            return;
        }
        let slices = self.slices.entry(owner.clone()).or_default();
        if slices.get(&key) != Some(&slice) {
            slices.insert(key.clone(), slice);
            self.owners.insert(key, owner.clone());
            self.touch(owner, certain);
        }
    }

    /// A slice is gone.
    pub(super) fn remove_slice(&mut self, key: &str, certain: bool) {
        let Some(owner) = self.owners.remove(key) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.touch(owner, certain);
    }

    /// These are all services of a namespace, or of all.
    pub(super) fn list_services(&mut self, services: Vec<Service>, namespace: Option<&str>) {
        let named: HashSet<String> = services.iter().map(Kept::key).collect();
        let gone: Vec<String> = gone(self.services.keys(), &named, namespace);
        gone.iter().for_each(|key| self.remove_service(key, false));
        services.into_iter().for_each(|service| self.set_service(service, false));
    }

    /// These are all slices of a namespace, or of all.
    pub(super) fn list_slices(&mut self, slices: Vec<Slice>, namespace: Option<&str>) {
        let named: HashSet<String> = slices.iter().map(Kept::key).collect();
        let gone: Vec<String> = gone(self.owners.keys(), &named, namespace);
        gone.iter().for_each(|key| self.remove_slice(key, false));
        slices.into_iter().for_each(|slice| self.set_slice(slice, false));
    }

    /// What is to be told of what changed, and what is newly wrong with it.
    pub(super) fn tell(&mut self) -> (Vec<Telling>, Vec<String>) {
        let (mut tellings, mut problems) = (Vec::new(), Vec::new());
        for (key, certain) in std::mem::take(&mut self.dirty) {
            let translated = self.services.get(&key).map(|service| {
                let slices: Vec<&Slice> = self.slices.get(&key).into_iter().flat_map(BTreeMap::values).collect();
                translate(service, &slices, &self.here)
            });
            let translated = translated.unwrap_or_default();
            let known = self.skipped.remove(&key).unwrap_or_default();
            problems.extend(translated.skipped.iter().filter(|why| !known.contains(why)).cloned());
            if !translated.skipped.is_empty() {
                self.skipped.insert(key.clone(), translated.skipped);
            }
            let keys: Vec<String> = translated.ports.iter().map(|(key, _)| key.clone()).collect();
            let before = match keys.is_empty() {
                true => self.told.remove(&key),
                false => self.told.insert(key, keys.clone()),
            };
            let gone = before.into_iter().flatten().filter(|key| !keys.contains(key));
            tellings.extend(gone.map(|key| Telling { key, said: None, certain }));
            let said = translated.ports.into_iter();
            tellings.extend(said.map(|(key, said)| Telling { key, said: Some(said), certain }));
        }
        (tellings, problems)
    }
}

/// Which keys of a namespace, or of all, are not named any more.
fn gone<'a>(keys: impl Iterator<Item = &'a String>, named: &HashSet<String>, namespace: Option<&str>) -> Vec<String> {
    let within = |key: &str| namespace.is_none_or(|n| key.strip_prefix(n).is_some_and(|rest| rest.starts_with('/')));
    keys.filter(|key| within(key) && !named.contains(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(key: &str, ports: &[u16]) -> Service {
        let (namespace, name) = key.split_once('/').unwrap();
        let ports: Vec<_> = ports.iter().map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
        let raw = json!({
            "metadata": { "name": name, "namespace": namespace }, "spec": { "clusterIP": "10.96.0.1", "ports": ports },
        });
        serde_json::from_value(raw).unwrap()
    }

    fn slice(key: &str, service: &str, addresses: &[&str]) -> Slice {
        let (namespace, name) = key.split_once('/').unwrap();
        let endpoints: Vec<_> = addresses.iter().map(|a| json!({ "addresses": [a] })).collect();
        let raw = json!({
            "metadata": {
                "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "p80", "port": 8080 }, { "name": "p81", "port": 8081 }],
        });
        Slice::keep(serde_json::from_value(raw).unwrap(), &mut Vec::new()).unwrap()
    }

    fn state() -> State {
        let mut state = State::new(Here::default());
        state.list_services(vec![service("shop/web", &[80, 81]), service("shop/cart", &[80])], None);
        state.list_slices(
            vec![slice("shop/web-1", "web", &["10.1.0.1"]), slice("shop/web-2", "web", &["10.1.0.2"])],
            None,
        );
        state
    }

    /// Key, number of endpoints, and whether it is certain.
    fn told(state: &mut State) -> Vec<(String, Option<usize>, bool)> {
        let (tellings, problems) = state.tell();
        assert_eq!(problems, [""; 0]);
        tellings.into_iter().map(|t| (t.key, t.said.map(|said| said.instances.len()), t.certain)).collect()
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let mut state = state();
        let all = [("shop/cart", Some(0), false), ("shop/web", Some(2), false), ("shop/web:p81", Some(2), false)];
        assert_eq!(told(&mut state), all.map(|(key, n, certain)| (key.to_owned(), n, certain)));
        state.set_slice(slice("shop/web-2", "web", &["10.1.0.2"]), true);
        assert_eq!(told(&mut state), [], "the same again");
        state.set_slice(slice("shop/web-2", "web", &["10.1.0.2", "10.1.0.3"]), true);
        state.set_slice(slice("shop/web-3", "web", &["10.1.0.3"]), true);
        let web = [("shop/web", Some(3), true), ("shop/web:p81", Some(3), true)];
        assert_eq!(told(&mut state), web.map(|(key, n, certain)| (key.to_owned(), n, certain)));
        state.set_service(service("shop/web", &[80]), true);
        assert_eq!(told(&mut state), [("shop/web:p81".to_owned(), None, true), ("shop/web".to_owned(), Some(3), true)]);
        state.remove_service("shop/web", true);
        assert_eq!(told(&mut state), [("shop/web".to_owned(), None, true)]);
        state.set_service(service("shop/web", &[80]), true);
        assert_eq!(told(&mut state), [("shop/web".to_owned(), Some(3), true)], "its slices were there before it");
    }

    #[test]
    fn what_a_list_does_not_name_is_gone_and_not_certainly_so() {
        let mut state = state();
        let _ = state.tell();
        state.list_slices(vec![slice("shop/web-1", "web", &["10.1.0.1"])], Some("other"));
        assert_eq!(told(&mut state), [], "another namespace says nothing of this one");
        state.list_slices(vec![slice("shop/web-1", "web", &["10.1.0.1"])], Some("shop"));
        state.list_services(vec![service("shop/web", &[80, 81])], None);
        let all = [("shop/cart", None, false), ("shop/web", Some(1), false), ("shop/web:p81", Some(1), false)];
        assert_eq!(told(&mut state), all.map(|(key, n, certain)| (key.to_owned(), n, certain)));
    }

    #[test]
    fn a_slice_may_go_from_one_service_to_another() {
        let mut state = state();
        let _ = state.tell();
        state.set_slice(slice("shop/web-2", "cart", &["10.1.0.2"]), true);
        let all = [("shop/cart", Some(1), true), ("shop/web", Some(1), true), ("shop/web:p81", Some(1), true)];
        assert_eq!(told(&mut state), all.map(|(key, n, certain)| (key.to_owned(), n, certain)));
        state.remove_slice("shop/web-1", true);
        let all = [("shop/web", Some(0), true), ("shop/web:p81", Some(0), true)];
        assert_eq!(told(&mut state), all.map(|(key, n, certain)| (key.to_owned(), n, certain)));
    }
}
