//! A node in miniature: a network namespace that is the host's, and pods as a kubelet and a CNI plugin make them. Each has
//! a network namespace of its own on the host's bridge, with addresses of both families or of IPv6 alone, and a
//! container's cgroup below the node's.

use crate::{Cgroup, Netns, World, process, programs::Talker, skip};
use std::{fs, process::Command, sync::Arc};

/// The host: its own processes, and the bridge.
#[derive(Debug)]
pub struct Node {
    /// Processes of the host, in the node's cgroup.
    pub host: World,
}

/// A pod with one container. Dropped, its processes are ended, and its cgroup and its network are gone.
#[derive(Debug)]
pub struct Pod {
    /// Its processes.
    pub inside: World,
    /// What the kubelet makes of it, to be removed after the container.
    _slice: Cgroup,
    name: &'static str,
    uid: String,
    /// By IPv4; `None`: it has IPv6 alone.
    ipv4: Option<String>,
    ipv6: String,
}

/// Where the host is reached by pods.
pub const HOST: &str = "10.42.0.1";
/// Where it is by IPv6.
pub const HOST_V6: &str = "fd42::1";

impl Node {
    /// A host with a bridge, and no pods.
    ///
    /// # Errors
    /// Why this machine cannot have it: a reason to skip the test.
    pub fn new() -> Result<Self, String> {
        skip::requirements()?;
        let host = Netns::bare().map_err(|e| format!("needs network namespaces: {e}"))?;
        host.ip("link add dev cni0 type bridge");
        host.ip(&format!("address add {HOST}/24 dev cni0"));
        host.ip(&format!("address add {HOST_V6}/64 dev cni0 nodad"));
        host.ip("link set cni0 up");
        // Whoever dials what nobody here has is told so.
        for forwards in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let written = host.enter(|| fs::write(format!("/proc/sys/net/{forwards}"), "1"));
            written.map_err(|e| format!("needs {forwards}: {e}"))?;
        }
        Ok(Self { host: World::inside(Arc::new(host)) })
    }

    /// Whether the network of the pod with this number is there still: it goes with its last socket and process.
    ///
    /// # Panics
    /// Where this kernel does not show its interfaces.
    #[must_use]
    pub fn has_network_of(&self, number: u8) -> bool {
        let interfaces = self.host.netns().enter(|| fs::read_to_string("/proc/thread-self/net/dev"));
        interfaces.expect("interfaces can be listed").contains(&format!("veth{number}:"))
    }

    /// A pod that comes now, at `10.42.0.NUMBER` and `fd42::NUMBER`. To be dropped before the node.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn pod(&self, name: &'static str, number: u8) -> Pod {
        self.made(name, number, true)
    }

    /// A pod that comes now, at `fd42::NUMBER` and nowhere else: of IPv4 it has the loopback address, as all have. To be
    /// dropped before the node.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn pod_of_ipv6(&self, name: &'static str, number: u8) -> Pod {
        self.made(name, number, false)
    }

    fn made(&self, name: &'static str, number: u8, has_ipv4: bool) -> Pod {
        // The sandbox first, with the network; then the container.
        let (host, netns) = (self.host.netns(), Netns::bare().expect("a network namespace can be made"));
        host.ip(&format!("link add veth{number} type veth peer name eth0 netns {}", netns.path()));
        host.ip(&format!("link set veth{number} master cni0 up"));
        let ipv4 = has_ipv4.then(|| format!("10.42.0.{number}"));
        let ipv6 = format!("fd42::{number}");
        if let Some(ipv4) = &ipv4 {
            netns.ip(&format!("address add {ipv4}/24 dev eth0"));
        }
        netns.ip(&format!("address add {ipv6}/64 dev eth0 nodad"));
        netns.ip("link set eth0 up");
        if has_ipv4 {
            netns.ip(&format!("route add default via {HOST}"));
        }
        netns.ip(&format!("-6 route add default via {HOST_V6}"));
        let uid = format!("0f5c1b1e-8a53-4b3c-9d1c-7d3a3f0f{number:04x}");
        let burstable = "kubepods.slice/kubepods-burstable.slice";
        let slice = format!("{burstable}/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let slice = self.host.cgroup().below(&slice);
        let scope = slice.below(&format!("cri-containerd-{number:064x}.scope"));
        Pod { inside: World::new_in(scope, Arc::new(netns)), _slice: slice, name, uid, ipv4, ipv6 }
    }
}

impl Pod {
    /// Its name in the cluster.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its address by IPv4.
    ///
    /// # Panics
    /// Where it has IPv6 alone.
    #[must_use]
    pub fn address(&self) -> &str {
        self.ipv4.as_deref().expect("a pod with IPv4")
    }

    /// Its address by IPv6.
    #[must_use]
    pub fn address_v6(&self) -> &str {
        &self.ipv6
    }

    /// A server in its container, at this port of all its addresses. `kind`: `identity`, `echo`, or `http`, which says who asked.
    ///
    /// # Panics
    /// Where it does not listen.
    #[must_use]
    pub fn serve(&self, kind: &str, port: u16) -> Talker {
        let mut command = Command::new(process::peer());
        command.args(["serve", kind, self.name, &format!("[::]:{port}")]);
        let (cgroup, netns) = (self.inside.cgroup().path(), self.inside.netns());
        process::place(&mut command, Some(cgroup), Some(netns)).expect("a pod can be entered");
        let mut server = Talker::start(command);
        assert_eq!(server.line(), "listening");
        server
    }
}
