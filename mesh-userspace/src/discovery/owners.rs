//! Whose an address is that two services want.

use crate::model::Service;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

/// Which service has which VIP.
#[derive(Debug, Default)]
pub(super) struct Owners {
    of: HashMap<SocketAddr, String>,
    /// Addresses that became a VIP, or are none any more.
    news: HashSet<SocketAddr>,
}

impl Owners {
    /// The service whose VIP an address is.
    pub(super) fn of(&self, address: SocketAddr) -> Option<&str> {
        self.of.get(&address).map(String::as_str)
    }

    /// Addresses that became a VIP since this was asked last, or are none any more.
    pub(super) fn take_news(&mut self) -> HashSet<SocketAddr> {
        std::mem::take(&mut self.news)
    }

    /// Leaves each address with one of the services: with whom the files give it to (`files` are the first of the services,
    /// as the files have them, and contest nothing among each other); then with who had it before; then with the first.
    /// Returns what was taken from whom.
    pub(super) fn settle(&mut self, services: &mut [Arc<Service>], files: &[Arc<Service>]) -> Vec<String> {
        fn claims(services: &[Arc<Service>]) -> Vec<(usize, SocketAddr)> {
            let numbered = services.iter().enumerate();
            numbered.flat_map(|(i, service)| service.addresses.iter().map(move |a| (i, *a))).collect()
        }
        let mut owners: HashMap<SocketAddr, usize> = HashMap::with_capacity(self.of.len());
        for (i, address) in claims(files) {
            owners.entry(address).or_insert(i);
        }
        let wanted = claims(services);
        for (i, address) in &wanted {
            if self.of.get(address).is_some_and(|owner| *owner == services[*i].name) {
                owners.entry(*address).or_insert(*i);
            }
        }
        let mut problems = Vec::new();
        for (i, address) in wanted {
            let owner = *owners.entry(address).or_insert(i);
            if owner != i {
                let (loser, owner) = (services[i].name.clone(), &services[owner].name);
                problems.push(format!("{address} belongs to the service {owner}: {loser} does not get it"));
                Arc::make_mut(&mut services[i]).addresses.retain(|a| *a != address);
            }
        }
        self.news.extend(owners.keys().filter(|address| !self.of.contains_key(*address)));
        self.news.extend(self.of.keys().filter(|address| !owners.contains_key(*address)));
        self.of = owners.into_iter().map(|(address, i)| (address, services[i].name.clone())).collect();
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::service;

    fn wanting(name: &str, address: &str) -> Arc<Service> {
        Arc::new(Service { addresses: vec![address.parse().unwrap()], ..service(name, &[]) })
    }

    #[test]
    fn an_address_stays_with_who_has_it_and_files_come_first() {
        let mut owners = Owners::default();
        let vip = "10.96.0.1:80";
        let mut services = vec![wanting("m", vip)];
        assert!(owners.settle(&mut services, &[]).is_empty());
        let mut services = vec![wanting("a", vip), wanting("m", vip)];
        let problems = owners.settle(&mut services, &[]);
        assert_eq!(problems, ["10.96.0.1:80 belongs to the service m: a does not get it"]);
        assert_eq!((services[0].addresses.len(), services[1].addresses.len()), (0, 1));
        let mut services = vec![wanting("files", vip), wanting("a", vip), wanting("m", vip)];
        assert_eq!(owners.settle(&mut services, &[wanting("files", vip)]).len(), 2);
        let mut services = vec![wanting("a", vip)];
        assert!(owners.settle(&mut services, &[]).is_empty(), "free again");
    }
}
