//! Files → [`Config`]. Every mistake is reported at once, with its place and what to do about it.
//!
//! `types` and `settings` declare what can be configured. From them come the JSON Schema ([`schema()`]), the shape by which files are
//! checked, their decoding, and `dump` (`Serialize`; a dump can be loaded again). The way of a file: text → tree with
//! places → walk against the shape → merge with the other files → rules that look at several values → [`Config`].
//! Only [`Files::read`] touches the file system.

mod address;
mod bounds;
mod byte_size;
mod check;
mod cidr;
mod collector;
mod convert;
mod convert_http;
mod decimal;
mod decode;
mod describe;
mod discovery;
mod discovery_rules;
mod duration;
mod field;
mod files;
mod fraction;
mod http;
mod intern;
mod judge;
mod later;
mod limits;
mod merge;
mod names;
mod pairs;
mod path;
mod persist;
mod reload;
mod report;
mod requests;
mod route;
mod route_rules;
mod rules;
mod schema;
mod settings;
mod shape;
mod size;
mod status;
mod suggest;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod types;
mod yaml;

pub use address::{EndpointAddress, Listen, MaybeListen, Vip};
pub use bounds::{FAILURE_THRESHOLD, RESET_TIMEOUT};
pub use byte_size::ByteSize;
pub use cidr::Cidr;
pub use collector::MaybeCollector;
pub use decimal::{Decimal, Percent, Rate, Ratio};
pub use describe::Template;
pub use discovery::{Discovery, Dns, DnsServer, Enabled, Etcd, Kubernetes, MaybeCidr, Registry, check_etcd};
pub use duration::Duration;
pub use files::{DEFAULT_PATH, Files, is_read, places};
pub use fraction::Fraction;
pub use path::Cgroup;
pub use persist::{Change, PersistError, RUNTIME_FILE, persist, persisted};
pub use reload::reload;
pub use report::{Errors, Finding, Lack};
pub use requests::{
    Backoff, Budget, Counted, HashOf, IdleTimeout, Limits, RateLimit, Retries, RetryReason, SuccessRate, Upstream,
    WhenDown,
};
pub use route::{
    Fault, HeaderChanges, Headers, Match, Mirror, Redirect, Rewrite, Route, RouteBackoff, RouteBudget, RouteRetries,
    Target,
};
pub use schema::schema;
pub use settings::{
    CheckType, CircuitBreaker, HealthCheck, LoadBalancing, Locality, Policy, Prefer, Protocol, Settings,
};
pub use size::Size;
pub use status::StatusRange;
pub use types::{
    AccessLog, Admin, Bypass, Config, Dataplane, Endpoint, Log, LogFormat, Mode, Node, Proxy, Service, Telemetry,
    Tracing, WhenStale,
};

use intern::Intern;
use merge::Merged;
use report::Report;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    panic,
    path::Path,
    thread,
};

/// What a configuration depends on besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The name of the node where the configuration has none: `$NODE_NAME`, else the host name.
    pub name: String,
    /// Addresses of the node's interfaces: a VIP among them is worth a warning.
    pub addresses: Vec<IpAddr>,
}

/// A configuration without mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration, with defaults filled in.
    pub config: Config,
    /// What is allowed and worth a word.
    pub warnings: Vec<Finding>,
    /// See [`Files::fingerprint`].
    pub fingerprint: u64,
}

/// Reads and checks the file that was named, or the default one, with `conf.d/*.yaml` beside it.
///
/// # Errors
/// Every mistake in every file.
pub fn load(named: Option<&Path>, host: &Host) -> Result<Loaded, Errors> {
    let load = || Files::read(named)?.check(host);
    // The C library gives a thread a pool of its own to allocate from. What is needed only meanwhile, several times what
    // stays, is then not mixed with what the daemon keeps, and can be given back.
    thread::scope(|scope| match thread::Builder::new().name("config".to_owned()).spawn_scoped(scope, load) {
        Ok(loading) => loading.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
        Err(_) => load(),
    })
}

impl Files {
    /// A number that is another one when anything in the files is another, within one run of the daemon.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.texts.hash(&mut hasher);
        hasher.finish()
    }

    /// The configuration that the files make up.
    ///
    /// # Errors
    /// Every mistake in every file.
    pub fn check(&self, host: &Host) -> Result<Loaded, Errors> {
        self.check_sections(host, |_| true)
    }

    /// The `dataplane` section alone, whatever may be wrong elsewhere: enough to undo what a daemon did.
    ///
    /// # Errors
    /// Every mistake in this section, and whatever is no YAML.
    pub fn dataplane(&self) -> Result<Dataplane, Errors> {
        let loaded = self.check_sections(&Host::default(), |section| section == "dataplane")?;
        Ok(loaded.config.dataplane)
    }

    fn check_sections(&self, host: &Host, wanted: impl Fn(&str) -> bool) -> Result<Loaded, Errors> {
        let mut report = Report::new(self.paths().map(|path| path.display().to_string()).collect());
        let mut roots = Vec::with_capacity(self.texts.len());
        for (number, (_, text)) in self.texts.iter().enumerate() {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            let mut root = yaml::parse(number, text, &mut report).unwrap_or_else(tree::Node::empty);
            if root.is_null() {
                root = tree::Node::empty();
            }
            if let tree::Kind::Map(sections) = &mut root.kind {
                sections.retain(|section| wanted(&section.key));
            }
            check::check(&mut root, &mut report);
            roots.push(root);
        }
        let runtime = self.paths().position(|path| path.file_name().is_some_and(|name| name == RUNTIME_FILE));
        let merged = Merged::new(roots, runtime, &mut report);
        let mut config = decode(&merged).unwrap_or_else(|error| {
            // The walk let something through that cannot be decoded: ours to mend, but not a reason to fall over.
            report.mistake(report::Place::default(), String::new(), format!("cannot be decoded: {error}"), None);
            Config::default()
        });
        rules::check(&config, &merged, host, &mut report);
        if config.node.name.is_empty() {
            config.node.name.clone_from(&host.name);
        }
        let mut warnings = self.warnings.clone();
        warnings.extend(report.finish()?);
        Ok(Loaded { config, warnings, fingerprint: self.fingerprint() })
    }
}

fn decode(merged: &Merged<'_>) -> Result<Config, serde::de::value::Error> {
    let mut config: Config = decode::decode(&merged.root, None)?;
    let defaults = merged.root.get("defaults");
    let mut settings = Intern::default();
    config.services = merged
        .services
        .iter()
        .map(|service| {
            let written = service.node.get("health_check").is_some();
            let mut service: Service = decode::decode(&service.node, defaults)?;
            // Kubernetes checks its endpoints itself, and tells what it finds.
            if !written && service.kubernetes.as_deref().is_some_and(|name| !name.is_empty()) {
                std::sync::Arc::make_mut(&mut service.settings).health_check.r#type = CheckType::None;
            }
            settings.share(&mut service.settings);
            Ok(service)
        })
        .collect::<Result<_, _>>()?;
    Ok(config)
}
