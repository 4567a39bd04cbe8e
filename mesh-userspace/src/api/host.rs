//! Whether a request was meant for this daemon.
//!
//! A web site can give its own name the address 127.0.0.1 when a visitor's browser asks for it again (DNS rebinding): the
//! browser takes what listens there for the site itself, and lets its scripts read. What gives such a request away is
//! the name in its `Host`.

use super::routes::HttpError;
use hyper::{HeaderMap, StatusCode, Uri, header::HOST};
use std::net::IpAddr;

/// Refuses a request to a loopback address that was meant for a name which anybody can own.
pub(super) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), HttpError> {
    let hosts = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or("not.text"));
    match hosts.chain(uri.authority().map(|authority| authority.as_str())).find(|host| is_public(host)) {
        None => Ok(()),
        Some(host) => {
            let message = format!(
                "this listener is at a loopback address and answers no request for {host:?}: ask for an IP address, \
                 localhost, or a name without a dot"
            );
            Err(HttpError::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message))
        }
    }
}

/// Whether a host, with or without a port, is a name that somebody can have in the DNS.
fn is_public(host: &str) -> bool {
    if host.starts_with('[') {
        return false;
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.contains('.') && !name.ends_with(".localhost") && name.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_anybody_can_own_are_told_from_those_that_lead_here() {
        for ours in [
            "127.0.0.1:9901",
            "127.0.0.1",
            "[::1]:9901",
            "localhost:9901",
            "mesh",
            "node-a:80",
            "mesh.localhost",
            "10.0.0.1.",
            "",
        ] {
            assert!(!is_public(ours), "{ours}");
        }
        for others in
            ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "EVIL.Example.", "localhost.evil.example"]
        {
            assert!(is_public(others), "{others}");
        }
    }
}
