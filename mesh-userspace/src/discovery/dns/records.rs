//! Who serves a service by records of the DNS.

use crate::{discovery::Instance, model::Endpoint};
use std::net::{IpAddr, SocketAddr};

/// What a record of the type SRV says (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Srv {
    /// The least counts, as long as anybody there has an address.
    pub(super) priority: u16,
    /// The share among those of one priority.
    pub(super) weight: u16,
    /// Where the service listens there.
    pub(super) port: u16,
    /// A name with addresses, lower case, without the dot at the end.
    pub(super) target: String,
}

/// How much more than a weight of 0 any other weight is, as far as there is room for it.
const MORE_THAN_NONE: u16 = 100;

/// An instance for each address, at one port.
pub(super) fn by_addresses(port: u16, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Instance> {
    let instance = |ip: IpAddr| Instance { id: ip.to_string(), endpoint: Endpoint::new(SocketAddr::new(ip, port)) };
    addresses.into_iter().map(instance).collect()
}

/// Those of the best priority in which anybody has an address. `addresses` are those of a target.
///
/// A weight of 0 is a small share and not none (RFC 2782), while an endpoint of weight 0 gets nothing: it becomes 1, and
/// the other weights become up to a hundred times what they are.
pub(super) fn by_services(records: &[Srv], addresses: impl Fn(&str) -> Vec<IpAddr>) -> Vec<Instance> {
    let mut records: Vec<&Srv> = records.iter().collect();
    records.sort();
    for same in records.chunk_by(|a, b| a.priority == b.priority) {
        let scale = scale(same.iter().map(|srv| srv.weight));
        let instances: Vec<Instance> = same
            .iter()
            .flat_map(|srv| addresses(&srv.target).into_iter().map(|ip| (*srv, ip)))
            .map(|(srv, ip)| Instance {
                id: format!("{}:{}/{ip}", srv.target, srv.port),
                endpoint: Endpoint {
                    weight: srv.weight.saturating_mul(scale).max(1),
                    ..Endpoint::new(SocketAddr::new(ip, srv.port))
                },
            })
            .collect();
        if !instances.is_empty() {
            return instances;
        }
    }
    Vec::new()
}

fn scale(weights: impl Iterator<Item = u16> + Clone) -> u16 {
    let most = weights.clone().max().unwrap_or(0);
    if most == 0 || weights.min() != Some(0) { 1 } else { (u16::MAX / most).min(MORE_THAN_NONE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv { priority, weight, port: 8080, target: target.to_owned() }
    }

    fn weights(records: &[Srv], known: &[&str]) -> Vec<(String, u16)> {
        let addresses = |target: &str| match known.iter().position(|name| *name == target) {
            Some(i) => vec![IpAddr::from([10, 0, 0, u8::try_from(i).unwrap() + 1])],
            None => Vec::new(),
        };
        let instances = by_services(records, addresses);
        instances.into_iter().map(|i| (i.endpoint.address.to_string(), i.endpoint.weight)).collect()
    }

    #[test]
    fn only_the_best_priority_counts_in_which_somebody_has_an_address() {
        let records = [srv(20, 5, "c"), srv(10, 7, "b"), srv(10, 3, "x"), srv(0, 1, "gone")];
        assert_eq!(weights(&records, &["a", "b", "c"]), [("10.0.0.2:8080".to_owned(), 7)]);
        assert_eq!(weights(&records, &["a", "z", "c"]), [("10.0.0.3:8080".to_owned(), 5)]);
        assert_eq!(weights(&records, &[]), []);
    }

    #[test]
    fn a_weight_of_0_is_little_and_not_nothing() {
        let of = |weights_of: &[u16]| {
            let names = ["a", "b", "c"];
            let records: Vec<_> = weights_of.iter().zip(names).map(|(w, name)| srv(0, *w, name)).collect();
            weights(&records, &names).into_iter().map(|(_, weight)| weight).collect::<Vec<_>>()
        };
        assert_eq!(of(&[0, 0]), [1, 1]);
        assert_eq!(of(&[0, 2, 1]), [1, 100, 200], "in the order of weights");
        assert_eq!(of(&[0, 65535]), [1, 65535]);
        assert_eq!(of(&[5, 10]), [5, 10], "as they are");
    }

    proptest! {
        #[test]
        fn everybody_gets_something_and_nobody_less_than_one_of_less_weight(
            given in prop::collection::vec(any::<u16>(), 1..20)
        ) {
            let records: Vec<Srv> =
                given.iter().enumerate().map(|(i, w)| srv(1, *w, &format!("{i:03}"))).collect();
            let address = |target: &str| {
                let number: u8 = target.parse().unwrap();
                vec![IpAddr::from([10, 0, 0, number])]
            };
            let mut made: Vec<(u16, u16)> = by_services(&records, address)
                .into_iter()
                .map(|i| {
                    let IpAddr::V4(ip) = i.endpoint.address.ip() else { unreachable!() };
                    (given[usize::from(ip.octets()[3])], i.endpoint.weight)
                })
                .collect();
            made.sort_unstable();
            prop_assert_eq!(made.len(), given.len());
            prop_assert!(made.iter().all(|(_, weight)| *weight >= 1));
            prop_assert!(made.windows(2).all(|two| two[0].1 <= two[1].1));
        }
    }
}
