//! Which endpoints a service has that several sources know.

use super::{Said, Source, owners::Owners};
use crate::model::{self, Endpoint, Service};
use std::{borrow::Cow, collections::HashSet, net::SocketAddr};

/// `base`, as files or descriptions have it, with the endpoints that the sources name.
///
/// An address stands once. Of several that name it the first counts, whole: the files, then the sources in their order,
/// then the lesser id. What is wrong with the others is returned, by source: nobody can be reached there, or it is the VIP of
/// one of the `owners`, and connections would go round in a circle or nowhere.
pub(super) fn merge(
    mut base: Service,
    said: &[(Source, &Said)],
    refused: &HashSet<SocketAddr>,
    owners: &Owners,
) -> (Service, Vec<(Source, String)>) {
    let mut problems = Vec::new();
    let vips: HashSet<SocketAddr> = base.addresses.iter().copied().collect();
    let mut known: HashSet<SocketAddr> = base.endpoints.iter().map(|e| e.address).collect();
    for (source, said) in said {
        let mut instances: Vec<_> = said.instances.iter().collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        for instance in instances {
            let mut endpoint: Endpoint = instance.endpoint.clone();
            endpoint.address = canonical(endpoint.address);
            let wrong: Result<(), Cow<'_, str>> = match owners.of(endpoint.address) {
                _ if vips.contains(&endpoint.address) => Err("its own VIP".into()),
                Some(owner) if owner == base.name => Err("its own VIP".into()),
                Some(owner) => Err(format!("a VIP of the service {owner}").into()),
                None => acceptable(endpoint.address, refused).map_err(Cow::from),
            };
            if let Err(why) = wrong {
                problems.push((*source, format!("{} {} of {}: {why}", instance.id, endpoint.address, base.name)));
            } else if known.insert(endpoint.address) {
                base.endpoints.push(endpoint);
            }
        }
    }
    // In one order whoever spoke first, so that what did not change is not laid out anew.
    base.endpoints.sort_by_key(|e| e.address);
    (base, problems)
}

/// The IPv4 address of one that is mapped into IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why nobody can be reached there, if so.
pub(super) fn acceptable(address: SocketAddr, refused: &HashSet<SocketAddr>) -> Result<(), &'static str> {
    model::check_endpoint(address)?;
    if refused.contains(&address) { Err("where this daemon itself listens") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{super::Instance, *};
    use crate::model::tests::service;
    use proptest::prelude::*;

    fn said(instances: &[(&str, &str, u16)]) -> Said {
        let instance = |(id, address, weight): &(&str, &str, u16)| Instance {
            id: (*id).to_owned(),
            endpoint: Endpoint { weight: *weight, ..Endpoint::new(address.parse().unwrap()) },
        };
        Said { instances: instances.iter().map(instance).collect(), description: None }
    }

    #[test]
    fn of_several_that_name_an_address_the_first_counts() {
        let base = service("web", &["10.0.0.1:80"]);
        let registry = said(&[("b", "10.0.0.2:80", 7), ("a", "10.0.0.2:80", 5), ("c", "10.0.0.1:80", 9)]);
        let dns = said(&[("x", "10.0.0.2:80", 3), ("y", "[::ffff:10.0.0.3]:80", 1)]);
        let sources = [(Source::Registry, &registry), (Source::Dns, &dns)];
        let (merged, problems) = merge(base, &sources, &HashSet::new(), &Owners::default());
        let seen: Vec<_> = merged.endpoints.iter().map(|e| (e.address.to_string(), e.weight)).collect();
        let expected = [("10.0.0.1:80".to_owned(), 1), ("10.0.0.2:80".to_owned(), 5), ("10.0.0.3:80".to_owned(), 1)];
        assert_eq!(seen, expected);
        assert_eq!(problems, []);
    }

    #[test]
    fn what_nobody_can_be_reached_at_is_left_out_alone() {
        let bad = said(&[
            ("a", "0.0.0.0:80", 1),
            ("b", "224.0.0.1:80", 1),
            ("c", "10.0.0.1:0", 1),
            ("d", "10.0.0.1:15001", 1),
        ]);
        let own = HashSet::from(["10.0.0.1:15001".parse().unwrap()]);
        let (merged, problems) = merge(service("web", &[]), &[(Source::Etcd, &bad)], &own, &Owners::default());
        assert_eq!(merged.endpoints, []);
        assert_eq!(problems.len(), 4);
        assert!(problems[0].1.contains("a 0.0.0.0:80 of web: not a unicast address"), "{problems:?}");
    }

    proptest! {
        #[test]
        fn an_address_stands_once_and_in_one_order(addresses in prop::collection::vec((0u8..6, 0u8..4), 0..40)) {
            let instances = addresses.iter().enumerate().map(|(i, (a, id))| Instance {
                id: format!("{id}-{i}"),
                endpoint: Endpoint::new(SocketAddr::from(([10, 0, 0, *a], 80))),
            });
            let forward = Said { instances: instances.clone().collect(), description: None };
            let backward = Said { instances: instances.rev().collect(), description: None };
            let base = service("web", &["10.0.0.1:80"]);
            let (one, _) = merge(base.clone(), &[(Source::Etcd, &forward)], &HashSet::new(), &Owners::default());
            let (other, _) = merge(base, &[(Source::Etcd, &backward)], &HashSet::new(), &Owners::default());
            prop_assert_eq!(&one, &other);
            let distinct: HashSet<_> = one.endpoints.iter().map(|e| e.address).collect();
            prop_assert_eq!(distinct.len(), one.endpoints.len());
        }
    }
}
