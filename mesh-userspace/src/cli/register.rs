//! What can be typed to register an instance, and to take it out again.

use super::{
    args::{address, weight},
    command::Action,
    execute::{change, failed, said},
    output::complain,
};
use crate::api::{Client, ClientError, Registration, Request};
use clap::Args;
use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, process::ExitCode, time::Duration};

/// How long an instance may count that is not heard of.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// An instance to be registered.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Register {
    /// The service it serves
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Where it listens
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub address: SocketAddr,
    /// Its name within the service [default: ADDRESS]
    #[arg(long, value_name = "I")]
    pub id: Option<String>,
    /// Its share, 0 to 65535; 0 gets nothing [default: 1]
    #[arg(long, value_name = "N", value_parser = weight, allow_hyphen_values = true)]
    pub weight: Option<u16>,
    /// The zone it is in
    #[arg(long, value_name = "Z", default_value = "", hide_default_value = true)]
    pub zone: String,
    /// How long it counts when it is not heard of: 1s to 24h [default: discovery.registry.ttl; in etcd 60s]
    #[arg(long, value_name = "TTL", value_parser = ttl)]
    pub ttl: Option<Duration>,
    /// What others are to know about it; may stand more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = metadata, conflicts_with = "endpoints")]
    pub metadata: Vec<(String, String)>,
    /// Keep it registered until interrupted, then take it out
    #[arg(long)]
    pub keep: bool,
    /// Where, if not with the daemon.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

/// An instance to be taken out.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Deregister {
    /// The service it serves
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Where it listens
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub address: SocketAddr,
    /// Its name within the service [default: ADDRESS, else the one that is registered there]
    #[arg(long, value_name = "I", conflicts_with = "endpoints")]
    pub id: Option<String>,
    /// Where, if not with the daemon.
    #[command(flatten)]
    pub etcd: EtcdOptions,
}

impl Register {
    /// What the daemon is asked for.
    pub(super) fn at_the_daemon(self) -> Registration {
        let Self { service, address, id, weight, zone, ttl, metadata, keep: _, etcd: _ } = self;
        let address = canonical(address);
        Registration {
            service,
            id: id.unwrap_or_else(|| address.to_string()),
            address,
            weight: weight.unwrap_or(1),
            zone,
            metadata: metadata.into_iter().collect(),
            ttl: ttl.map(|ttl| format!("{}ms", ttl.as_millis())),
        }
    }
}

impl Deregister {
    /// What is done at the daemon.
    pub(super) fn at_the_daemon(self) -> Action {
        let Self { service, address, id, etcd: _ } = self;
        match id {
            Some(id) => Action::Change(Request::Deregister { service, id }),
            None => Action::Deregister { service, address: canonical(address) },
        }
    }
}

/// How many instances are named of those that could be meant.
const NAMED: usize = 10;

/// Takes the instance out that is called by its address; else the one at that address, if there is one only.
pub(super) async fn deregister(client: &Client, service: String, address: SocketAddr) -> Result<(), ExitCode> {
    let request = |id: String| Request::Deregister { service: service.clone(), id };
    let refused = match client.change(&request(address.to_string())).await {
        Ok(changed) => return said(&changed),
        Err(e) if !matches!(&e, ClientError::Refused { kind, .. } if kind == "not_found") => return Err(failed(&e)),
        Err(refused) => refused,
    };
    // Nobody at all is registered where this is refused, too.
    let registered = client.registry(Some(service.clone())).await.unwrap_or_default();
    let mut ids = registered.into_iter().filter(|instance| instance.address == address).map(|instance| instance.id);
    let Some(first) = ids.next() else { return Err(failed(&refused)) };
    let more: Vec<String> = ids.collect();
    if more.is_empty() {
        return change(client, &request(first)).await;
    }
    let others = more.len().saturating_sub(NAMED - 1);
    let named: Vec<String> = [first].into_iter().chain(more).take(NAMED).collect();
    let others = if others == 0 { String::new() } else { format!(" and {others} more") };
    let named = named.join(", ");
    complain(&format!("{service}: several instances are at {address}: {named}{others}; say which one with --id"));
    Err(ExitCode::FAILURE)
}

/// The IPv4 address of one that is mapped into IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An etcd cluster, if one is meant.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EtcdOptions {
    /// In etcd, at these members, instead of with a daemon; needs no daemon
    #[arg(long = "etcd", value_name = "URL", value_delimiter = ',', help_heading = "etcd")]
    pub endpoints: Vec<String>,
    /// Where services stand in etcd: PREFIX/SERVICE/INSTANCE
    #[arg(
        long = "etcd-prefix",
        value_name = "PREFIX",
        default_value = "/mesh/services",
        requires = "endpoints",
        help_heading = "etcd"
    )]
    pub prefix: String,
    /// The user
    #[arg(long = "etcd-user", value_name = "U", requires_all = ["endpoints", "password_file"], help_heading = "etcd")]
    pub user: Option<String>,
    /// File with the user's password
    #[arg(long = "etcd-password-file", value_name = "F", requires = "user", help_heading = "etcd")]
    pub password_file: Option<PathBuf>,
    /// File with the certificates of who may have signed those of the members [default: the system's]
    #[arg(long = "etcd-ca", value_name = "F", requires = "endpoints", help_heading = "etcd")]
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that members are shown
    #[arg(long = "etcd-cert", value_name = "F", requires_all = ["endpoints", "key_file"], help_heading = "etcd")]
    pub cert_file: Option<PathBuf>,
    /// File with its key
    #[arg(long = "etcd-key", value_name = "F", requires = "cert_file", help_heading = "etcd")]
    pub key_file: Option<PathBuf>,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| TTL.contains(time));
    time.ok_or_else(|| "expected a duration from 1s to 24h, such as 30s or 5m".to_owned())
}

fn metadata(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as version=1.2".to_owned()),
    }
}
