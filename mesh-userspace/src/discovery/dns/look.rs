//! Looking names up.

use super::{
    belief::{Asked, Reply, Report},
    records::Srv,
};
use crate::discovery::{Direct, Own, Resolve, direct::DirectDns};
use futures_util::{StreamExt, stream};
use hickory_resolver::{
    Resolver as Library,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
    system_conf,
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Who is asked where the configuration names nobody.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS.
const DNS: u16 = 53;

/// How long one question may take: all servers, and TCP where an answer is too long for UDP.
const PATIENCE: Duration = Duration::from_secs(3);

/// Targets of one name that are looked up at the same time.
const TARGETS_AT_ONCE: usize = 8;

/// Asks servers, and keeps nothing of what they answer: when to ask again is decided elsewhere.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    own: Option<Own>,
    direct: Direct,
    made: Mutex<Option<(Option<SystemTime>, Library<DirectDns>)>>,
}

impl Resolver {
    pub(super) fn new(settings: &Resolve, direct: Direct) -> Self {
        Self { servers: settings.servers.clone(), own: settings.own.clone(), direct, made: Mutex::new(None) }
    }

    /// The resolver for now: another one after `/etc/resolv.conf` has changed, if that counts.
    fn now(&self) -> Result<Library<DirectDns>, String> {
        let changed = || fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok();
        let stamp = if self.servers.is_empty() { changed() } else { None };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, resolver)) = &*made
            && *of == stamp
        {
            return Ok(resolver.clone());
        }
        let (config, options) = match &*self.servers {
            [] => {
                let (config, options) = system_conf::read_system_conf().map_err(|e| format!("{RESOLV_CONF}: {e}"))?;
                (self.others(&config)?, options)
            }
            servers => {
                let servers = servers.iter().copied().map(name_server).collect();
                (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
            }
        };
        let mut builder = Library::builder_with_config(config, self.direct.dns());
        *builder.options_mut() = options;
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.edns0 = true;
        options.timeout = PATIENCE;
        options.attempts = 0;
        let resolver = builder.build().map_err(|e| e.to_string())?;
        *made = Some((stamp, resolver.clone()));
        Ok(resolver)
    }

    /// The system's servers but for this daemon itself, which answers with VIPs: a service would become its own endpoint.
    fn others(&self, config: &ResolverConfig) -> Result<ResolverConfig, String> {
        let is_own = |server: IpAddr| self.own.as_ref().is_some_and(|own| own.is(SocketAddr::new(server, DNS)));
        let others: Vec<_> = config.name_servers().iter().filter(|server| !is_own(server.ip)).cloned().collect();
        if others.is_empty() {
            return Err(format!("{RESOLV_CONF} names no server but this daemon: name one in discovery.dns.servers"));
        }
        Ok(ResolverConfig::from_parts(config.domain().cloned(), config.search().to_vec(), others))
    }

    /// Looks up all that a name is asked for.
    pub(super) async fn look(&self, asked: &Asked) -> Report {
        match asked {
            Asked::Addresses { name, .. } => {
                Report { services: None, hosts: vec![(name.clone(), self.addresses(name).await)] }
            }
            Asked::Services { name } => {
                let services = self.ask(name, RecordType::SRV, srv).await;
                let mut targets: Vec<String> = match &services {
                    Reply::Records(records, _) => records.iter().map(|srv| srv.target.clone()).collect(),
                    _ => Vec::new(),
                };
                targets.sort();
                targets.dedup();
                let hosts = stream::iter(targets).map(|target| async {
                    // As the record has it: no search list.
                    let addresses = self.addresses(&format!("{target}.")).await;
                    (target, addresses)
                });
                let hosts = hosts.buffer_unordered(TARGETS_AT_ONCE).collect().await;
                Report { services: Some(services), hosts }
            }
        }
    }

    async fn addresses(&self, name: &str) -> [Reply<IpAddr>; 2] {
        let v4 = self.ask(name, RecordType::A, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
        let v6 = self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        });
        <[_; 2]>::from(futures_util::join!(v4, v6))
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, take: impl Fn(&RData) -> Option<T>) -> Reply<T> {
        let found = match (Name::from_utf8(name), self.now()) {
            (Err(e), _) => return Reply::Failed(format!("{name}: {e}")),
            (_, Err(why)) => return Reply::Failed(why),
            (Ok(name), Ok(resolver)) => resolver.lookup(name, kind).await,
        };
        match found {
            Ok(found) => records(&found, take),
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Reply::Nobody(none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())))
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Reply::Failed(format!("{kind}: {code}")),
            Err(e) => Reply::Failed(format!("{kind}: {e}")),
        }
    }
}

/// The servers of `/etc/resolv.conf`.
///
/// # Errors
/// Why there are none.
pub(in crate::discovery) fn system_servers() -> Result<Vec<SocketAddr>, String> {
    let (config, _) = system_conf::read_system_conf().map_err(|e| format!("{RESOLV_CONF}: {e}"))?;
    Ok(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, DNS)).collect())
}

/// Both ways to a server.
fn name_server(address: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    // A dot alone: decidedly not available (RFC 2782).
    let target = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    (!target.is_empty()).then_some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}

/// The records of an answer. They hold as long as all of them do, those that led to them included.
fn records<T>(found: &Lookup, take: impl Fn(&RData) -> Option<T>) -> Reply<T> {
    let records: Vec<T> = found.answers().iter().filter_map(|record| take(&record.data)).collect();
    let ttl = found.answers().iter().map(|record| record.ttl).min();
    let ttl = ttl.map(|ttl| Duration::from_secs(ttl.into()));
    match (records.is_empty(), ttl) {
        (false, Some(ttl)) => Reply::Records(records, ttl),
        (_, ttl) => Reply::Nobody(ttl),
    }
}
