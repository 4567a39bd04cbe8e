//! Where a collector listens, and for what.

use ::http::uri::{Authority, PathAndQuery};
use std::{fmt, path::PathBuf};

/// A collector of OTLP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collector {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Whose certificate it has to show; `None`: TLS is not spoken.
    pub trust: Option<Trust>,
    /// Its name or address; of IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Who may have signed a collector's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Whom this system trusts.
    System,
    /// Those with a certificate in this file (PEM).
    File(PathBuf),
}

/// What a collector is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, with protobuf, at this path.
    Http(String),
    /// gRPC.
    Grpc,
}

/// What is no collector, with what would be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCollector {
    /// What it should be instead, to follow "expected".
    pub expected: &'static str,
    /// What to do.
    pub remedy: Option<&'static str>,
}

impl Collector {
    /// What a collector is written like, to follow "expected".
    pub const EXPECTED: &str = "http://HOST:4318 or grpc://HOST:4317, or with TLS https:// or grpcs://";

    /// Reads `http://HOST[:PORT][/PATH]` or `grpc://HOST[:PORT]`; with TLS `https://` and `grpcs://`.
    ///
    /// # Errors
    /// [`NoCollector`].
    pub fn parse(text: &str) -> Result<Self, NoCollector> {
        let wrong = |remedy| NoCollector { expected: Self::EXPECTED, remedy: Some(remedy) };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            wrong("write http:// before it for HTTP with protobuf (usually port 4318), grpc:// for gRPC (usually 4317)")
        })?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (protocol, port) = match scheme {
            "http" | "https" => (Protocol::Http(path_of(path)?), 4318),
            "grpc" | "grpcs" if path.is_empty() || path == "/" => (Protocol::Grpc, 4317),
            "grpc" | "grpcs" => return Err(wrong("gRPC has no path: leave it out")),
            _ => return Err(NoCollector { expected: Self::EXPECTED, remedy: None }),
        };
        let trust = scheme.ends_with('s').then_some(Trust::System);
        let parsed: Authority =
            authority.parse().map_err(|_| NoCollector { expected: Self::EXPECTED, remedy: None })?;
        if authority.contains('@') {
            return Err(wrong("users and passwords are not supported"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = match parsed.port_u16() {
            Some(0) => None,
            None if has_port => None,
            given => Some(given.unwrap_or(port)),
        };
        let host = parsed.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match port {
            _ if host.is_empty() => Err(NoCollector { expected: Self::EXPECTED, remedy: None }),
            None => Err(NoCollector { expected: "a port from 1 to 65535", remedy: None }),
            Some(port) => Ok(Self { protocol, trust, host: host.to_owned(), port }),
        }
    }

    /// With TLS, it has to show a certificate that is signed by one in this file.
    #[must_use]
    pub fn trusting(self, file: PathBuf) -> Self {
        Self { trust: self.trust.map(|_| Trust::File(file)), ..self }
    }

    /// Its host and port, as in a URL.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

fn path_of(path: &str) -> Result<String, NoCollector> {
    if path.is_empty() || path == "/" {
        return Ok("/v1/traces".to_owned());
    }
    if path.contains(['?', '#']) || path.parse::<PathAndQuery>().is_err() {
        return Err(NoCollector { expected: "a path without a query, such as /v1/traces", remedy: None });
    }
    Ok(path.to_owned())
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.trust.is_some() { "s" } else { "" };
        match &self.protocol {
            Protocol::Http(path) => write!(f, "http{s}://{}{path}", self.authority()),
            Protocol::Grpc => write!(f, "grpc{s}://{}", self.authority()),
        }
    }
}
