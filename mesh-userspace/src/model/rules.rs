//! What may be called a service, what may stand for a place, and where an endpoint may be: one rule each, for whoever
//! names them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The longest name, in bytes: that of a DNS name, so that a service can always have one.
pub const LONGEST_NAME: usize = 253;

/// The longest part of a name between its dots, in bytes (RFC 1035).
const LONGEST_LABEL: usize = 63;

/// Why something is no name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// What a name is; follows the word "expected".
    pub expected: &'static str,
    /// What to do, where that is not obvious.
    pub remedy: Option<String>,
    /// What was found instead, if it is not too long to be shown.
    found: String,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, remedy, found } = self;
        write!(f, "expected {expected}, found {found:?}")?;
        remedy.iter().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

/// Says whether a service may be called this: whatever can be a name of the DNS (RFC 1123), in lower case, and does not
/// read as an address.
///
/// # Errors
/// [`BadName`].
pub fn check_service_name(name: &str) -> Result<(), BadName> {
    let Err(expected) = judge(name) else { return Ok(()) };
    let remedy = if name.len() > LONGEST_NAME {
        Some(format!("it has {}", name.len()))
    } else {
        let meant = name.to_ascii_lowercase().replace(['_', ' '], "-");
        (meant != name && judge(&meant).is_ok()).then(|| format!("for example {meant}"))
    };
    let mut found: String = name.chars().take(LONGEST_LABEL).collect();
    if found.len() < name.len() {
        found.push('…');
    }
    Err(BadName { expected, remedy, found })
}

fn judge(name: &str) -> Result<(), &'static str> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bounded = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(['.', '-']);
    if name.len() > LONGEST_NAME {
        Err("at most 253 bytes")
    } else if name.is_empty() || !name.bytes().all(|b| inner(b) || b == b'.') {
        Err("a name of a-z, 0-9, '.' and '-'")
    } else if !bounded(name) {
        Err("a name that starts and ends with a letter or a digit")
    } else if !name.split('.').all(bounded) {
        Err("a name whose parts between dots start and end with a letter or a digit")
    } else if name.split('.').any(|part| part.len() > LONGEST_LABEL) {
        Err("a name whose parts between dots have at most 63 bytes")
    } else if name.contains('.') && name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        // Resolvers take `10.1` for an address, too.
        Err("a name that does not read as an address")
    } else {
        Ok(())
    }
}

/// Says whether a zone, a region or a node may be called this; empty: it is not known.
///
/// # Errors
/// What is expected instead.
pub fn check_place(text: &str) -> Result<(), &'static str> {
    match text.len() <= LONGEST_NAME && !text.chars().any(char::is_control) {
        true => Ok(()),
        false => Err("at most 253 bytes without control characters"),
    }
}

/// Says whether something can be reached at an address, whoever asks.
///
/// # Errors
/// Why not.
pub fn check_endpoint(address: SocketAddr) -> Result<(), &'static str> {
    let ip = address.ip();
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Err("not a unicast address")
    } else if link_local {
        Err("a link-local address, which means nothing without an interface")
    } else if address.port() == 0 {
        Err("port 0")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_by_what_can_be_a_name_of_the_dns() {
        for name in ["a", "0", "web", "web.shop", "web.shop.8080", "x--y", "1a.2b", "localhost", &"a".repeat(63)] {
            assert_eq!(check_service_name(name), Ok(()), "{name}");
        }
        let longest = "a".repeat(63) + "." + &"b".repeat(63) + "." + &"c".repeat(63) + "." + &"d".repeat(61);
        assert_eq!((longest.len(), check_service_name(&longest)), (LONGEST_NAME, Ok(())));
    }

    #[test]
    fn what_cannot_be_one_is_refused_with_the_reason() {
        for (name, why) in [
            ("", "expected a name of a-z, 0-9, '.' and '-', found \"\""),
            ("Web_1", "expected a name of a-z, 0-9, '.' and '-', found \"Web_1\"; for example web-1"),
            ("a\nb", "expected a name of a-z, 0-9, '.' and '-', found \"a\\nb\""),
            ("-web", "expected a name that starts and ends with a letter or a digit, found \"-web\""),
            ("web.", "expected a name that starts and ends with a letter or a digit, found \"web.\""),
            ("a..b", "expected a name whose parts between dots start and end with a letter or a digit, found \"a..b\""),
            ("a.-b", "expected a name whose parts between dots start and end with a letter or a digit, found \"a.-b\""),
            ("10.0.0.1", "expected a name that does not read as an address, found \"10.0.0.1\""),
            ("127.1", "expected a name that does not read as an address, found \"127.1\""),
        ] {
            assert_eq!(check_service_name(name).unwrap_err().to_string(), why);
        }
        let long = check_service_name(&"a".repeat(64)).unwrap_err().to_string();
        assert!(long.starts_with("expected a name whose parts between dots have at most 63 bytes"), "{long}");
        let long = check_service_name(&"a".repeat(100_000)).unwrap_err().to_string();
        assert!(long.starts_with("expected at most 253 bytes") && long.ends_with("it has 100000"), "{long}");
        assert!(long.len() < 200, "{long}");
    }
}
