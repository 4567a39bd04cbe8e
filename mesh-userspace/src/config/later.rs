//! What the contract names and this version does not do yet: the one list of it.
//!
//! Such a key is refused by name, never accepted and ignored. A value that asks for nothing (`vip_pool: ""`) is accepted,
//! since nothing is what happens. When a feature lands, its row goes.

use super::{
    field::Step,
    tree::{Kind, Node, Scalar},
};

/// A feature of later work: a key, or a mapping of keys, that is refused as one.
#[derive(Debug)]
pub(super) struct Feature {
    /// Where it stands; `service` means both `defaults` and `services[]`.
    path: &'static str,
    /// Its keys (dotted where they are nested; "" for a feature that is no mapping) and the value that asks for nothing.
    pub(super) keys: &'static [(&'static str, Off)],
}

/// The value that asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Off {
    /// There is none.
    Never,
    /// `""`
    Empty,
    /// `[]`
    EmptyList,
    /// `false`
    False,
    /// `0`
    Zero,
}

use Off::{Empty, EmptyList, False, Never, Zero};

const FEATURES: &[Feature] = &[
    feature("discovery.registry", &[("ttl", Never), ("listen", Empty), ("token_file", Empty)]),
    feature("discovery.dns", &[("refresh", Never), ("servers", EmptyList)]),
    feature(
        "discovery.etcd",
        &[
            ("endpoints", EmptyList),
            ("prefix", Never),
            ("username", Empty),
            ("password_file", Empty),
            ("ca_file", Empty),
            ("cert_file", Empty),
            ("key_file", Empty),
        ],
    ),
    feature("discovery.kubernetes", &[("enabled", False), ("namespaces", EmptyList), ("selector", Empty)]),
    feature("discovery.vip_pool", &[("", Empty)]),
    feature("discovery.dns_listen", &[("", Empty)]),
    feature("discovery.empty_grace", &[("", Never)]),
    feature("services[].dns", &[("", Empty)]),
    feature("services[].srv", &[("", Empty)]),
    feature("services[].etcd", &[("", Empty)]),
    feature("services[].kubernetes", &[("", Empty)]),
    feature("telemetry.tracing.otlp", &[("", Empty)]),
    feature("telemetry.tracing.keep", &[("", Zero)]),
    feature("telemetry.access_log.keep", &[("", Zero)]),
];

/// Words of later work, for keys that exist.
const WORDS: &[(&str, &[&str])] = &[("service.protocol", &["udp"])];

const fn feature(path: &'static str, keys: &'static [(&'static str, Off)]) -> Feature {
    Feature { path, keys }
}

/// Every feature with its path in a file.
pub(super) fn features() -> impl Iterator<Item = (String, &'static Feature)> {
    FEATURES.iter().flat_map(|feature| paths(feature.path).map(move |path| (path, feature)))
}

/// Words of later work with the path of their key.
pub(super) fn words() -> impl Iterator<Item = (String, &'static [&'static str])> {
    WORDS.iter().flat_map(|(path, words)| paths(path).map(move |path| (path, *words)))
}

fn paths(path: &'static str) -> impl Iterator<Item = String> {
    match path.strip_prefix("service.") {
        Some(key) => vec![format!("defaults.{key}"), format!("services[].{key}")].into_iter(),
        None => vec![path.to_owned()].into_iter(),
    }
}

/// What a file asks of a feature.
#[derive(Debug, Default)]
pub(super) struct Asked<'n, 't> {
    /// The keys whose values ask for something.
    pub(super) keys: Vec<&'static str>,
    /// Keys that the feature does not have: with the mapping they stand in, dotted.
    pub(super) unknown: Vec<(String, &'n super::tree::Entry<'t>)>,
    /// Values where there should be a mapping, each with the mapping it stands for, dotted.
    pub(super) no_mapping: Vec<(String, &'n Node<'t>)>,
}

impl Feature {
    /// What `node` asks of this feature.
    pub(super) fn asked<'n, 't>(&self, node: &'n Node<'t>) -> Asked<'n, 't> {
        let mut asked = Asked::default();
        self.ask(node, "", &mut asked);
        asked
    }

    fn ask<'n, 't>(&self, node: &'n Node<'t>, prefix: &str, asked: &mut Asked<'n, 't>) {
        if node.is_null() {
            return;
        }
        if let Some((key, off)) = self.keys.iter().find(|(key, _)| *key == prefix) {
            if !off.is(node) {
                asked.keys.push(key);
            }
            return;
        }
        let Kind::Map(entries) = &node.kind else {
            if !matches!(node.kind, Kind::Bad) {
                asked.no_mapping.push((prefix.to_owned(), node));
            }
            return;
        };
        for entry in entries {
            let key = if prefix.is_empty() { entry.key.to_string() } else { format!("{prefix}.{}", entry.key) };
            let nested = format!("{key}.");
            if self.keys.iter().any(|(name, _)| *name == key || name.starts_with(&nested)) {
                self.ask(&entry.value, &key, asked);
            } else {
                asked.unknown.push((prefix.to_owned(), entry));
            }
        }
    }

    /// The keys directly in the mapping `prefix` of this feature.
    pub(super) fn names(&self, prefix: &str) -> Vec<&'static str> {
        let in_prefix = |key: &'static str| {
            let rest = if prefix.is_empty() { key } else { key.strip_prefix(prefix)?.strip_prefix('.')? };
            rest.split('.').next().filter(|name| !name.is_empty())
        };
        let mut names: Vec<_> = self.keys.iter().filter_map(|(key, _)| in_prefix(key)).collect();
        names.dedup();
        names
    }

    /// The steps from the feature to the mapping `prefix` in it.
    pub(super) fn steps(&self, prefix: &str) -> impl Iterator<Item = Step<'static>> {
        let within = |key: &&'static str| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        let prefix: &'static str = match self.keys.iter().map(|(key, _)| *key).find(within) {
            Some(key) => &key[..prefix.len()],
            None => "",
        };
        prefix.split('.').filter(|step| !step.is_empty()).map(Step::Key)
    }

    /// What would be accepted of some keys, in words; none if nothing would.
    pub(super) fn accepted(&self, keys: &[&str]) -> Option<String> {
        let accepted: Vec<String> = self
            .keys
            .iter()
            .filter(|(key, _)| keys.contains(key))
            .filter_map(|(key, off)| {
                let value = off.word()?;
                Some(if key.is_empty() { value.to_owned() } else { format!("{key}: {value}") })
            })
            .collect();
        (!accepted.is_empty()).then(|| accepted.join(", "))
    }
}

impl Off {
    fn is(self, node: &Node<'_>) -> bool {
        match (self, node.scalar()) {
            (EmptyList, None) => matches!(&node.kind, Kind::List(items) if items.is_empty()),
            (Empty, Some(Scalar::Text(text))) => text.is_empty(),
            (False, Some(Scalar::Bool(value))) => !value,
            (Zero, Some(Scalar::Integer(number))) => number == 0,
            (Zero, Some(Scalar::Float(number))) => number == 0.0,
            _ => false,
        }
    }

    /// As it is written.
    pub(super) const fn word(self) -> Option<&'static str> {
        match self {
            Never => None,
            Empty => Some("\"\""),
            EmptyList => Some("[]"),
            False => Some("false"),
            Zero => Some("0"),
        }
    }
}
