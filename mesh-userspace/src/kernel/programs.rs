//! Which programs the object has, where each runs, and what is lost without it.

use super::{offsets, sys::AttachType};

/// One program of the object, and where it runs.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) hook: &'static str,
    pub(super) at: AttachType,
    /// What is lost where the kernel refuses it; `None`: everything, since nothing can be intercepted without it.
    pub(super) without: Option<&'static str>,
}

const PEER: &str = "applications see the endpoint's address in place of the VIP (getpeername)";
const SETTLED: &str = "connects that this node could not make (no route, no local port) are not all counted";

/// In the order of attaching: readers first, so that a connection is known to them from its first moment; connect last.
pub(super) const PROGRAMS: [Spec; 6] = [
    Spec { name: "mesh_sock_ops", hook: "sock_ops", at: AttachType::SockOps, without: None },
    Spec { name: "mesh_peername4", hook: "cgroup/getpeername4", at: AttachType::Getpeername4, without: Some(PEER) },
    Spec { name: "mesh_peername6", hook: "cgroup/getpeername6", at: AttachType::Getpeername6, without: Some(PEER) },
    Spec { name: RELEASE, hook: "cgroup/sock_release", at: AttachType::SockRelease, without: Some(SETTLED) },
    Spec { name: "mesh_connect6", hook: "cgroup/connect6", at: AttachType::Connect6, without: None },
    Spec { name: "mesh_connect4", hook: "cgroup/connect4", at: AttachType::Connect4, without: None },
];

/// Settles connects that TCP never heard of.
pub(super) const RELEASE: &str = "mesh_release";

/// Runs over the sockets of a namespace, at no cgroup: name, hook, and what is lost without it.
pub(super) const ITERATOR: (&str, &str, &str) = ("mesh_live", "iter/tcp", offsets::LIVE);

/// Where each of our programs runs, by its name: hook and attach type.
pub(super) fn places() -> impl Iterator<Item = (&'static str, &'static str, AttachType)> {
    PROGRAMS.iter().map(|spec| (spec.name, spec.hook, spec.at))
}
