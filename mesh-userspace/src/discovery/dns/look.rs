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
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Who is asked where the configuration names nobody.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS.
const DNS: u16 = 53;

/// How long one question may take: all servers together, and TCP where an answer is too long for UDP.
const PATIENCE: Duration = Duration::from_secs(3);

/// As many servers are asked at most, as by the C library (`MAXNS`).
const SERVERS: usize = 3;

/// Targets of one name that are looked up at the same time.
const TARGETS_AT_ONCE: usize = 8;

/// Asks servers, and keeps nothing of what they answer: when to ask again is decided elsewhere.
///
/// One after the other, in their order, as the C library does: whoever names an internal server and then a public one does
/// not mean that the quicker of them is right. What the first says that answers counts, also that there is no such name.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    own: Option<Own>,
    direct: Direct,
    made: Mutex<Option<(Option<SystemTime>, Servers)>>,
}

/// One for each server.
type Servers = Arc<[Library<DirectDns>]>;

impl Resolver {
    pub(super) fn new(settings: &Resolve, direct: Direct) -> Self {
        Self { servers: settings.servers.clone(), own: settings.own.clone(), direct, made: Mutex::new(None) }
    }

    /// The servers of now: others after `/etc/resolv.conf` has changed, if that counts.
    fn now(&self) -> Result<Servers, String> {
        let changed = || fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok();
        let stamp = if self.servers.is_empty() { changed() } else { None };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, servers)) = &*made
            && *of == stamp
        {
            return Ok(Arc::clone(servers));
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
        let servers = &config.name_servers()[..config.name_servers().len().min(SERVERS)];
        let share = PATIENCE / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
        let resolver = |server: &NameServerConfig| {
            let (domain, search) = (config.domain().cloned(), config.search().to_vec());
            let config = ResolverConfig::from_parts(domain, search, vec![server.clone()]);
            let mut builder = Library::builder_with_config(config, self.direct.dns());
            *builder.options_mut() = options.clone();
            let options = builder.options_mut();
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            options.edns0 = true;
            options.timeout = share;
            options.attempts = 0;
            builder.build().map_err(|e| e.to_string())
        };
        let servers: Servers = servers.iter().map(resolver).collect::<Result<_, _>>()?;
        *made = Some((stamp, Arc::clone(&servers)));
        Ok(servers)
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
        let (name, servers) = match (Name::from_utf8(name), self.now()) {
            (Err(e), _) => return Reply::Failed(format!("{name}: {e}")),
            (_, Err(why)) => return Reply::Failed(why),
            (Ok(name), Ok(servers)) => (name, servers),
        };
        let mut failed: Option<String> = None;
        for server in servers.iter() {
            let why = match server.lookup(name.clone(), kind).await {
                Ok(found) => return records(&found, take),
                Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                    if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
                {
                    return Reply::Nobody(none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())));
                }
                Err(NetError::Dns(DnsError::ResponseCode(code))) => format!("{kind}: {code}"),
                Err(e) => format!("{kind}: {e}"),
            };
            // What the first one says is told: the others are there for when it fails.
            failed.get_or_insert(why);
        }
        Reply::Failed(failed.unwrap_or_else(|| "no server is named".to_owned()))
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
