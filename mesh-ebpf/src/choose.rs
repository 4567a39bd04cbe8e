//! An endpoint for a connect: the shared choice over the maps, and clients that come back to where they were.

use crate::{
    atomic,
    circuit::{self, InMaps, NS_PER_MS},
    maps::{self, Tables},
};
use aya_ebpf::{
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_loop},
    },
    programs::SockAddrContext,
};
use core::ffi::c_void;
use mesh_common::{
    addr::Address,
    breaker::{self, Entry, Limits, Word},
    client::{ClientKey, ClientRow},
    endpoint::{EndpointRow, Slot},
    reason::Reason,
    select::{self, Choice, Chooser, Head, Rows, Search},
    service::{Set, View},
    settings::Settings,
};

/// The connect hook, as a choice sees it.
pub(crate) struct Hook<'a> {
    pub(crate) ctx: &'a SockAddrContext,
    pub(crate) service: u32,
    /// Whether the socket is `AF_INET6`.
    pub(crate) v6_socket: bool,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub(crate) now: u64,
}

impl Hook<'_> {
    /// An endpoint among those that `view` shows.
    #[inline(always)]
    pub(crate) fn choose(&self, view: View, settings: &Settings) -> Result<Choice, Reason> {
        let attended = settings.is_attended(self.now);
        let set = if attended { Set::Attended } else { Set::Alone };
        let affinity = maps::affinity_ms(self.service);
        if affinity != 0
            && let Some(slot) = self.met_before(&self.client_key(settings, view), affinity, attended)
        {
            return Ok(Choice { slot, entry: Entry::Free });
        }
        let choice = select::choose(self, self.service, view, set)?;
        // The key of a client that is new is made again: one that is kept would have the verifier go through the choice
        // once with it and once without.
        if affinity as usize ^ unknown_zero(self.now) != 0 {
            maps::remember_client(&self.client_key(settings, view), &ClientRow { slot: choice.slot.0, at: self.now });
        }
        Ok(choice)
    }

    /// Where this client went less than `affinity` milliseconds ago, if it may go there again.
    #[inline(always)]
    fn met_before(&self, key: &ClientKey, affinity: u32, attended: bool) -> Option<Slot> {
        let row = maps::client(key)?;
        // SAFETY: words inside the row.
        let (slot, at) = unsafe { (Slot(atomic::read(&raw const (*row).slot)), atomic::read(&raw const (*row).at)) };
        if self.now.saturating_sub(at) >= u64::from(affinity) * NS_PER_MS
            || !select::is_kept(self, self.service, slot, attended, maps::limits(self.service).failure_threshold)
        {
            return None;
        }
        // SAFETY: a word inside the row.
        unsafe { (&raw mut (*row).at).write_volatile(self.now) };
        Some(slot)
    }

    /// Who connects.
    #[inline(always)]
    fn client_key(&self, settings: &Settings, view: View) -> ClientKey {
        // SAFETY: fields of the context and of its socket; helpers that answer numbers.
        unsafe {
            let addr = self.ctx.sock_addr;
            let sk = (*addr).__bindgen_anon_1.sk;
            let source = if sk.is_null() {
                Address { words: [0; 4] }
            } else if self.v6_socket {
                let ip = &raw const (*sk).src_ip6;
                Address::v6([(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]])
            } else {
                let ip = (*sk).src_ip4;
                if ip == 0 { Address { words: [0; 4] } } else { Address::v4(ip) }
            };
            let netns = bpf_get_netns_cookie(addr.cast());
            ClientKey::new(source, netns, settings.netns, bpf_get_current_cgroup_id(), self.service, view)
        }
    }
}

/// 0, which neither the compiler nor the verifier knows: `now` counts nanoseconds since the machine started, and reaches
/// these bits after 36 years. A number that is combined with it is forgotten, so that the verifier goes through what
/// follows once, and not once for each number.
#[inline(always)]
pub(crate) const fn unknown_zero(now: u64) -> usize {
    (now >> 60) as usize
}

/// A search that goes on.
struct Going<'a> {
    hook: &'a Hook<'a>,
    search: &'a mut Search,
    from: u32,
}

/// One more look; 1: it was the last.
unsafe extern "C" fn look_again(index: u64, going: *mut c_void) -> i64 {
    // SAFETY: what `look_on` passes.
    let going = unsafe { &mut *going.cast::<Going<'_>>() };
    i64::from(select::look(going.hook, going.search, going.from + index as u32))
}

impl Rows for Hook<'_> {
    #[inline(always)]
    fn view(&self, service: u32, set: Set, view: View) -> u64 {
        Tables.view_at(service, (set as usize * View::ALL.len() + view as usize) ^ unknown_zero(self.now))
    }
    #[inline(always)]
    fn flags(&self, service: u32) -> u64 {
        Tables.flags(service)
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        Tables.slot(index)
    }
    #[inline(always)]
    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        Tables.endpoint(id)
    }
    #[inline(always)]
    fn head(&self, id: u32) -> Option<Head> {
        Tables.head(id)
    }
    #[inline(always)]
    fn circuit(&self, id: u32) -> Word {
        Tables.circuit(id)
    }
    #[inline(always)]
    fn active(&self, id: u32) -> u64 {
        Tables.active(id)
    }
}

impl Chooser for Hook<'_> {
    #[inline(always)]
    fn turn(&self, service: u32) -> u32 {
        // SAFETY: a word inside the row.
        maps::service_state(service).map_or(0, |row| unsafe { atomic::add(&raw mut (*row).turn, 1) } as u32)
    }

    #[inline(always)]
    fn chance(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn client(&self) -> u32 {
        self.client_key(&maps::settings(), View::Any).hash()
    }

    #[inline(always)]
    fn limits(&self, service: u32) -> Limits {
        maps::limits(service)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.now / NS_PER_MS
    }

    #[inline(always)]
    fn enter(&self, slot: Slot, service: u32, word: Word, now: u64, limits: &Limits) -> Option<Entry> {
        let state = maps::endpoint_state(slot.id())?;
        let circuit = InMaps { id: slot.id(), tag: slot.tag(), service, state };
        breaker::enter(&circuit, word, now, limits)
    }

    #[inline(always)]
    fn is_wholly_open(&self, service: u32, limits: &Limits) -> bool {
        // SAFETY: a word inside the row.
        maps::service_state(service)
            .is_some_and(|row| unsafe { atomic::read(&raw const (*row).open) } >= u64::from(limits.endpoints))
    }

    #[inline(always)]
    fn look_on(&self, from: u32, to: u32, search: &mut Search) {
        let mut going = Going { hook: self, search, from };
        // SAFETY: the callback gets what it takes; the helper runs it before it returns.
        unsafe { bpf_loop(to - from, look_again as *mut c_void, (&raw mut going).cast(), 0) };
    }

    #[inline(always)]
    fn may_try(&self, service: u32, now: u64, limits: &Limits) -> bool {
        circuit::may_try(service, now, limits)
    }
}
