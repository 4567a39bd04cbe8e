//! Plans carried out on the kernel's tables.

use super::{
    needs::needs,
    owners::Owners,
    plan::{Change, Found, Limits, Planner, Problem, vip_key},
};
use crate::{
    kernel::Tables,
    model::{Protocol, Service, Snapshot},
};
use ipnet::IpNet;
use mesh_common::{
    endpoint::{EndpointCounts, EndpointTimes},
    reason::{Reason, ServiceCounts},
    select::{self, Rows},
    service::{Policy, SlotRange, View, VipKey, VipRow},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Keeps the kernel's tables equal to the newest snapshot.
#[derive(Debug)]
pub struct Datapath {
    planner: Planner,
    owners: Owners,
    problems: Vec<String>,
    /// VIPs in these ranges are counted and left alone.
    bypassed: Vec<IpNet>,
    /// Whether the kernel refused a write, so that the planner's memory of the tables may be wrong.
    unsure: bool,
}

/// Who a connect to a VIP would meet now, as the kernel's rows have it.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    /// The address is no VIP in the kernel.
    NoVip,
    /// Refused at once.
    Refused(Reason),
    /// Endpoints with the part of connects that each gets, 0 to 1.
    Endpoints(BTreeMap<SocketAddr, f64>),
}

impl Datapath {
    /// Takes over the tables as they are, with what an earlier daemon left in them.
    ///
    /// VIPs in `bypassed` are counted and left alone.
    #[must_use]
    pub fn adopt(tables: &Tables, bypassed: Vec<IpNet>, now: u64) -> Self {
        let mut owners = Owners::default();
        let planner = adopt(tables, &bypassed, &mut owners, now);
        Self { planner, owners, problems: Vec::new(), bypassed, unsure: false }
    }

    /// Makes the tables say what `snapshot` says. Returns when to call again even if nothing changes, on the clock of
    /// `now` (nanoseconds).
    pub fn apply(&mut self, tables: &Tables, snapshot: &Snapshot, now: u64) -> Option<u64> {
        if std::mem::take(&mut self.unsure) {
            self.planner = adopt(tables, &self.bypassed, &mut self.owners, now);
        }
        let plan = self.planner.plan(snapshot, now, |id| tables.endpoint_counts(id).active() == 0);
        self.owners.learn(&plan.changes, snapshot, now);
        self.problems = plan.problems.iter().map(Problem::to_string).collect();
        for change in &plan.changes {
            if let Err(why) = write(tables, &self.bypassed, change) {
                self.problems.push(why);
                self.unsure = true;
            }
        }
        if self.unsure { Some(now + RETRY) } else { plan.again_at }
    }

    /// Whether a service has its place in the tables.
    #[must_use]
    pub fn holds(&self, service: &str) -> bool {
        self.planner.service_row(service).is_some()
    }

    /// Whether connects to a VIP are left alone because of its address.
    #[must_use]
    pub fn is_bypassed(&self, vip: SocketAddr) -> bool {
        is_in(&self.bypassed, vip.ip())
    }

    /// Whether the tables have room for `services`, all changes aside.
    ///
    /// # Errors
    /// What there is too much of, and what to do.
    pub fn fits(&self, services: &[Arc<Service>]) -> Result<(), String> {
        let (needed, limits) = (needs(services), self.planner.limits());
        // A change is laid out beside what shows until then.
        let largest = services.iter().map(|s| needs(std::slice::from_ref(s)).slots).max().unwrap_or(0);
        let kinds = [
            ("services", "max_services", needed.services, limits.services),
            ("addresses of services", "max_services", needed.vips, limits.vips),
            ("endpoints", "max_endpoints", needed.endpoints, limits.endpoints),
            ("slots for their weights", "max_slots", needed.slots.saturating_add(largest), limits.slots),
        ];
        match kinds.into_iter().find(|(_, _, needed, room)| needed > room) {
            Some((what, key, needed, room)) => Err(format!(
                "{needed} {what}, and the tables of the running daemon have room for {room}: restart it, which sizes \
                 them anew (dataplane.{key} sets the size by hand)"
            )),
            None => Ok(()),
        }
    }

    /// What did not fit or was refused, a sentence each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Rows in use.
    #[must_use]
    pub fn used(&self) -> Limits {
        self.planner.used()
    }

    /// The service whose row this was at `then` (the clock of [`Datapath::apply`]), as far as it is known.
    #[must_use]
    pub fn service_of_row(&self, row: u32, then: u64) -> Option<&str> {
        self.owners.name(row, then)
    }

    /// What the kernel counted for an endpoint.
    #[must_use]
    pub fn endpoint_counts(&self, tables: &Tables, service: &str, address: SocketAddr) -> EndpointCounts {
        let row = self.planner.endpoint_row(service, address);
        row.map_or_else(EndpointCounts::default, |slot| tables.endpoint_counts(slot.id()))
    }

    /// How long things took at an endpoint.
    #[must_use]
    pub fn endpoint_times(&self, tables: &Tables, service: &str, address: SocketAddr) -> EndpointTimes {
        let row = self.planner.endpoint_row(service, address);
        row.map_or_else(EndpointTimes::default, |slot| tables.endpoint_times(slot.id()))
    }

    /// What the kernel counted for a service.
    #[must_use]
    pub fn service_counts(&self, tables: &Tables, service: &str) -> ServiceCounts {
        self.planner.service_row(service).map_or_else(ServiceCounts::default, |id| tables.service_counts(id))
    }
}

/// After how long a write that the kernel refused is tried again, in nanoseconds.
const RETRY: u64 = 1_000_000_000;

/// A planner that knows what lies in the tables because it looked.
fn adopt(tables: &Tables, bypassed: &[IpNet], owners: &mut Owners, now: u64) -> Planner {
    let (services, endpoints, slots, vips) = tables.capacity();
    let existing = tables.existing();
    owners.adopt(existing.services.iter().map(|(id, row)| (*id, row.name)));
    let rows = existing.vips.iter().filter_map(|(key, row)| Some((*key, row.service(key)?, *row)));
    let found_vips: Vec<_> = rows
        .map(|(key, service, row)| {
            // Which VIPs are left alone may have been configured anew.
            let wanted = vip_row(bypassed, &key, service);
            if row != wanted
                && let Err(why) = tables.put_vip(&key, wanted)
            {
                tracing::warn!("{why}");
            }
            (key, service)
        })
        .collect();
    let found = Found {
        vips: &found_vips,
        services: &existing.services,
        endpoints: &existing.endpoints,
        highest_tag: existing.highest_tag,
    };
    Planner::adopt(Limits { services, vips, endpoints, slots }, &found, now)
}

/// Asks the kernel's rows the connect hook's own question, once for each slot.
#[must_use]
pub fn share(tables: &Tables, vip: SocketAddr) -> Share {
    let Some(service) = tables.vip(&vip_key(Protocol::Tcp, vip)) else { return Share::NoVip };
    let view = if vip.is_ipv4() { View::V4 } else { View::Any };
    let turn = SlotRange::from_word(tables.view(service, view)).count;
    let mut seen: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for draw in 0..turn.max(1) {
        match select::choose(tables, service, view, Policy::RoundRobin, draw) {
            Ok(choice) => {
                let address = SocketAddr::new(IpAddr::from(choice.row.address), u16::from_be(choice.row.port));
                *seen.entry(address).or_default() += 1;
            }
            Err(reason) => return Share::Refused(reason),
        }
    }
    Share::Endpoints(seen.into_iter().map(|(address, times)| (address, f64::from(times) / f64::from(turn))).collect())
}

/// The row that leads a VIP to its service, or that has it left alone.
fn vip_row(bypassed: &[IpNet], key: &VipKey, service: u32) -> VipRow {
    let row = VipRow::new(key, service);
    if is_in(bypassed, IpAddr::from(key.address)) { row.bypassed() } else { row }
}

fn is_in(ranges: &[IpNet], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&ip))
}

fn write(tables: &Tables, bypassed: &[IpNet], change: &Change) -> Result<(), String> {
    match change {
        Change::Endpoint(id, row) => tables.put_endpoint(*id, row),
        Change::Slots(base, slots) => tables.put_slots(*base, slots),
        Change::Service(id, row) => tables.put_service(*id, row),
        Change::View(id, view, range) => tables.swap_view(*id, *view, *range),
        Change::Policy(id, policy) => tables.set_policy(*id, *policy as u64),
        Change::Vip(key, service) => {
            return tables.put_vip(key, vip_row(bypassed, key, *service)).map_err(|e| e.to_string());
        }
        Change::NoVip(key) => return tables.remove_vip(key).map_err(|e| e.to_string()),
        Change::FreeService(id) => tables.free_service(*id),
        Change::FreeEndpoint(id) => tables.free_endpoint(*id),
    }
    Ok(())
}
