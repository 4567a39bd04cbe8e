//! The tables of the data path: what the datapath layer writes, and what everyone reads.

use super::{
    KernelError, Listeners, Pins, Upstream,
    capture::Capture,
    grow,
    mapped::Mapped,
    probe_rows::{PROBE_ROWS, ProbeRows},
    rare::Rare,
    summed::Summed,
    wire::Wire,
};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use mesh_common::{
    breaker::Word,
    endpoint::{self, Counter, EndpointCounts, EndpointRow, EndpointState, EndpointTimes, Picks, Slot},
    names,
    reason::ServiceCounts,
    select::Rows,
    service::{ServiceRow, ServiceState, Set, Shown, View, VipKey, VipRow},
    settings::{Settings, flags},
};
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Connections to the daemon that it has not yet taken, of which it is known what was dialled: 8 MiB of kernel memory.
/// The oldest go first.
pub(super) const MAX_ORIGINALS: u32 = 65_536;

/// Every table. The rows have one writer, the datapath loop; counters are the kernel's.
#[derive(Debug)]
pub struct Tables {
    vips: Mutex<HashMap<MapData, Wire<VipKey>, Wire<VipRow>>>,
    vips_capacity: u32,
    vips_fd: OwnedFd,
    pub(super) services: Mapped<ServiceRow>,
    slots: Mapped<Slot>,
    endpoints: Mapped<EndpointRow>,
    pub(super) service_states: Mapped<ServiceState>,
    pub(super) endpoint_states: Mapped<EndpointState>,
    service_counts: Summed<ServiceCounts>,
    picks: Rare<Picks>,
    pub(super) endpoint_counts: Summed<EndpointCounts>,
    endpoint_times: Rare<EndpointTimes>,
    settings: Mapped<Settings>,
    bypassed: Mutex<HashMap<MapData, u64, u64>>,
    capture: Capture,
    others: Vec<(&'static str, OwnedFd, u32)>,
}

/// Maps that others of the daemon's parts read and write, or programs alone. That of connections is none of them: its
/// memory is the sockets'.
const OTHERS: [&str; 8] = [
    names::CLIENTS,
    names::BYPASSED,
    names::LISTENERS,
    names::EVENTS,
    names::ENDED,
    names::REFUSED,
    names::UNTOLD,
    names::TOLD,
];

/// What an earlier daemon left in the tables.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// VIPs with the row of each.
    pub vips: Vec<(VipKey, VipRow)>,
    /// Used service rows.
    pub services: Vec<(u32, ServiceRow)>,
    /// Used endpoint rows.
    pub endpoints: Vec<(u32, EndpointRow)>,
    /// The highest tag in any endpoint row, used or free.
    pub highest_tag: u32,
}

impl Tables {
    /// Takes the tables out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<Self, KernelError> {
        let others = OTHERS.into_iter().map(|name| other(ebpf, name)).collect::<Result<_, KernelError>>()?;
        let vips = take(ebpf, names::VIPS)?;
        let refuse = |why: String| KernelError::Map { map: names::VIPS.to_owned(), why };
        let Map::HashMap(data) = &vips else { return Err(refuse("not a hash".to_owned())) };
        let vips_capacity = data.info().map_err(|e| refuse(e.to_string()))?.max_entries();
        let vips_fd = data.fd().as_fd().try_clone_to_owned().map_err(|e| refuse(e.to_string()))?;
        Ok(Self {
            vips: Mutex::new(HashMap::try_from(vips).map_err(|e| refuse(e.to_string()))?),
            vips_capacity,
            vips_fd,
            services: array(ebpf, names::SERVICES)?,
            slots: array(ebpf, names::SLOTS)?,
            endpoints: array(ebpf, names::ENDPOINTS)?,
            service_states: array(ebpf, names::SERVICE_STATES)?,
            endpoint_states: array(ebpf, names::ENDPOINT_STATES)?,
            service_counts: counters(ebpf, pins, names::SERVICE_COUNTS)?,
            picks: Rare::new(names::PICKS, take_array(ebpf, names::PICKS)?, pins)?,
            endpoint_counts: counters(ebpf, pins, names::ENDPOINT_COUNTS)?,
            endpoint_times: Rare::new(names::ENDPOINT_TIMES, take_array(ebpf, names::ENDPOINT_TIMES)?, pins)?,
            settings: array(ebpf, names::SETTINGS)?,
            bypassed: Mutex::new(
                HashMap::try_from(take(ebpf, names::BYPASSED)?).map_err(|e| map_error(names::BYPASSED, &e))?,
            ),
            capture: Capture {
                listeners: Listeners::new(descriptor(ebpf, names::LISTENERS)?),
                originals: descriptor(ebpf, names::ORIGINALS)?,
                connections: descriptor(ebpf, names::CONNECTIONS)?,
            },
            others,
        })
    }

    /// Adds up the counters in every pinned table of this name, where that is a table of counters.
    pub(super) fn count_all(&self, pins: &Pins, name: &str) -> Result<(), KernelError> {
        match name {
            names::SERVICE_COUNTS => self.service_counts.join(name, grow::all(pins, name)?),
            names::ENDPOINT_COUNTS => self.endpoint_counts.join(name, grow::all(pins, name)?),
            _ => Ok(()),
        }
    }

    /// The settings in a table that another daemon pinned, if it has our shape.
    pub(super) fn pinned_settings(pin: &Path) -> Option<Settings> {
        Mapped::<Settings>::new(names::SETTINGS, MapData::from_pin(pin).ok()?).ok()?.read(0)
    }

    /// How many (services, endpoints, slots, VIPs) fit.
    #[must_use]
    pub fn capacity(&self) -> (u32, u32, u32, u32) {
        let rows = [self.services.rows(), self.endpoints.rows(), self.slots.rows(), self.vips_capacity];
        let [services, endpoints, slots, vips] = rows.map(for_services);
        (services, endpoints, slots, vips)
    }

    /// Where the probe's rows are.
    pub(super) fn probe_rows(&self) -> ProbeRows {
        ProbeRows {
            service: for_services(self.services.rows()),
            endpoint: for_services(self.endpoints.rows()),
            slot: for_services(self.slots.rows()),
        }
    }

    /// The tag that an endpoint's row carries, or carried last.
    pub(super) fn endpoint_tag(&self, id: u32) -> u32 {
        self.endpoints.read(id).map_or(0, |row| row.tag)
    }

    /// The maps: name, descriptor, entries that fit (of ring buffers: bytes).
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>, u32)> {
        fn array<'a, T: bytemuck::Pod>(
            name: &'static str,
            table: &'a Mapped<T>,
        ) -> (&'static str, BorrowedFd<'a>, u32) {
            (name, table.map().fd().as_fd(), for_services(table.rows()))
        }
        let tables = [
            (names::VIPS, self.vips_fd.as_fd(), for_services(self.vips_capacity)),
            array(names::SERVICES, &self.services),
            array(names::SLOTS, &self.slots),
            array(names::ENDPOINTS, &self.endpoints),
            array(names::SERVICE_STATES, &self.service_states),
            array(names::ENDPOINT_STATES, &self.endpoint_states),
            array(names::SERVICE_COUNTS, self.service_counts.now()),
            array(names::ENDPOINT_COUNTS, self.endpoint_counts.now()),
            (names::PICKS, self.picks.fd(), for_services(self.picks.rows())),
            (names::ENDPOINT_TIMES, self.endpoint_times.fd(), for_services(self.endpoint_times.rows())),
            (names::ORIGINALS, self.capture.originals.as_fd(), MAX_ORIGINALS),
            (names::SETTINGS, self.settings.map().fd().as_fd(), self.settings.rows()),
        ];
        tables.into_iter().chain(self.others.iter().map(|(name, fd, entries)| (*name, fd.as_fd(), *entries)))
    }

    /// Starts the use of a free endpoint row: counters at zero, then the address, the tag last.
    pub fn put_endpoint(&self, id: u32, row: &EndpointRow) {
        // Two words of address; `port | used | tag`; `service | weight | marks`.
        const PUBLISH: usize = 2;
        let before = self.endpoints.read(id).map_or(row.service, |before| before.service);
        self.endpoints.write_word(id, PUBLISH, 0);
        self.forget_circuit(id, before);
        self.endpoint_states.write(id, &EndpointState::default(), 0..size_of::<EndpointState>() / 8);
        // A system call, so only where there is something to clear; and before what tells that there is.
        if self.endpoint_counts(id).established > 0 {
            self.endpoint_times.clear(id);
        }
        self.endpoint_counts.clear(id);
        self.endpoints.write(id, row, [0, 1, 3, PUBLISH]);
    }

    /// The endpoint of a free row is back: the row serves it again, with the tag that it had. What was counted of it goes on,
    /// also of its connections that are still open.
    pub fn take_up_endpoint(&self, id: u32, row: &EndpointRow) {
        self.endpoints.write(id, row, [3, 2]);
    }

    /// Ends the use of an endpoint row. Its tag stays until the next use, so that connections that are still open
    /// are counted to their end.
    pub fn free_endpoint(&self, id: u32) {
        if let Some(row) = self.endpoints.read(id) {
            self.endpoints.write(id, &EndpointRow { used: 0, ..row }, [2]);
            self.forget_circuit(id, row.service);
        }
    }

    /// Says how much an endpoint in use weighs now, how near it is, and whether it is in selection.
    pub fn weigh_endpoint(&self, id: u32, weight: u16, marks: u16) {
        if let Some(row) = self.endpoints.read(id) {
            self.endpoints.write(id, &EndpointRow { weight, marks, ..row }, [3]);
            // Who gets no connections has no circuit: an open one would keep a place of those that may be open.
            if marks & endpoint::marks::IN == 0 {
                self.forget_circuit(id, row.service);
            }
        }
    }

    /// Fills a range of the arena that no view shows.
    pub fn put_slots(&self, base: u32, slots: &[Slot]) {
        for (index, slot) in (base..).zip(slots) {
            self.slots.write(index, slot, [0]);
        }
    }

    /// Starts the use of a free service row, counters and turn at zero.
    pub fn put_service(&self, id: u32, row: &ServiceRow) {
        // Kernel memory, so not written where there is nothing to clear.
        if self.picks.read(id) != Picks::default() {
            self.picks.clear(id);
        }
        self.service_counts.clear(id);
        self.service_states.write(id, &ServiceState::default(), 0..size_of::<ServiceState>() / 8);
        self.services.write(id, row, 0..size_of::<ServiceRow>() / 8);
    }

    /// Shows other slots, or picks among them in another way: at once and whole.
    pub fn swap_view(&self, id: u32, set: Set, view: View, shown: Shown) {
        self.services.write_word(id, set as usize * View::ALL.len() + view as usize, shown.word());
    }

    /// Changes what holds for a service besides its views: limits, timeouts, flags.
    pub fn set_terms(&self, id: u32, row: &ServiceRow) {
        self.services.write(id, row, NAME + 1..size_of::<ServiceRow>() / 8);
    }

    /// Ends the use of a service row. A hook that is about to read its views still finds them.
    pub fn free_service(&self, id: u32) {
        self.services.write_word(id, NAME, 0);
    }

    /// Leads a VIP to a service.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the table is full or the kernel has no memory.
    pub fn put_vip(&self, key: &VipKey, row: VipRow) -> Result<(), KernelError> {
        let mut vips = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        vips.insert(Wire(*key), Wire(row), 0).map_err(|e| map_error(names::VIPS, &e))
    }

    /// Makes an address no VIP any more. One that is none already is fine.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the kernel refuses.
    pub fn remove_vip(&self, key: &VipKey) -> Result<(), KernelError> {
        let mut vips = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        match vips.remove(&Wire(*key)) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(e) => Err(map_error(names::VIPS, &e)),
        }
    }

    /// The service behind a VIP.
    #[must_use]
    pub fn vip(&self, key: &VipKey) -> Option<u32> {
        let vips = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        vips.get(&Wire(*key), 0).ok().and_then(|row| row.0.service(key))
    }

    /// How often endpoints of a service were picked, by policy and tier. A system call.
    #[must_use]
    pub fn picks(&self, service: u32) -> Picks {
        self.picks.read(service)
    }

    /// Whether the endpoint that had this slot is the last that had its row: then what is counted there is its own, also after
    /// it was freed.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        self.endpoints.read(slot.id()).is_some_and(|row| row.tag == slot.tag())
    }

    /// What the kernel counted for an endpoint.
    #[must_use]
    pub fn endpoint_counts(&self, id: u32) -> EndpointCounts {
        self.endpoint_counts.read(id).unwrap_or_default()
    }

    /// Adds to a counter of the endpoint in `slot`, unless its row is another one's by now: connections that the kernel did
    /// not see.
    pub fn add_to(&self, slot: Slot, counter: Counter, n: u64) {
        if self.has(slot) {
            self.endpoint_counts.now().add_to_word(slot.id(), counter.word(), n);
        }
    }

    /// How long things took at an endpoint. A system call, unless nothing was ever measured.
    #[must_use]
    pub fn endpoint_times(&self, id: u32) -> EndpointTimes {
        if self.endpoint_counts(id).established > 0 { self.endpoint_times.read(id) } else { EndpointTimes::default() }
    }

    /// What the kernel counted for a service.
    #[must_use]
    pub fn service_counts(&self, id: u32) -> ServiceCounts {
        self.service_counts.read(id).unwrap_or_default()
    }

    /// What every hook is told.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.read(0).unwrap_or_default()
    }

    /// Tells every hook.
    pub fn put_settings(&self, settings: &Settings) {
        self.settings.write(0, settings, 0..size_of::<Settings>() / 8);
    }

    /// Sets or clears one of [`flags`].
    pub fn set_flag(&self, flag: u64, on: bool) {
        self.settings.set_bits(0, 0, flag, on);
    }

    /// The ends of so many connections, in parts of 2^32, are told from now on; all ones: of every one.
    pub fn set_logged(&self, rate: u32) {
        let wanted = u64::from(rate) << flags::LOGGED_SHIFT;
        if self.settings().flags & flags::LOGGED != wanted {
            // In between none are told.
            self.settings.set_bits(0, 0, flags::LOGGED, false);
            self.settings.set_bits(0, 0, wanted, true);
        }
    }

    /// Tells every hook that the daemon lives at `now`, CLOCK_MONOTONIC in nanoseconds.
    pub fn beat(&self, now: u64) {
        /// Position of `heartbeat` in the row.
        const HEARTBEAT: usize = 2;
        self.settings.write_word(0, HEARTBEAT, now);
    }

    /// Tells every hook that the threads that accept connections live at `now`, CLOCK_MONOTONIC in nanoseconds: the
    /// oldest of what they said. 0: there are none.
    pub fn beat_workers(&self, now: u64) {
        /// Position of `workers` in the row.
        const WORKERS: usize = 6;
        self.settings.write_word(0, WORKERS, now);
    }

    /// Where clients of HTTP services are sent.
    #[must_use]
    pub const fn listeners(&self) -> &Listeners {
        &self.capture.listeners
    }

    /// What the client at `client`, in the namespace with the cookie `netns`, dialled when it was sent to a listener: the
    /// VIP, and the index of the service's row. To be asked once for each connection that is accepted: the answer is
    /// forgotten. `None`: nobody sent it. One system call, by as many threads at once as there are.
    #[must_use]
    pub fn take_original(&self, netns: u64, client: SocketAddr) -> Option<(SocketAddr, u32)> {
        self.capture.take_original(netns, client)
    }

    /// Has the connection that `socket` is about to make counted as one of an endpoint, and shown in listings. To be
    /// called before connect(2), for each connect of the socket. Its outcome means nothing to the endpoint's circuit.
    ///
    /// Only sockets of processes in the cgroup that the programs are attached to are seen.
    ///
    /// # Errors
    /// The kernel has no memory for the record.
    pub fn track(&self, socket: BorrowedFd<'_>, upstream: &Upstream<'_>) -> io::Result<()> {
        self.capture.track(socket, upstream)
    }

    /// Leaves the processes of these cgroups (by id) alone, and of no others.
    ///
    /// # Errors
    /// [`KernelError::Map`], if there are too many of them.
    pub fn set_bypassed(&self, cgroups: &BTreeSet<u64>) -> Result<(), KernelError> {
        let mut bypassed = self.bypassed.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = |e: &aya::maps::MapError| map_error(names::BYPASSED, e);
        let present: Vec<u64> = bypassed.keys().filter_map(Result::ok).collect();
        for gone in present.iter().filter(|id| !cgroups.contains(id)) {
            bypassed.remove(gone).map_err(|e| refuse(&e))?;
        }
        for new in cgroups.iter().filter(|id| !present.contains(id)) {
            bypassed.insert(new, 1, 0).map_err(|e| refuse(&e))?;
        }
        // Hooks look at the table only if there is something in it.
        self.set_flag(flags::BYPASSED, !cgroups.is_empty());
        Ok(())
    }

    /// What an earlier daemon left behind.
    #[must_use]
    pub fn existing(&self) -> Existing {
        let vips = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = vips.iter().filter_map(Result::ok);
        let mut existing = Existing { vips: entries.map(|(key, row)| (key.0, row.0)).collect(), ..Existing::default() };
        // The probe's rows are nobody's to adopt.
        let probe = self.probe_rows();
        existing.vips.retain(|(key, row)| row.service(key) != Some(probe.service));
        for id in 0..probe.service {
            existing.services.extend(self.services.read(id).filter(|row| row.name != 0).map(|row| (id, row)));
        }
        for id in 0..probe.endpoint {
            let Some(row) = self.endpoints.read(id) else { continue };
            existing.highest_tag = existing.highest_tag.max(row.tag);
            if row.used == 1 {
                existing.endpoints.push((id, row));
            }
        }
        existing
    }
}

/// Position of `name` in a service's row, as a word.
const NAME: usize = Set::ALL.len() * View::ALL.len();

impl Rows for Tables {
    fn view(&self, service: u32, set: Set, view: View) -> u64 {
        self.services.read_word(service, set as usize * View::ALL.len() + view as usize)
    }

    fn flags(&self, service: u32) -> u64 {
        self.services.read(service).map_or(0, |row| row.flags)
    }

    fn circuit(&self, id: u32) -> Word {
        self.circuit_of(id)
    }

    fn active(&self, id: u32) -> u64 {
        self.endpoint_counts(id).active()
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.read(index)
    }

    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        self.endpoints.read(id)
    }
}

/// How many of a table's rows services can have.
const fn for_services(rows: u32) -> u32 {
    rows.saturating_sub(PROBE_ROWS)
}

fn map_error(map: &str, error: &aya::maps::MapError) -> KernelError {
    KernelError::Map { map: map.to_owned(), why: super::error::chain(error) }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| KernelError::Map { map: name.to_owned(), why: "the object does not have it".to_owned() })
}

/// A descriptor of a map that stays in the object.
fn descriptor(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, KernelError> {
    let fd = data(ebpf, name)?.fd().as_fd().try_clone_to_owned();
    fd.map_err(|e| KernelError::Map { map: name.to_owned(), why: e.to_string() })
}

/// A map with how many entries fit.
fn other(ebpf: &Ebpf, name: &'static str) -> Result<(&'static str, OwnedFd, u32), KernelError> {
    let info = data(ebpf, name)?.info().map_err(|e| map_error(name, &e))?;
    Ok((name, descriptor(ebpf, name)?, info.max_entries()))
}

fn data<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, KernelError> {
    let refuse = |why: &str| KernelError::Map { map: name.to_owned(), why: why.to_owned() };
    match ebpf.map(name).ok_or_else(|| refuse("the object does not have it"))? {
        Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::LruHashMap(data)
        | Map::HashMap(data)
        | Map::RingBuf(data)
        | Map::Array(data) => Ok(data),
        _ => Err(refuse("of an unexpected type")),
    }
}

fn take_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, KernelError> {
    match take(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(KernelError::Map { map: name.to_owned(), why: "not an array".to_owned() }),
    }
}

fn array<T: bytemuck::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Mapped<T>, KernelError> {
    Mapped::new(name, take_array(ebpf, name)?)
}

fn counters<T: bytemuck::Pod>(ebpf: &mut Ebpf, pins: Option<&Pins>, name: &str) -> Result<Summed<T>, KernelError> {
    let earlier = pins.map(|pins| grow::earlier(pins, name)).transpose()?.unwrap_or_default();
    Summed::new(name, take_array(ebpf, name)?, earlier)
}
