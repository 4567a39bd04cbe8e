//! Rows that no service gets: the last ones of their tables, through which the daemon proves that connects are
//! intercepted. The planner does not know them, no capacity counts them, and no listing shows them.

use super::{KernelError, Tables};
use mesh_common::{
    addr::Address,
    endpoint::{EndpointCounts, EndpointRow, Slot},
    service::{Policy, ServiceRow, Shown, SlotRange, VipKey, VipRow, name_hash},
};

/// How many rows of each table (services, VIPs, endpoints, slots) are the probe's.
pub(super) const PROBE_ROWS: u32 = 1;

/// The probe's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeRows {
    pub(super) service: u32,
    pub(super) endpoint: u32,
    pub(super) slot: u32,
}

impl Tables {
    /// Leads `vip` to one endpoint at `address` and `port` (network byte order), counting from zero, until
    /// [`Tables::end_probe`]. There is one such way at a time: the caller sees to that.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the kernel refuses.
    pub fn lead_probe(&self, vip: &VipKey, address: Address, port: u16) -> Result<(), KernelError> {
        let ProbeRows { service, endpoint, slot } = self.probe_rows();
        let tag = self.endpoint_tag(endpoint).wrapping_add(1).max(1);
        self.put_endpoint(endpoint, &EndpointRow { address, port, used: 1, tag, service, weight: 1, marks: 0 });
        self.put_slots(slot, &[Slot::new(endpoint, tag)]);
        let shown = Shown { range: SlotRange { base: slot, count: 1 }, policy: Policy::RoundRobin }.word();
        self.put_service(service, &ServiceRow { views: [[shown; 3]; 3], name: name_hash(""), ..ServiceRow::default() });
        self.put_vip(vip, VipRow::new(vip, service))
    }

    /// What the kernel counted since [`Tables::lead_probe`].
    #[must_use]
    pub fn probe_counts(&self) -> EndpointCounts {
        self.endpoint_counts(self.probe_rows().endpoint)
    }

    /// Leads `vip` nowhere again.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the kernel refuses.
    pub fn end_probe(&self, vip: &VipKey) -> Result<(), KernelError> {
        let ProbeRows { service, endpoint, .. } = self.probe_rows();
        let removed = self.remove_vip(vip);
        self.free_service(service);
        self.free_endpoint(endpoint);
        removed
    }
}
