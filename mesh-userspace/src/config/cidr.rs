//! Ranges of addresses.

use super::text::{Complaint, text_value};
use ipnet::IpNet;
use std::{fmt, net::IpAddr};

/// A range of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(pub IpNet);

impl Cidr {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = Complaint::new(EXPECTED);
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Err(complaint.remedy(format!("write {} for this one address", IpNet::from(ip))));
        }
        let Ok(range) = text.parse::<IpNet>() else { return Err(complaint) };
        if range.addr() != range.network() {
            return Err(complaint.remedy(format!("did you mean {}?", range.trunc())));
        }
        Ok(Self(range))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const EXPECTED: &str = "a range of addresses such as 10.0.0.0/8";

text_value!(Cidr, EXPECTED, { "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$", "examples": ["10.0.0.0/8", "fd00::/8"] });
