//! Where services and endpoints come from besides the files.

use super::{
    address::MaybeListen,
    cidr::Cidr,
    duration::Duration,
    names::Label,
    text::{Complaint, text_rule, text_value},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Where services and endpoints come from besides the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Discovery {
    /// The registry of this node, which is always on at the admin socket.
    pub registry: Registry,
    /// How names in dns and srv of services are looked up.
    pub dns: Dns,
    /// An etcd cluster with services under a prefix.
    pub etcd: Etcd,
    /// The API of a Kubernetes cluster.
    pub kubernetes: Kubernetes,
    /// Range of addresses from which services without one get one. Empty: they get none.
    pub vip_pool: MaybeCidr,
    /// Address of a DNS server, such as `127.0.0.55:53`, that answers `NAME.mesh`, names of services and their hosts with
    /// the service's VIP, and forwards the rest. Empty: none.
    pub dns_listen: MaybeListen,
    /// How long an empty answer after a full one is held back; `0s`: not at all.
    pub empty_grace: Duration,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            registry: Registry::default(),
            dns: Dns::default(),
            etcd: Etcd::default(),
            kubernetes: Kubernetes::default(),
            vip_pool: MaybeCidr::default(),
            dns_listen: MaybeListen::default(),
            empty_grace: Duration::from_millis(30_000),
        }
    }
}

/// The registry of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Registry {
    /// How long an instance counts that is not heard of, unless it says for how long itself.
    pub ttl: Duration,
    /// Address of an HTTP server for registrations over TCP. Empty: none; the admin socket takes them always.
    pub listen: MaybeListen,
    /// File with the token that must be shown there (`authorization: Bearer TOKEN`). Empty: none.
    #[schemars(with = "MaybeFile")]
    pub token_file: PathBuf,
}

impl Default for Registry {
    fn default() -> Self {
        Self { ttl: Duration::from_millis(60_000), listen: MaybeListen(None), token_file: PathBuf::new() }
    }
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Dns {
    /// The longest time from one look at a name to the next. A shorter TTL is respected.
    pub refresh: Duration,
    /// Servers to ask. None: those of `/etc/resolv.conf`.
    pub servers: Vec<DnsServer>,
}

impl Default for Dns {
    fn default() -> Self {
        Self { refresh: Duration::from_millis(30_000), servers: Vec::new() }
    }
}

/// An etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Etcd {
    /// URLs of its members. None: etcd is not used.
    #[schemars(with = "Vec<EtcdUrl>")]
    pub endpoints: Vec<String>,
    /// Where instances stand: `PREFIX/SERVICE/INSTANCE`.
    #[schemars(with = "EtcdPrefix")]
    pub prefix: String,
    /// The user, with `password_file`. Empty: none.
    #[schemars(with = "Label")]
    pub username: String,
    /// File with the user's password. Empty: none.
    #[schemars(with = "MaybeFile")]
    pub password_file: PathBuf,
    /// File with the certificates of who may have signed those of the members. Empty: the system's.
    #[schemars(with = "MaybeFile")]
    pub ca_file: PathBuf,
    /// File with the certificate that members are shown, with `key_file`. Empty: none.
    #[schemars(with = "MaybeFile")]
    pub cert_file: PathBuf,
    /// File with its key. Empty: none.
    #[schemars(with = "MaybeFile")]
    pub key_file: PathBuf,
}

impl Default for Etcd {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "/mesh/services".to_owned(),
            username: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}

/// The API of a Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kubernetes {
    /// Whether it is used. `auto`: when running in a cluster.
    pub enabled: Enabled,
    /// The namespaces that are watched. None: all.
    #[schemars(with = "Vec<NamespaceName>")]
    pub namespaces: Vec<String>,
    /// Which of their services, by labels, such as `app=shop,tier!=test`. Empty: all.
    #[schemars(with = "Label")]
    pub selector: String,
}

/// Whether a source is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    /// When running in a cluster.
    #[default]
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

impl Enabled {
    fn from_bool(yes: bool) -> Self {
        if yes { Self::True } else { Self::False }
    }
}

impl Serialize for Enabled {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::True => serializer.serialize_bool(true),
            Self::False => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Enabled {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bool(bool),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bool(yes) => Ok(Self::from_bool(yes)),
            Written::Word(word) if word == "auto" => Ok(Self::Auto),
            Written::Word(word) => Err(serde::de::Error::custom(format!("{word:?} is not auto, true or false"))),
        }
    }
}

impl JsonSchema for Enabled {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Enabled".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "boolean" }] })
    }
}

/// A range of addresses, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaybeCidr(pub Option<Cidr>);

impl MaybeCidr {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() { Ok(Self(None)) } else { Cidr::parse(text).map(|cidr| Self(Some(cidr))) }
    }
}

impl fmt::Display for MaybeCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |cidr| cidr.fmt(f))
    }
}

text_value!(MaybeCidr, "a range of addresses such as 240.10.0.0/16, or \"\"", {
    "pattern": "^([0-9A-Fa-f:.]+/[0-9]{1,3})?$", "examples": ["240.10.0.0/16", "fd00:6d65:7368::/64"]
});

/// A DNS server. Port 53 need not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DnsServer(pub SocketAddr);

impl DnsServer {
    const EXPECTED: &str = "ADDRESS or ADDRESS:PORT of a DNS server";

    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(Self(SocketAddr::new(ip, 53))),
            Err(_) => match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => Ok(Self(address)),
                _ => Err(Complaint::new(Self::EXPECTED)),
            },
        }
    }
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_value!(DnsServer, DnsServer::EXPECTED, {
    "pattern": "^[0-9A-Fa-f:.\\[\\]]+$", "examples": ["10.96.0.10", "127.0.0.1:5353"]
});

/// The rule for a file, or empty.
pub(super) struct MaybeFile;

impl MaybeFile {
    const EXPECTED: &str = "an absolute path, or \"\"";

    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        if path.is_empty() {
            return Ok(());
        }
        if !path.starts_with('/') {
            return Err(Complaint::new(Self::EXPECTED));
        }
        super::path::Directory::check(path)
    }
}

text_rule!(MaybeFile, MaybeFile::EXPECTED, { "pattern": "^(/.*)?$", "maxLength": 4095 });

/// The rule for the URL of a member of an etcd cluster.
pub(super) struct EtcdUrl;

impl EtcdUrl {
    const EXPECTED: &str = "a URL such as http://10.0.0.1:2379";

    pub(super) fn check(url: &str) -> Result<(), Complaint> {
        let complaint = || Complaint::new(Self::EXPECTED);
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(complaint().remedy(format!("write http://{url} or https://{url}")));
        };
        if !matches!(scheme, "http" | "https") {
            return Err(complaint());
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let parsed: Result<http::uri::Authority, _> = authority.parse();
        match parsed {
            Ok(authority) if authority.as_str().contains('@') => {
                Err(complaint().remedy("users belong in username and password_file"))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(complaint()),
        }
    }
}

text_rule!(EtcdUrl, EtcdUrl::EXPECTED, { "pattern": "^https?://[^/@]+/?$" });

/// The rule for the prefix of services in etcd.
pub(super) struct EtcdPrefix;

impl EtcdPrefix {
    const EXPECTED: &str = "a path such as /mesh/services";

    pub(super) fn check(prefix: &str) -> Result<(), Complaint> {
        let inner = |b: u8| b.is_ascii_graphic();
        if prefix.len() < 2 || !prefix.starts_with('/') || prefix.ends_with('/') || !prefix.bytes().all(inner) {
            return Err(Complaint::new(Self::EXPECTED));
        }
        Ok(())
    }
}

text_rule!(EtcdPrefix, EtcdPrefix::EXPECTED, { "pattern": "^/[!-~]*[!-.0-~]$" });

/// Checks what says where an etcd cluster is without being in a file.
///
/// # Errors
/// What is wrong with it.
pub fn check_etcd(endpoints: &[String], prefix: &str) -> Result<(), String> {
    let wrong = |text: &str, Complaint { expected, remedy }: Complaint| match remedy {
        Some(remedy) => format!("expected {expected}, found {text:?}; {remedy}"),
        None => format!("expected {expected}, found {text:?}"),
    };
    for url in endpoints {
        EtcdUrl::check(url).map_err(|complaint| wrong(url, complaint))?;
    }
    EtcdPrefix::check(prefix).map_err(|complaint| wrong(prefix, complaint))
}

/// The rule for a namespace of Kubernetes (RFC 1123, a label of the DNS).
pub(super) struct NamespaceName;

impl NamespaceName {
    const EXPECTED: &str = "a namespace of a-z, 0-9 and '-', at most 63";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if is_label(name) { Ok(()) } else { Err(Complaint::new(Self::EXPECTED)) }
    }
}

text_rule!(NamespaceName, NamespaceName::EXPECTED, { "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" });

/// The rule for a service of Kubernetes, or empty.
pub(super) struct KubernetesName;

impl KubernetesName {
    const EXPECTED: &str = "NAMESPACE/NAME or NAMESPACE/NAME:PORT such as shop/checkout";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        let right = name.is_empty()
            || name.split_once('/').is_some_and(|(namespace, name)| {
                let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
                is_label(namespace) && is_label(name) && port.is_none_or(is_label)
            });
        if right { Ok(()) } else { Err(Complaint::new(Self::EXPECTED)) }
    }
}

text_rule!(KubernetesName, KubernetesName::EXPECTED, {
    "pattern": "^([a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9-]*[a-z0-9])?(:[a-z0-9]([a-z0-9-]*[a-z0-9])?)?)?$",
    "examples": ["shop/checkout"]
});

/// The rule for a name whose addresses are endpoints, with their port; or empty.
pub(super) struct DnsName;

impl DnsName {
    const EXPECTED: &str = "NAME:PORT such as checkout.internal:8080";

    pub(super) fn check(text: &str) -> Result<(), Complaint> {
        if text.is_empty() {
            return Ok(());
        }
        let complaint = || Complaint::new(Self::EXPECTED);
        if text.parse::<SocketAddr>().is_ok() {
            return Err(complaint().remedy("an address belongs in endpoints"));
        }
        let Some((name, port)) = text.rsplit_once(':') else {
            return Err(complaint().remedy("add the port, or use srv"));
        };
        if !is_dns_name(name) {
            return Err(complaint());
        }
        match port.parse::<u16>() {
            Ok(1..) => Ok(()),
            _ => Err(Complaint::new("a port from 1 to 65535")),
        }
    }
}

text_rule!(DnsName, DnsName::EXPECTED, { "maxLength": 260, "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]*:[0-9]{1,5})?$" });

/// The rule for a name with SRV records (RFC 2782), or empty.
pub(super) struct SrvName;

impl SrvName {
    const EXPECTED: &str = "_SERVICE._PROTOCOL.NAME such as _http._tcp.checkout.internal";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.is_empty() || is_dns_name(name) {
            return Ok(());
        }
        let complaint = Complaint::new(Self::EXPECTED);
        Err(if name.contains(':') { complaint.remedy("the port comes from the records") } else { complaint })
    }
}

text_rule!(SrvName, SrvName::EXPECTED, { "maxLength": 254, "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]*)?$" });

/// Whether this is a label of the DNS as Kubernetes has it (RFC 1123).
fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether this is a name of the DNS (RFC 1035, with the underscores of RFC 2782).
fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
