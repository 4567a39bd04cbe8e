//! Upstream sockets in the network namespaces of clients, counted by the kernel where it can.

use crate::{
    app::daemon::now,
    kernel::{Family, Netns, Tables, Upstream},
    proxy::{Counts, Destination, Originals, Sockets},
};
use mesh_common::endpoint::{Counter, Slot};
use std::{io, net::SocketAddr, os::fd::AsFd, os::fd::OwnedFd, sync::Arc};

/// Makes sockets in one network namespace.
#[derive(Debug)]
pub(super) struct InNamespace {
    pub(super) netns: Arc<Netns>,
    /// Where connections are counted; `None`: nowhere.
    pub(super) tables: Option<Arc<Tables>>,
    /// Whether the kernel sees them.
    pub(super) seen: bool,
}

/// Counters of an endpoint, where the kernel does not see the connections.
#[derive(Debug)]
struct InRow {
    tables: Arc<Tables>,
    slot: Slot,
}

impl Counts for InRow {
    fn add(&self, counter: Counter, n: u64) {
        self.tables.add_to(self.slot, counter, n);
    }
}

impl Sockets for InNamespace {
    fn socket(&self, to: &Destination) -> io::Result<OwnedFd> {
        let family = if to.address.is_ipv4() { Family::V4 } else { Family::V6 };
        let socket = self.netns.socket(family)?;
        if let (Some(tables), Some(slot), Some(service), true) = (&self.tables, to.endpoint, to.service, self.seen) {
            let upstream = Upstream {
                slot,
                service,
                endpoint: to.address,
                // Made for whoever comes next, not for one client.
                original: to.address,
                netns: self.netns.cookie(),
                pid: 0,
                command: b"mesh",
                cgroup: 0,
                now: now(),
            };
            // What is not counted is served all the same.
            if let Err(e) = tables.track(socket.as_fd(), &upstream) {
                tracing::debug!("an upstream connection is not counted: {e}");
            }
        }
        Ok(socket)
    }

    fn counts(&self, to: &Destination) -> Option<Arc<dyn Counts>> {
        let (Some(tables), Some(slot), false) = (&self.tables, to.endpoint, self.seen) else { return None };
        Some(Arc::new(InRow { tables: Arc::clone(tables), slot }))
    }

    fn namespace(&self) -> u64 {
        self.netns.cookie()
    }
}

/// What captured clients had dialled.
#[derive(Debug)]
pub(super) struct Dialled(pub(super) Arc<Tables>);

impl Originals for Dialled {
    fn vip(&self, namespace: u64, client: SocketAddr) -> Option<SocketAddr> {
        self.0.take_original(namespace, client).map(|(vip, _)| vip)
    }
}
