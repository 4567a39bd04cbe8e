//! Joins the layers into a daemon: the one place that knows everyone.

mod admin;
mod answer;
mod bugreport;
mod bypass;
mod capture;
mod check;
mod circuits;
mod connections;
mod counts;
mod daemon;
mod dashboard;
mod departed;
mod discovery;
mod door;
mod etcd_register;
mod explain;
mod facts;
mod guard;
mod health;
mod http;
mod live;
mod lock;
mod logs;
mod names;
mod others;
mod probe;
mod recount;
mod registry;
mod report;
mod run;
mod secrets;
mod source;
mod succession;
mod supervise;
mod takeover;
mod traces;
mod transitions;
mod unload;
mod watches;

pub use bugreport::bugreport;
pub use check::check;
pub use etcd_register::{deregister_from_etcd, register_in_etcd};
pub use probe::probe_client;
pub use run::run;
pub use unload::unload;

use crate::{
    config,
    kernel::{self, KernelError},
};
use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Checks a configuration file and says everything that is wrong with it. `Ok`: what is allowed and worth a word.
///
/// # Errors
/// Every mistake, one a line.
pub fn validate(file: &Path) -> Result<Vec<String>, String> {
    let loaded = config::load(Some(file), &host()).map_err(|errors| errors.to_string())?;
    Ok(loaded.warnings.iter().map(ToString::to_string).collect())
}

/// The intercepted cgroup's directory, which is on a cgroup2 file system.
fn cgroup(dataplane: &config::Dataplane) -> Result<PathBuf, KernelError> {
    let path = match &dataplane.cgroup {
        config::Cgroup::Auto => kernel::cgroup2_root()?,
        config::Cgroup::Path(path) => path.clone(),
    };
    kernel::open_cgroup(&path)?;
    Ok(path)
}

/// What a configuration depends on besides its files.
fn host() -> config::Host {
    let name = env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| nix::unistd::gethostname().ok()?.into_string().ok()).unwrap_or_default();
    let addresses = nix::ifaddrs::getifaddrs().map(|interfaces| interfaces.filter_map(|i| ip(&i)).collect());
    config::Host { name, addresses: addresses.unwrap_or_default() }
}

fn ip(interface: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address?;
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
}
