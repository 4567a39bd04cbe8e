//! Which service has a name.

use crate::model::Service;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

/// Below this name all that there is are services.
pub(super) const ZONE: &str = "mesh";

/// Names that mean something to programs although no server may know them: not for whoever registers first.
const RESERVED: [&str; 5] = ["invalid", "isatap", "local", "localhost", "wpad"];

/// The names of services, as they were at one moment.
#[derive(Debug, Default)]
pub struct Table {
    services: HashMap<String, Arc<Entry>>,
    hosts: HashMap<String, Arc<Entry>>,
    /// What names of services end with: `shop` for `checkout.shop`.
    ends: HashSet<String>,
    /// What it was made of.
    made_of: Vec<(Arc<Service>, bool)>,
}

/// A service that can be dialled by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) vips: Vec<SocketAddr>,
    /// Whether it is called so by nobody but those who registered instances of it.
    registered: bool,
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'t> {
    /// This service.
    Service(&'t Entry),
    /// This service, unless others know the name: it is only what somebody registered.
    Unless(&'t Entry),
    /// Nothing, but there are names below it.
    Between,
    /// Nothing, and nobody else knows better.
    Nothing,
    /// Whatever others say.
    Elsewhere,
}

impl Table {
    /// The names of these services, each with whether it is called so by nobody but those who registered instances of it. Of
    /// two services with one name the first has it; its own name comes before another's `hosts`, and after them where it is
    /// only registered.
    #[must_use]
    pub fn new<'s>(services: impl Iterator<Item = (&'s Arc<Service>, bool)>) -> Self {
        let made_of: Vec<_> = services.map(|(service, registered)| (Arc::clone(service), registered)).collect();
        let mut table = Self::default();
        for (service, registered) in &made_of {
            let (name, vips) = (service.name.clone(), service.addresses.clone());
            let entry = Arc::new(Entry { name, vips, registered: *registered });
            for host in &service.hosts {
                table.hosts.entry(host.trim_end_matches('.').to_owned()).or_insert_with(|| Arc::clone(&entry));
            }
            let mut rest = service.name.as_str();
            while let Some((_, end)) = rest.split_once('.') {
                if !table.ends.contains(end) {
                    table.ends.insert(end.to_owned());
                }
                rest = end;
            }
            table.services.entry(service.name.clone()).or_insert(entry);
        }
        table.made_of = made_of;
        table
    }

    /// Whether [`Table::new`] would make the same table of these services.
    #[must_use]
    pub fn is_of<'s>(&self, mut services: impl Iterator<Item = (&'s Arc<Service>, bool)>) -> bool {
        let same = |(a, of_a): &(Arc<Service>, bool), (b, of_b): (&Arc<Service>, bool)| {
            let alike = || a.name == b.name && a.addresses == b.addresses && a.hosts == b.hosts;
            *of_a == of_b && (Arc::ptr_eq(a, b) || alike())
        };
        let mut mine = self.made_of.iter();
        let all = services.all(|theirs| mine.next().is_some_and(|mine| same(mine, theirs)));
        all && mine.next().is_none()
    }

    /// What a name stands for: lower case, without the dot at the end.
    pub(super) fn find(&self, name: &str) -> Found<'_> {
        if name == ZONE {
            return Found::Between;
        }
        let Some(inner) = name.strip_suffix(ZONE).and_then(|rest| rest.strip_suffix('.')) else {
            // Where there is no address others may know one.
            let known = self.known([name], name).filter(|entry| !entry.vips.is_empty());
            return match known {
                None => Found::Elsewhere,
                Some(entry) if !entry.registered => Found::Service(entry),
                // A name with a dot in it belongs to somebody, be it that it does not exist.
                Some(_) if name.contains('.') || RESERVED.contains(&name) => Found::Elsewhere,
                Some(entry) => Found::Unless(entry),
            };
        };
        match self.known([inner, name], name) {
            Some(entry) => Found::Service(entry),
            None if self.ends.contains(inner) => Found::Between,
            None => Found::Nothing,
        }
    }

    /// The service that is called by one of these names, else the one with `host` among its hosts, else one that is only
    /// registered by one of them.
    fn known<const N: usize>(&self, names: [&str; N], host: &str) -> Option<&Entry> {
        let named = || names.into_iter().filter_map(|name| self.services.get(name));
        let known = named().find(|entry| !entry.registered).or_else(|| self.hosts.get(host));
        known.or_else(|| named().next()).map(|entry| &**entry)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::tests::service;

    pub(in super::super) fn with(name: &str, vips: &[&str], hosts: &[&str]) -> Arc<Service> {
        Arc::new(Service {
            addresses: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..service(name, &[])
        })
    }

    /// The table of services that somebody has a say over, and of some that were only registered.
    pub(in super::super) fn table_of(declared: &[Arc<Service>], registered: &[Arc<Service>]) -> Table {
        Table::new(named(declared, registered))
    }

    fn named<'s>(
        declared: &'s [Arc<Service>],
        registered: &'s [Arc<Service>],
    ) -> impl Iterator<Item = (&'s Arc<Service>, bool)> {
        declared.iter().map(|service| (service, false)).chain(registered.iter().map(|service| (service, true)))
    }

    fn table() -> Table {
        let declared = [
            with("shop", &["240.1.0.1:80"], &["www.example.com", "cart.shop", "api.mesh"]),
            with("cart.shop", &["240.1.0.2:80"], &["shop"]),
            with("bare", &[], &["bare.example.com"]),
        ];
        table_of(&declared, &[])
    }

    #[test]
    fn a_service_is_found_by_its_name_with_and_without_the_zone_and_by_its_hosts() {
        let table = table();
        let found = |name: &str| match table.find(name) {
            Found::Service(entry) => entry.name.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(["shop", "shop.mesh", "www.example.com"].map(found), ["shop"; 3]);
        assert_eq!(["cart.shop", "cart.shop.mesh"].map(found), ["cart.shop"; 2]);
    }

    #[test]
    fn within_the_zone_nobody_else_is_asked_and_outside_of_it_only_where_there_is_no_address() {
        let table = table();
        for name in ["nobody.mesh", "x.shop.mesh", "mesh.mesh"] {
            assert_eq!(table.find(name), Found::Nothing, "{name}");
        }
        assert_eq!(table.find("mesh"), Found::Between);
        let table = table_of(&[with("a.b.c", &[], &[])], &[]);
        assert_eq!(["b.c.mesh", "c.mesh"].map(|name| table.find(name)), [Found::Between, Found::Between]);
        assert!(matches!(table.find("a.b.c.mesh"), Found::Service(_)));
        for name in ["a.b.c", "example.com", "xmesh", ""] {
            assert_eq!(table.find(name), Found::Elsewhere, "{name}");
        }
    }

    #[test]
    fn it_is_known_whether_anything_changed() {
        let one = [with("a", &["240.1.0.1:80"], &[])];
        let table = table_of(&one, &[]);
        assert!(table.is_of(named(&one, &[])) && table.is_of(named(&[with("a", &["240.1.0.1:80"], &[])], &[])));
        assert!(!table.is_of(named(&[with("a", &["240.1.0.2:80"], &[])], &[])) && !table.is_of(named(&[], &[])));
        assert!(!table.is_of(named(&one, &one)) && !table.is_of(named(&[], &one)));
    }

    #[test]
    fn who_registers_takes_no_name_that_means_something_to_others() {
        let names = ["cart", "github.com", "com", "localhost", "wpad", "shop.mesh", "api", "www.example.com"];
        let registered = names.map(|name| with(name, &["240.1.0.9:80"], &[]));
        let declared = [with("shop", &["240.1.0.1:80"], &["www.example.com", "api.mesh", "cart.example.com"])];
        let table = table_of(&declared, &registered);
        for name in names {
            let full = format!("{name}.mesh");
            let owner = if name == "api" { "shop" } else { name };
            assert!(matches!(table.find(&full), Found::Service(entry) if entry.name == owner), "{full}");
        }
        for name in ["github.com", "localhost", "wpad"] {
            assert_eq!(table.find(name), Found::Elsewhere, "{name}");
        }
        for name in ["cart", "com", "api"] {
            assert!(matches!(table.find(name), Found::Unless(entry) if entry.name == name), "{name}");
        }
        for name in ["shop", "shop.mesh", "api.mesh", "www.example.com"] {
            assert!(matches!(table.find(name), Found::Service(entry) if entry.name == "shop"), "{name}");
        }
        let again = table_of(&registered, &[]);
        assert!(matches!(again.find("github.com"), Found::Service(_)), "the operator may");
    }
}
