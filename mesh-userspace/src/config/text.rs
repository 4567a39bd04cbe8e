//! Values written as text that have rules of their own: how such a rule is stated once and used three times (to check
//! a file with a good message, to decode, and in the JSON Schema).

use super::{
    address::{EndpointAddress, Listen, MaybeListen, Vip},
    byte_size::ByteSize,
    cidr::Cidr,
    collector::MaybeCollector,
    discovery::{
        DnsName, DnsServer, EtcdPrefix, EtcdUrl, KubernetesName, MaybeCidr, MaybeFile, NamespaceName, SrvName,
    },
    duration::Duration,
    http::{
        ChangedHeader, CookieName, HeaderName, HeaderValue, HealthHost, HealthPath, HostName, HostPattern, HostPort,
        MaybeHeader, MaybeService, Method, PathRegex, QueryName, QueryValue, RoutePath,
    },
    names::{Label, LogLevel, NodeName, ServiceName},
    path::{Cgroup, CgroupPath, Directory, SocketPath},
    status::StatusRange,
};
use std::borrow::Cow;

/// Why a text was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What would have been accepted; follows the word "expected".
    pub(super) expected: Cow<'static, str>,
    /// What to do, where that is not obvious.
    pub(super) remedy: Option<String>,
}

impl Complaint {
    pub(super) fn new(expected: impl Into<Cow<'static, str>>) -> Self {
        Self { expected: expected.into(), remedy: None }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// A kind of text. Its schema carries [`KIND_KEYWORD`] with its name.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What it is, in words that follow "expected".
    pub(super) expected: &'static str,
    pub(super) check: fn(&str) -> Result<(), Complaint>,
}

/// The keyword by which a schema names the [`Kind`] of a text; taken out of the schema that users see.
pub(super) const KIND_KEYWORD: &str = "x-kind";

/// Every kind of text.
pub(super) const KINDS: &[Kind] = &[
    ByteSize::KIND,
    Cgroup::KIND,
    ChangedHeader::KIND,
    CookieName::KIND,
    HeaderName::KIND,
    HeaderValue::KIND,
    HostName::KIND,
    HostPattern::KIND,
    HostPort::KIND,
    MaybeHeader::KIND,
    MaybeService::KIND,
    Method::KIND,
    PathRegex::KIND,
    QueryName::KIND,
    QueryValue::KIND,
    RoutePath::KIND,
    CgroupPath::KIND,
    Cidr::KIND,
    Directory::KIND,
    DnsName::KIND,
    DnsServer::KIND,
    EtcdPrefix::KIND,
    EtcdUrl::KIND,
    KubernetesName::KIND,
    MaybeCidr::KIND,
    MaybeCollector::KIND,
    MaybeFile::KIND,
    NamespaceName::KIND,
    SrvName::KIND,
    Duration::KIND,
    EndpointAddress::KIND,
    HealthHost::KIND,
    HealthPath::KIND,
    Label::KIND,
    Listen::KIND,
    LogLevel::KIND,
    MaybeListen::KIND,
    NodeName::KIND,
    ServiceName::KIND,
    SocketPath::KIND,
    StatusRange::KIND,
    Vip::KIND,
];

/// The [`Kind`] of a type that has `parse(&str) -> Result<Self, Complaint>`.
macro_rules! text_kind {
    ($type:ident, $expected:expr) => {
        $crate::config::text::Kind {
            name: stringify!($type),
            expected: $expected,
            check: |text| Self::parse(text).map(|_| ()),
        }
    };
}

/// Makes a type that has `parse(&str) -> Result<Self, Complaint>` and `Display` a value of a configuration file.
macro_rules! text_value {
    ($type:ident, $expected:expr, $schema:tt) => {
        impl $type {
            pub(super) const KIND: $crate::config::text::Kind = $crate::config::text::text_kind!($type, $expected);
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::parse(text).map_err(|c| match c.remedy {
                    Some(remedy) => format!("expected {}, found {text:?}; {remedy}", c.expected),
                    None => format!("expected {}, found {text:?}", c.expected),
                })
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        $crate::config::text::text_schema!($type, $schema);
    };
}

/// Makes a unit type with `check(&str) -> Result<(), Complaint>` the rule of a text that is decoded as it stands.
macro_rules! text_rule {
    ($type:ident, $expected:expr, $schema:tt) => {
        impl $type {
            pub(super) const KIND: $crate::config::text::Kind =
                $crate::config::text::Kind { name: stringify!($type), expected: $expected, check: Self::check };
        }

        $crate::config::text::text_schema!($type, $schema);
    };
}

macro_rules! text_schema {
    ($type:ident, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema = schemars::json_schema!($schema);
                schema.insert("type".to_owned(), "string".into());
                schema.insert($crate::config::text::KIND_KEYWORD.to_owned(), stringify!($type).into());
                schema
            }
        }
    };
}

pub(super) use {text_kind, text_rule, text_schema, text_value};
