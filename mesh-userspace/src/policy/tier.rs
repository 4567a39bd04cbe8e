//! How near is an endpoint?
//!
//! Only names are compared, and an empty name is no name: two endpoints about which nothing is known are not in the same
//! zone. What cannot be known is remote, so that a preference never sends traffic to a place that nobody named as near.

use crate::model::{Endpoint, Node, Prefer};

/// How near an endpoint is; a smaller one is nearer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tier {
    /// Locality has no say.
    #[default]
    Any = 0,
    /// On the same node.
    Node = 1,
    /// In the same zone.
    Zone = 2,
    /// In the same region.
    Region = 3,
    /// Elsewhere, or nobody knows where.
    Remote = 4,
}

impl Tier {
    /// How many there are.
    pub const COUNT: usize = 5;

    /// Every tier, nearest first.
    pub const ALL: [Self; Self::COUNT] = [Self::Any, Self::Node, Self::Zone, Self::Region, Self::Remote];

    /// The word in JSON, tables and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Remote => "remote",
        }
    }
}

/// How near `endpoint` is to `node`, as far as `prefer` asks.
///
/// [`Tier::Any`] for every endpoint where locality has no say: nothing is preferred, or the node does not know its own
/// zone (`prefer: zone`) or region (`prefer: region`).
#[must_use]
pub fn tier(endpoint: &Endpoint, node: &Node, prefer: Prefer) -> Tier {
    match prefer {
        Prefer::None => Tier::Any,
        Prefer::Zone if node.zone.is_empty() => Tier::Any,
        Prefer::Region if node.region.is_empty() => Tier::Any,
        Prefer::Node if same(&endpoint.node, &node.name) => Tier::Node,
        Prefer::Node | Prefer::Zone if same(&endpoint.zone, &node.zone) => Tier::Zone,
        Prefer::Node | Prefer::Zone | Prefer::Region if same(&endpoint.region, &node.region) => Tier::Region,
        Prefer::Node | Prefer::Zone | Prefer::Region => Tier::Remote,
    }
}

/// Whether two names are known and the same.
fn same(a: &str, b: &str) -> bool {
    !a.is_empty() && a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(node: &str, zone: &str, region: &str) -> Endpoint {
        Endpoint {
            node: node.to_owned(),
            zone: zone.to_owned(),
            region: region.to_owned(),
            ..Endpoint::new("10.0.0.1:80".parse().unwrap())
        }
    }

    fn node(name: &str, zone: &str, region: &str) -> Node {
        Node { name: name.to_owned(), zone: zone.to_owned(), region: region.to_owned() }
    }

    #[test]
    fn tiers_are_numbered_and_ordered_from_near_to_far() {
        assert_eq!(Tier::ALL.map(|t| t as usize), [0, 1, 2, 3, 4]);
        assert!(Tier::ALL.is_sorted());
    }

    #[test]
    fn nothing_preferred_means_one_tier() {
        let here = node("n1", "a", "eu");
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &here, Prefer::None), Tier::Any);
        assert_eq!(tier(&endpoint("", "", ""), &here, Prefer::None), Tier::Any);
    }

    #[test]
    fn prefer_zone_knows_zone_region_and_remote() {
        let here = node("n1", "a", "eu");
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &here, Prefer::Zone), Tier::Zone, "the node does not matter");
        assert_eq!(tier(&endpoint("n2", "a", ""), &here, Prefer::Zone), Tier::Zone);
        assert_eq!(tier(&endpoint("n2", "b", "eu"), &here, Prefer::Zone), Tier::Region);
        assert_eq!(tier(&endpoint("n2", "", "eu"), &here, Prefer::Zone), Tier::Region);
        assert_eq!(tier(&endpoint("n2", "b", "us"), &here, Prefer::Zone), Tier::Remote);
        assert_eq!(tier(&endpoint("n1", "", ""), &here, Prefer::Zone), Tier::Remote);
    }

    #[test]
    fn two_unknown_regions_are_not_the_same() {
        assert_eq!(tier(&endpoint("", "b", ""), &node("n1", "a", ""), Prefer::Zone), Tier::Remote);
    }

    #[test]
    fn a_node_without_a_zone_switches_prefer_zone_off() {
        let here = node("n1", "", "eu");
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &here, Prefer::Zone), Tier::Any);
        assert_eq!(tier(&endpoint("", "", ""), &here, Prefer::Zone), Tier::Any);
    }

    #[test]
    fn prefer_node_works_by_name_alone() {
        let here = node("n1", "", "");
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &here, Prefer::Node), Tier::Node);
        assert_eq!(tier(&endpoint("n2", "", ""), &here, Prefer::Node), Tier::Remote);
        assert_eq!(tier(&endpoint("", "", ""), &here, Prefer::Node), Tier::Remote);
    }

    #[test]
    fn prefer_node_goes_on_to_zone_and_region() {
        let here = node("n1", "a", "eu");
        assert_eq!(tier(&endpoint("n2", "a", "eu"), &here, Prefer::Node), Tier::Zone);
        assert_eq!(tier(&endpoint("n2", "b", "eu"), &here, Prefer::Node), Tier::Region);
        assert_eq!(tier(&endpoint("n2", "b", "us"), &here, Prefer::Node), Tier::Remote);
    }

    #[test]
    fn prefer_region_knows_region_and_remote() {
        let here = node("n1", "a", "eu");
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &here, Prefer::Region), Tier::Region);
        assert_eq!(tier(&endpoint("n1", "a", ""), &here, Prefer::Region), Tier::Remote);
        assert_eq!(tier(&endpoint("n1", "a", "eu"), &node("n1", "a", ""), Prefer::Region), Tier::Any);
    }
}
