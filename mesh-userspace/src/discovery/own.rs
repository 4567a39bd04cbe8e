//! Where this daemon answers names itself.

use std::net::{IpAddr, SocketAddr};

/// The address of the daemon's DNS server. It is never asked by the daemon: it would answer with VIPs, and in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    listen: SocketAddr,
    /// The addresses of this host, where the server listens at all of them.
    host: Vec<IpAddr>,
}

impl Own {
    /// Of a server that listens there; `host` tells the addresses of this host.
    #[must_use]
    pub fn new(listen: SocketAddr, host: impl FnOnce() -> Vec<IpAddr>) -> Self {
        Self { listen, host: if listen.ip().is_unspecified() { host() } else { Vec::new() } }
    }

    /// Whether what is sent there comes back here.
    pub(super) fn is(&self, server: SocketAddr) -> bool {
        let (ip, listen) = (server.ip().to_canonical(), self.listen.ip().to_canonical());
        let here = ip == listen
            || (listen.is_unspecified() && (ip.is_loopback() || self.host.contains(&ip)))
            || ip.is_unspecified();
        here && server.port() == self.listen.port()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(listen: &str, server: &str) -> bool {
        let own = Own::new(listen.parse().unwrap(), || vec!["10.0.0.7".parse().unwrap()]);
        own.is(server.parse().unwrap())
    }

    #[test]
    fn a_server_never_asks_itself() {
        assert!(is_own("127.0.0.53:53", "127.0.0.53:53"));
        assert!(is_own("127.0.0.53:53", "[::ffff:127.0.0.53]:53"));
        assert!(is_own("0.0.0.0:53", "127.0.0.1:53"));
        assert!(is_own("0.0.0.0:53", "10.0.0.7:53"));
        assert!(is_own("[::]:53", "[::1]:53"));
        assert!(!is_own("127.0.0.53:53", "127.0.0.1:53"));
        assert!(!is_own("127.0.0.53:53", "127.0.0.53:5353"));
        assert!(!is_own("0.0.0.0:53", "10.0.0.8:53"));
    }
}
