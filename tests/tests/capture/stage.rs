//! Programs at work, with an HTTP service and a TCP service.

use mesh_common::{
    addr::Address,
    endpoint::{self, EndpointRow, Slot},
    reason::Reason,
    service::{Policy, ServiceRow, Shown, SlotRange, VipKey, VipRow, flags},
    settings::Settings,
};
use mesh_tests::{World, world::addr};
use mesh_userspace::kernel::{self, Capacity, Family, Kernel, Netns, OBJECT, Options};
use socket2::Socket;
use std::{net::SocketAddr, os::fd::AsFd, time::Duration};

pub(crate) const VIP: &str = "240.0.0.1:80";
pub(crate) const MAPPED: &str = "[::ffff:240.0.0.1]:80";
pub(crate) const VIP6: &str = "[fd00::10]:80";
pub(crate) const TCP_VIP: &str = "240.0.0.2:80";
pub(crate) const ENDPOINT: &str = "10.1.0.1:8080";
pub(crate) const ENDPOINT6: &str = "[fd01::1]:8080";
/// The service of `VIP` and `VIP6`, and that of `TCP_VIP`; the endpoints of both families.
pub(crate) const WEB: u32 = 0;
pub(crate) const RAW: u32 = 1;
pub(crate) const V4: Slot = Slot(9 << 32 | 3);
pub(crate) const V6: Slot = Slot(9 << 32 | 4);
pub(crate) const PORT: u16 = 15_001;

pub(crate) fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// Programs at work on a world's cgroup, with an HTTP service and a TCP service.
pub(crate) struct Stage {
    pub(crate) kernel: Kernel,
    pub(crate) netns: Netns,
}

pub(crate) fn key(address: &str) -> VipKey {
    let address = addr(address);
    VipKey::tcp(Address::from(address.ip()), address.port().to_be())
}

impl Stage {
    pub(crate) fn new(world: &World) -> Self {
        let kernel = kernel::load(&Options {
            object: OBJECT,
            pins: None,
            capacity: Capacity { services: 4, vips: 4, endpoints: 8, slots: 32 },
            log_level: 0,
            settings: Settings {
                heartbeat: now(),
                heartbeat_timeout: 3_600_000_000_000,
                mark: 0x6d65,
                ..Settings::default()
            },
        })
        .unwrap();
        assert_eq!(kernel.notes, [""; 0]);
        assert_eq!(kernel.attach(world.cgroup().path()).unwrap(), [""; 0]);
        let netns = namespace(world);
        let stage = Self { kernel, netns };
        let tables = stage.kernel.tables();
        let marks = endpoint::marks::IN | endpoint::marks::HEALTHY;
        for (slot, address) in [(V4, ENDPOINT), (V6, ENDPOINT6)] {
            let VipKey { address, port, .. } = key(address);
            let row = EndpointRow { address, port, used: 1, tag: slot.tag(), service: WEB, weight: 1, marks };
            tables.put_endpoint(slot.id(), &row);
        }
        let row = EndpointRow { service: RAW, tag: 9, used: 1, weight: 1, marks, ..Default::default() };
        let VipKey { address, port, .. } = key(ENDPOINT);
        tables.put_endpoint(5, &EndpointRow { address, port, ..row });
        tables.put_slots(0, &[V4, V6, Slot::new(5, 9)]);
        let shown = |base| Shown { range: SlotRange { base, count: 1 }, policy: Policy::RoundRobin }.word();
        let limits = mesh_common::breaker::Limits {
            failure_threshold: 1,
            half_open: 1,
            reset_ms: 30_000,
            max_reset_ms: 30_000,
            lease_ms: 1000,
            probe_interval_ms: 1000,
            max_open: 1,
            endpoints: 2,
        };
        let row = ServiceRow { views: [[shown(0), shown(1), shown(1)]; 3], name: 7, limits, ..ServiceRow::default() };
        tables.put_service(WEB, &ServiceRow { flags: flags::PROXIED, ..row });
        tables.put_service(RAW, &ServiceRow { views: [[shown(2), 0, shown(2)]; 3], name: 8, ..row });
        for (vip, service) in [(VIP, WEB), (VIP6, WEB), (TCP_VIP, RAW)] {
            tables.put_vip(&key(vip), VipRow::new(&key(vip), service)).unwrap();
        }
        tables.beat_workers(now());
        stage
    }

    pub(crate) fn set_flags(&self, flags: u64) {
        let existing = self.kernel.tables().existing();
        let (_, row) = existing.services.into_iter().find(|(id, _)| *id == WEB).unwrap();
        self.kernel.tables().set_terms(WEB, &ServiceRow { flags, ..row });
    }

    /// A listener that clients of this family are sent to.
    pub(crate) fn listen(&self, netns: &Netns, family: Family) -> Socket {
        let listener = netns.listen(SocketAddr::new(family.loopback(), PORT), 1024, true).unwrap();
        self.kernel.tables().listeners().insert(netns.cookie(), family, listener.as_fd()).unwrap();
        let listener = Socket::from(listener);
        listener.set_nonblocking(false).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        listener
    }

    pub(crate) fn count(&self, reason: Reason) -> u64 {
        self.kernel.tables().service_counts(WEB)[reason as usize]
    }

    pub(crate) fn original(&self, client: SocketAddr) -> Option<(SocketAddr, u32)> {
        self.kernel.tables().take_original(self.netns.cookie(), client)
    }
}

/// The world's namespace, as a daemon finds it.
pub(crate) fn namespace(world: &World) -> Netns {
    let all = kernel::namespaces(world.cgroup().path());
    Netns::of(all.iter().find(|n| n.inode == world.netns().inode()).unwrap(), 0x6d65).unwrap()
}

pub(crate) fn peer(socket: &Socket) -> SocketAddr {
    socket.peer_addr().unwrap().as_socket().unwrap()
}

pub(crate) fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

pub(crate) fn accept(listener: &Socket) -> (Socket, SocketAddr) {
    let (socket, from) = listener.accept().unwrap();
    (socket, from.as_socket().unwrap())
}
