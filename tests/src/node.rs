//! A node in miniature: a network namespace that is the host's, and pods as a kubelet and a CNI plugin make them. Each has
//! a network namespace of its own on the host's bridge, and a container's cgroup below the node's.

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
    address: String,
}

/// Where the host is reached by pods.
pub const HOST: &str = "10.42.0.1";

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
        host.ip("link set cni0 up");
        // Whoever dials what nobody here has is told so.
        host.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).map_err(|e| format!("needs ip_forward: {e}"))?;
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

    /// A pod that comes now, at `10.42.0.NUMBER`. To be dropped before the node.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn pod(&self, name: &'static str, number: u8) -> Pod {
        // The sandbox first, with the network; then the container.
        let (host, netns) = (self.host.netns(), Netns::bare().expect("a network namespace can be made"));
        host.ip(&format!("link add veth{number} type veth peer name eth0 netns {}", netns.path()));
        host.ip(&format!("link set veth{number} master cni0 up"));
        let address = format!("10.42.0.{number}");
        netns.ip(&format!("address add {address}/24 dev eth0"));
        netns.ip("link set eth0 up");
        netns.ip(&format!("route add default via {HOST}"));
        let uid = format!("0f5c1b1e-8a53-4b3c-9d1c-7d3a3f0f{number:04x}");
        let burstable = "kubepods.slice/kubepods-burstable.slice";
        let slice = format!("{burstable}/kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let slice = self.host.cgroup().below(&slice);
        let scope = slice.below(&format!("cri-containerd-{number:064x}.scope"));
        Pod { inside: World::new_in(scope, Arc::new(netns)), _slice: slice, name, uid, address }
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

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A server in its container, at this port. `kind`: `identity`, `echo`, or `http`, which says who asked.
    ///
    /// # Panics
    /// Where it does not listen.
    #[must_use]
    pub fn serve(&self, kind: &str, port: u16) -> Talker {
        let mut command = Command::new(process::peer());
        command.args(["serve", kind, self.name, &format!("0.0.0.0:{port}")]);
        let (cgroup, netns) = (self.inside.cgroup().path(), self.inside.netns());
        process::place(&mut command, Some(cgroup), Some(netns)).expect("a pod can be entered");
        let mut server = Talker::start(command);
        assert_eq!(server.line(), "listening");
        server
    }
}
