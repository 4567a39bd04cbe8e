//! Plans carried out on the kernel's tables.

use super::{
    change::{Change, Found, Limits, Plan, Problem},
    needs::needs,
    owners::Owners,
    plan::Planner,
    recipe::Standing,
    terms::terms,
    weights::Share,
};
use crate::{
    kernel::Tables,
    model::{Health, Node, Service, Snapshot},
};
use ipnet::IpNet;
use mesh_common::{
    breaker::{self, Word},
    endpoint::{EndpointCounts, EndpointTimes, Picks, Slot},
    reason::ServiceCounts,
    service::{View, VipKey, VipRow},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Keeps the kernel's tables equal to the newest snapshot, and to what is learned of endpoints.
#[derive(Debug)]
pub struct Datapath {
    pub(super) planner: Planner,
    owners: Owners,
    problems: Vec<String>,
    /// VIPs in these ranges are counted and left alone.
    bypassed: Vec<IpNet>,
    /// Whether the kernel refused a write, so that the planner's memory of the tables may be wrong.
    unsure: bool,
    pub(super) node: Node,
    /// By how much counts of open circuits were wrong at the last look, by service row.
    pub(super) doubts: HashMap<u32, i64>,
}

impl Datapath {
    /// Takes over the tables as they are, with what an earlier daemon left in them.
    ///
    /// VIPs in `bypassed` are counted and left alone.
    #[must_use]
    pub fn adopt(tables: &Tables, bypassed: Vec<IpNet>, node: Node, now: u64) -> Self {
        let mut owners = Owners::default();
        let planner = adopt(tables, &bypassed, node.clone(), &mut owners, now);
        Self { planner, owners, problems: Vec::new(), bypassed, unsure: false, node, doubts: HashMap::new() }
    }

    /// Plans where there are no tables: endpoints have numbers and weights all the same, for whoever picks without a
    /// kernel.
    #[must_use]
    pub fn detached(node: Node) -> Self {
        let most = 1 << 27;
        let limits = Limits { services: most, vips: most, endpoints: most, slots: most };
        Self {
            planner: Planner::new(limits, node.clone()),
            owners: Owners::default(),
            problems: Vec::new(),
            bypassed: Vec::new(),
            unsure: false,
            node,
            doubts: HashMap::new(),
        }
    }

    /// Says where this node is, from the next snapshot on.
    pub fn set_node(&mut self, node: Node) {
        if self.node != node {
            self.planner.set_node(node.clone());
            self.node = node;
        }
    }

    /// Takes note of a snapshot, where there are no tables. Returns when to call again even if nothing changes.
    pub fn note_snapshot(&mut self, snapshot: &Snapshot, now: u64) -> Option<u64> {
        let plan = self.planner.plan(snapshot, now, |_| true);
        self.problems = plan.problems.iter().map(Problem::to_string).collect();
        plan.again_at
    }

    /// Takes note of what was learned of endpoints since, where there are no tables. `None`: nothing is to be done again.
    pub fn note_changes(&mut self, snapshot: &Snapshot, now: u64) -> Option<u64> {
        self.planner.refresh(snapshot, now).again_at
    }

    /// What each endpoint of a service gets at `now`, and when its circuits open. Endpoints without rows are left out.
    #[must_use]
    pub fn shares(&self, service: &Service, now: u64) -> (Vec<Share>, breaker::Limits) {
        (self.planner.shares(service, None, View::Any, now), terms(service).limits)
    }

    /// What stays the same while [`Datapath::shares`] does, as long as the facts do; `None`: ask again.
    #[must_use]
    pub fn mark(&self, service: &str) -> Option<u64> {
        self.planner.mark(service)
    }

    /// Looks at the tables again, where somebody else may have written to them. What is known of endpoints stays known.
    pub fn adopt_again(&mut self, tables: &Tables, now: u64) {
        let known = std::mem::take(&mut self.planner.conditions);
        self.planner = adopt(tables, &self.bypassed, self.node.clone(), &mut self.owners, now);
        self.planner.conditions = known;
    }

    /// Makes the tables say what `snapshot` says. Returns when to call again even if nothing changes, on the clock of
    /// `now` (nanoseconds).
    pub fn apply(&mut self, tables: &Tables, snapshot: &Snapshot, now: u64) -> Option<u64> {
        if std::mem::take(&mut self.unsure) {
            self.adopt_again(tables, now);
        }
        let plan = self.planner.plan(snapshot, now, |id| tables.endpoint_counts(id).active() == 0);
        self.owners.learn(&plan.changes, snapshot, now);
        self.problems = plan.problems.iter().map(Problem::to_string).collect();
        self.carry_out(tables, &plan, now)
    }

    /// Whether something was learned of endpoints since.
    #[must_use]
    pub fn wants_refresh(&self) -> bool {
        self.unsure || self.planner.wants_refresh()
    }

    /// As [`Datapath::apply`] with the snapshot that was applied last: brings what was learned of endpoints since into
    /// the tables, and nothing else. `None`: nothing is to be done again.
    pub fn refresh(&mut self, tables: &Tables, snapshot: &Snapshot, now: u64) -> Option<u64> {
        if self.unsure {
            return self.apply(tables, snapshot, now);
        }
        let plan = self.planner.refresh(snapshot, now);
        for problem in plan.problems.iter().map(Problem::to_string) {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
        self.carry_out(tables, &plan, now)
    }

    fn carry_out(&mut self, tables: &Tables, plan: &Plan, now: u64) -> Option<u64> {
        for change in &plan.changes {
            if let Err(why) = write(tables, &self.bypassed, change) {
                self.problems.push(why);
                self.unsure = true;
            }
        }
        if self.unsure { Some(now + RETRY) } else { plan.again_at }
    }

    /// Takes note of what health checks say of an endpoint. One that is healthy again warms up from `now`. Whether that
    /// is something new; [`Datapath::refresh`] tells the kernel.
    pub fn set_health(&mut self, service: &Service, address: SocketAddr, health: Health, now: u64) -> bool {
        let warms = !service.settings.slow_start.is_zero();
        self.planner.conditions.set(&service.name, address, |condition| {
            if warms && condition.health == Health::Unhealthy && health == Health::Healthy {
                condition.warms_since = Some(now);
            }
            condition.health = health;
        })
    }

    /// Forgets what health checks said of services that are not checked any more.
    pub fn forget_verdicts(&mut self, snapshot: &Snapshot) {
        for (name, address) in self.planner.conditions.judged() {
            if snapshot.service(&name).is_some_and(|service| service.settings.health_check.is_none()) {
                self.planner.conditions.set(&name, address, |condition| condition.health = Health::Unknown);
            }
        }
    }

    /// What health checks said of an endpoint.
    #[must_use]
    pub fn health(&self, service: &str, address: SocketAddr) -> Health {
        self.planner.conditions.get(service, address).health
    }

    /// How the endpoints of a service stand at `now`, by address.
    #[must_use]
    pub fn standings(&self, service: &Service, now: u64) -> HashMap<SocketAddr, Standing> {
        let shares = self.planner.shares(service, None, View::Any, now);
        shares.into_iter().map(|share| (share.address, share.standing)).collect()
    }

    /// How the endpoints of a service would stand on another node, and the part of connects or requests that each would
    /// get, 0 to 1. `closed`: whether an endpoint's circuit is.
    #[must_use]
    pub fn elsewhere(
        &self,
        service: &Service,
        node: &Node,
        view: View,
        closed: impl Fn(SocketAddr) -> bool,
        now: u64,
    ) -> (HashMap<SocketAddr, Standing>, BTreeMap<SocketAddr, f64>) {
        let shares = self.planner.shares(service, Some(node), view, now);
        let standings = shares.iter().map(|share| (share.address, share.standing)).collect();
        let sets: [fn(&Share) -> u64; 2] = [|share| share.attended, |share| share.all];
        for weight in sets {
            let usable = || shares.iter().filter(|share| weight(share) > 0 && closed(share.address));
            let total: u64 = usable().map(weight).sum();
            if total > 0 {
                let part = |share: &Share| (share.address, weight(share) as f64 / total as f64);
                return (standings, usable().map(part).collect());
            }
        }
        (standings, BTreeMap::new())
    }

    /// The row of a service, where it has one.
    #[must_use]
    pub fn service_row(&self, service: &str) -> Option<u32> {
        self.planner.service_row(service)
    }

    /// The row of an endpoint and its tag, where it has one.
    #[must_use]
    pub fn endpoint_row(&self, service: &str, address: SocketAddr) -> Option<Slot> {
        self.planner.endpoint_row(service, address)
    }

    /// The circuit of an endpoint.
    #[must_use]
    pub fn circuit(&self, tables: &Tables, service: &str, address: SocketAddr) -> Word {
        self.endpoint_row(service, address).map_or_else(Word::default, |slot| tables.circuit_of(slot.id()))
    }

    /// How often endpoints of a service were picked, by policy and tier. A system call.
    #[must_use]
    pub fn picks(&self, tables: &Tables, service: &str) -> Picks {
        self.service_row(service).map_or_else(Picks::default, |id| tables.picks(id))
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
fn adopt(tables: &Tables, bypassed: &[IpNet], node: Node, owners: &mut Owners, now: u64) -> Planner {
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
    Planner::adopt(Limits { services, vips, endpoints, slots }, node, &found, now)
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
        Change::Again(id, row) => tables.take_up_endpoint(*id, row),
        Change::Slots(base, slots) => tables.put_slots(*base, slots),
        Change::Service(id, row) => tables.put_service(*id, row),
        Change::View(id, set, view, shown) => tables.swap_view(*id, *set, *view, *shown),
        Change::Terms(id, row) => tables.set_terms(*id, row),
        Change::Weigh(id, weight, marks) => tables.weigh_endpoint(*id, *weight, *marks),
        Change::Vip(key, service) => {
            return tables.put_vip(key, vip_row(bypassed, key, *service)).map_err(|e| e.to_string());
        }
        Change::NoVip(key) => return tables.remove_vip(key).map_err(|e| e.to_string()),
        Change::FreeService(id) => tables.free_service(*id),
        Change::FreeEndpoint(id) => tables.free_endpoint(*id),
    }
    Ok(())
}
