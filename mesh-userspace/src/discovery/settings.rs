//! What can be configured of discovery.

use super::Own;
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The registry of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// How long an instance counts that is not heard of and does not say for how long itself.
    pub ttl: Duration,
    /// Where it listens on TCP; `None`: at the admin socket only.
    pub listen: Option<SocketAddr>,
    /// The file with the token that writers on TCP must show; `None`: none.
    pub token_file: Option<PathBuf>,
}

/// Looking names up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The longest time from one look to the next.
    pub refresh: Duration,
    /// Who is asked; none: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// Where this daemon answers names itself: never asked.
    pub own: Option<Own>,
}

/// A prefix of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Where its members listen: `http://` or `https://` URLs; at least one.
    pub endpoints: Vec<String>,
    /// Under which services stand, without a slash at the end.
    pub prefix: String,
    /// As whom; empty: nobody in particular.
    pub username: String,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// Certificates of who may have signed those of the members; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that members are shown.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// The API of a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The namespaces that are watched; none: all.
    pub namespaces: Vec<String>,
    /// Which services of them, by label; empty: all.
    pub selector: String,
    /// The name of this node.
    pub node: String,
    /// Its zone, as configured; empty: what the cluster says of it.
    pub zone: String,
}

/// Names and addresses for services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// From which services without a VIP get one; `None`: they get none.
    pub pool: Option<IpNet>,
    /// Where names are answered; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Who is asked about other names; none: the servers of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
}
