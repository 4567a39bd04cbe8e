//! Addresses with ports: VIPs, endpoints, and where the daemon listens.

use super::text::{Complaint, text_value};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An address that applications dial: unicast, with a port. A v4-mapped one is its v4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip(pub SocketAddr);

/// Where an endpoint listens: unicast, with a port. A v4-mapped one is its v4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress(pub SocketAddr);

/// Where the daemon listens. Port 0: any free port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen(pub SocketAddr);

/// Where the daemon listens; none: nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MaybeListen(pub Option<SocketAddr>);

impl Vip {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let address = canonical(parse(text, "10.96.0.10:80")?);
        unicast(address)?;
        Ok(Self(address))
    }
}

impl EndpointAddress {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let address = canonical(parse(text, "10.0.1.5:8080")?);
        unicast(address)?;
        if let IpAddr::V6(ip) = address.ip()
            && ip.is_unicast_link_local()
        {
            return Err(Complaint::new("an address that can be reached without naming an interface")
                .remedy("a link-local address (fe80::/10) cannot be an endpoint"));
        }
        Ok(Self(address))
    }
}

impl Listen {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        const EXAMPLE: &str = "127.0.0.1:9901";
        let (host, port) = text.split_once(':').unwrap_or(("", text));
        let address = parse(text, EXAMPLE).map_err(|complaint| match (host, port) {
            ("", port) if port.parse::<u16>().is_ok() => complaint.remedy(format!(
                "write 127.0.0.1:{port} for this host only, 0.0.0.0:{port} or [::]:{port} for everyone"
            )),
            ("localhost", port) => complaint.remedy(format!("write 127.0.0.1:{port}")),
            _ => complaint,
        })?;
        if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Complaint::new("an address of this host"));
        }
        Ok(Self(address))
    }
}

impl MaybeListen {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() { Ok(Self(None)) } else { Listen::parse(text).map(|l| Self(Some(l.0))) }
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MaybeListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

text_value!(Vip, "ADDRESS:PORT such as 10.96.0.10:80", {
    "pattern": "^([0-9]{1,3}([.][0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$",
    "examples": ["10.96.0.10:80", "[fd00::10]:80"]
});
text_value!(EndpointAddress, "ADDRESS:PORT such as 10.0.1.5:8080", {
    "pattern": "^([0-9]{1,3}([.][0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$",
    "examples": ["10.0.1.5:8080", "[fd00:1::5]:8080"]
});
text_value!(Listen, "ADDRESS:PORT such as 127.0.0.1:9901", { "pattern": "^([0-9]{1,3}([.][0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$" });
text_value!(MaybeListen, "ADDRESS:PORT such as 0.0.0.0:9902, or \"\"", { "pattern": "^(([0-9]{1,3}([.][0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5})?$" });

/// The v4 address of a v4-mapped one: both are the same to whoever connects.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn unicast(address: SocketAddr) -> Result<(), Complaint> {
    const EXPECTED: &str = "a unicast address";
    let ip = address.ip();
    if ip.is_unspecified() {
        Err(Complaint::new(EXPECTED).remedy(format!("{ip} stands for every address")))
    } else if ip.is_multicast() {
        Err(Complaint::new(EXPECTED).remedy(format!("{ip} is a multicast address")))
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Err(Complaint::new(EXPECTED).remedy(format!("{ip} is the broadcast address")))
    } else if address.port() == 0 {
        Err(Complaint::new("a port from 1 to 65535"))
    } else {
        Ok(())
    }
}

fn parse(text: &str, example: &str) -> Result<SocketAddr, Complaint> {
    // Rust takes a numeric zone (`[fe80::1%1]:80`): a zone means something on one host only, and VIPs are looked up
    // without it.
    if text.contains('%') {
        return Err(Complaint::new("an address without a zone (%)"));
    }
    text.parse().map_err(|_| diagnose(text, example))
}

/// What is wrong with a text that is no address with a port.
fn diagnose(text: &str, example: &str) -> Complaint {
    let complaint = Complaint::new(format!("ADDRESS:PORT such as {example}"));
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => return complaint.remedy(format!("add the port: {ip}:PORT")),
        Ok(IpAddr::V6(_)) => {
            return complaint.remedy("write an IPv6 address in brackets, then the port: \"[fd00::10]:80\"");
        }
        Err(_) => {}
    }
    if text.contains('/') {
        return complaint.remedy("write one address, not a range or a URL");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return if text.is_empty() { complaint } else { names_hint(text, complaint) };
    };
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let address = inner.unwrap_or(host);
    if address.parse::<IpAddr>().is_ok() {
        return match port.parse::<u16>() {
            Ok(_) if address.parse::<Ipv6Addr>().is_ok() && inner.is_none() => {
                complaint.remedy(format!("put the address in brackets: \"[{host}]:{port}\""))
            }
            Ok(_) if inner.is_some() => complaint.remedy(format!("leave the brackets out: {address}:{port}")),
            _ if port.is_empty() => complaint.remedy("add the port"),
            _ => Complaint::new("a port from 1 to 65535"),
        };
    }
    names_hint(address, complaint)
}

fn names_hint(host: &str, complaint: Complaint) -> Complaint {
    let looks_like_a_name = host.contains(|c: char| c.is_ascii_alphabetic())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if looks_like_a_name { complaint.remedy("names are not resolved here: write the IP address") } else { complaint }
}
