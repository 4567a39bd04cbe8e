//! What becomes of a translated connection: opened, established or failed, closed, and the bytes it carried.

use crate::{
    atomic, capture,
    circuit::{self, Connection},
    deadline, maps,
    sock::Tcp,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::SockOpsContext};
use core::ffi::c_void;
use mesh_common::{
    addr::Address,
    breaker::{Outcome, Word},
    connection::{Counters, Live, Record, Traffic, entering_means_fin, marks, stage, tcp},
    endpoint::EndpointCounts,
    event::ERROR_UNKNOWN,
    reason::{Failure, Reason},
    service::VipKey,
};

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: the local port is chosen, the SYN not yet sent.
pub(crate) const TCP_CONNECT: u32 = 3;
/// `BPF_SOCK_OPS_RETRANS_CB`: a segment is sent again.
pub(crate) const RETRANSMIT: u32 = 9;
/// `BPF_SOCK_OPS_STATE_CB`: the connection enters another state.
pub(crate) const STATE: u32 = 10;
/// `BPF_SOCK_OPS_RTT_CB`: a round trip was measured.
pub(crate) const ROUND_TRIP: u32 = 12;
/// `BPF_SOCK_OPS_RETRANS_CB_FLAG`: asks for [`RETRANSMIT`].
const RETRANSMIT_FLAG: u32 = 2;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`: asks for [`STATE`].
const STATE_FLAG: u32 = 4;
/// `BPF_SOCK_OPS_RTT_CB_FLAG`: asks for [`ROUND_TRIP`].
const ROUND_TRIP_FLAG: u32 = 8;
const AF_INET: u32 = 2;
/// Where the error of a failed connect is not known, one that ends within this time was refused.
const FAST_NS: u64 = 1_000_000_000;
/// A connection that has lived so long was of use, whatever it carried; one that is reset earlier with nothing
/// received was not.
const YOUNG_NS: u64 = 1_000_000_000;

/// The record of this event's socket, if it was ever translated. It lives as long as the program runs.
#[inline(always)]
fn record(ctx: &SockOpsContext) -> Option<&'static mut Record> {
    // SAFETY: a field of the context.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the context's socket, not null; sock_ops runs under the socket's lock, so nobody else holds the record.
    unsafe { maps::record(sk.cast(), 0).as_mut() }
}

/// TCP begins to connect.
#[inline(always)]
pub(crate) fn opening(ctx: &SockOpsContext) -> Told {
    let record = record(ctx)?;
    let port = (u32::from_be(ctx.remote_port()) as u16).to_be();
    let is_ours = matches!(record.stage, stage::PICKED | stage::CAPTURED);
    if !is_ours || port != record.endpoint_port || remote(ctx) != record.endpoint {
        // The socket that we translated once connects elsewhere now.
        record.stage = stage::NONE;
        return None;
    }
    // SAFETY: a helper without arguments.
    record.opened_at = unsafe { bpf_ktime_get_ns() };
    (record.local, record.local_port) = local(ctx, record.endpoint.is_v4());
    if record.stage == stage::CAPTURED {
        watch(ctx, STATE_FLAG, 0);
        // SAFETY: the socket's record.
        unsafe { capture::opening(record) };
        return None;
    }
    record.stage = stage::OPENING;
    // What the daemon makes is looked after by the daemon.
    let flags = if is_daemons(record) { STATE_FLAG } else { STATE_FLAG | RETRANSMIT_FLAG };
    if !watch(ctx, flags, 0) {
        return None;
    }
    deadline::begin(ctx, record);
    if let Some(counts) = maps::endpoint_counts(record.id, record.tag) {
        // SAFETY: a word inside the row.
        unsafe { atomic::add(&raw mut (*counts).opened, 1) };
    }
    None
}

/// Asks for events of this socket, and no longer for others. Flags are shared by all programs of the socket: what others
/// set stays.
#[inline(always)]
fn watch(ctx: &SockOpsContext, more: u32, less: u32) -> bool {
    ctx.set_cb_flags(((ctx.cb_flags() | more) & !less).cast_signed()).is_ok()
}

/// The connection as its endpoint's circuit sees it; `None` once the endpoint is another one or gone.
#[inline(always)]
fn connection(record: &Record) -> Option<Connection> {
    if is_daemons(record) || !maps::is_used(record.id, record.tag) {
        return None;
    }
    let probe_since = if record.marks & marks::PROBE == 0 { 0 } else { record.picked_at };
    Some(Connection { id: record.id, tag: record.tag, service: record.service, probe_since })
}

/// Brings what became of a connection to its endpoint's circuit.
#[inline(always)]
pub(crate) fn report(record: &Record, outcome: Outcome) {
    if let Some(connection) = connection(record) {
        circuit::report(&connection, outcome);
    }
}

/// What became of a connection, for its endpoint's circuit. Reported at one place in a program: the verifier goes
/// through it anew wherever it stands.
pub(crate) type Told = Option<(&'static mut Record, Outcome)>;

/// A segment is sent again. Of a SYN that says that nobody answers, or not in time; unless it cannot get out of this
/// machine (a filter, a full queue): then nobody was asked.
#[inline(always)]
pub(crate) fn sent_again(ctx: &SockOpsContext) -> Told {
    let record = record(ctx)?;
    if record.stage != stage::OPENING || record.marks & marks::SUSPECT != 0 {
        return None;
    }
    let error = ctx.arg(2);
    if error != 0 {
        record.marks |= marks::STUCK;
        return None;
    }
    record.marks = record.marks & !marks::STUCK | marks::SUSPECT;
    Some((record, Outcome::Suspect))
}

/// TCP asks how long to wait for an answer to its SYN.
#[inline(always)]
pub(crate) fn first_answer(ctx: &SockOpsContext) -> Told {
    if let Some(ticks) = record(ctx).and_then(|record| deadline::first(record)) {
        // SAFETY: a field of the context.
        unsafe { (&raw mut (*ctx.ops).__bindgen_anon_1.reply).write_volatile(ticks) };
    }
    None
}

/// A round trip was measured, at a connection whose first byte is waited for.
#[inline(always)]
pub(crate) fn round_trip(ctx: &SockOpsContext) -> Told {
    let record = record(ctx)?;
    // SAFETY: a field of the context.
    let received = unsafe { (*ctx.ops).bytes_received };
    if record.marks & marks::WATCHED == 0 || record.stage != stage::ESTABLISHED || !is_of_use(record, received) {
        return None;
    }
    let news = is_news(record);
    record.marks &= !marks::WATCHED;
    watch(ctx, 0, ROUND_TRIP_FLAG);
    if news { Some((record, Outcome::Alive)) } else { None }
}

/// Whether it is news to the endpoint's circuit that this connection is of use, which it is once: where it was established
/// when something spoke against the endpoint already. That an older one goes on says nothing about new ones: a server that
/// has closed its listener keeps those, and one that is gone seems to.
#[inline(always)]
const fn is_news(record: &mut Record) -> bool {
    let is = record.marks & (marks::WATCHED | marks::TOLD) == marks::WATCHED;
    record.marks |= marks::TOLD;
    is
}

/// Whether an established connection shows that its endpoint works: something came back, or it has lived for a while.
#[inline(always)]
fn is_of_use(record: &Record, received: u64) -> bool {
    // SAFETY: a helper without arguments.
    received > 0 || unsafe { bpf_ktime_get_ns() } - record.established_at >= YOUNG_NS
}

/// The connection goes from one TCP state to another.
#[inline(always)]
pub(crate) fn changed(ctx: &SockOpsContext) -> Told {
    let (old, new) = (ctx.arg(0), ctx.arg(1));
    let record = record(ctx)?;
    if record.stage == stage::CAPTURED && new == tcp::CLOSE {
        record.stage = stage::NONE;
        // SAFETY: the socket's record.
        unsafe { capture::closed(record, old) };
    }
    if !is_counted(record) {
        return None;
    }
    let mut outcome = None;
    let counts = maps::endpoint_counts(record.id, record.tag);
    // SAFETY: a field of the context.
    let received = unsafe { (*ctx.ops).bytes_received };
    if entering_means_fin(new) {
        record.fin_received = 1;
    }
    match new {
        tcp::ESTABLISHED => {
            record.stage = stage::ESTABLISHED;
            // SAFETY: a helper without arguments.
            record.established_at = unsafe { bpf_ktime_get_ns() };
            if let Some(counts) = counts {
                // SAFETY: a word inside the row.
                unsafe { atomic::add(&raw mut (*counts).established, 1) };
                if let Some(times) = maps::endpoint_times(record.id) {
                    // SAFETY: inside the row.
                    unsafe { maps::measure(&raw mut (*times).connect, record.established_at - record.opened_at) };
                }
                outcome = established(ctx, record);
            }
            deadline::end(ctx, record);
        }
        tcp::FIN_WAIT2 => record.received_at_fin_wait2 = received,
        tcp::CLOSE => {
            let end = end(ctx, record, old);
            if let Some(counts) = counts {
                outcome = closed(record, &end, counts);
            }
            // What the daemon makes for requests is told of as requests.
            if !is_daemons(record) && record.is_logged(maps::logged()) {
                tell_ended(record, &end, old);
            }
            deadline::end(ctx, record);
            record.stage = stage::NONE;
        }
        _ => {}
    }
    Some((record, outcome?))
}

/// The endpoint took the connection: what its circuit is to hear.
#[inline(always)]
fn established(ctx: &SockOpsContext, record: &mut Record) -> Option<Outcome> {
    let state = maps::endpoint_state(record.id)?;
    // SAFETY: words inside the row.
    let calm = unsafe {
        (&raw mut (*state).established_at).write_volatile(record.established_at);
        (&raw mut (*state).connect_ns).write_volatile(record.established_at - record.opened_at);
        Word(atomic::read(&raw const (*state).circuit)).is_calm()
    };
    // What is sent again from now on is everyday loss.
    if calm || is_daemons(record) {
        watch(ctx, 0, RETRANSMIT_FLAG);
        return None;
    }
    // Only now is it worth an event for each measurement to see the first byte come.
    record.marks |= marks::WATCHED;
    watch(ctx, ROUND_TRIP_FLAG, RETRANSMIT_FLAG);
    Some(Outcome::Established)
}

/// Whether `record` is of a connection whose life is counted.
#[inline(always)]
const fn is_counted(record: &Record) -> bool {
    matches!(record.stage, stage::OPENING | stage::ESTABLISHED)
}

/// Whether `record` is of a connection that the daemon made for a service.
#[inline(always)]
const fn is_daemons(record: &Record) -> bool {
    record.marks & marks::PROXIED != 0
}

/// Whether `record` is that of a connection that the daemon is about to make, and has noted itself.
///
/// # Safety
/// `record` is a socket's record.
#[inline(always)]
pub(crate) unsafe fn is_tracked(record: *const Record) -> bool {
    // SAFETY: the caller's.
    unsafe { (*record).stage == stage::PICKED && (*record).marks & marks::PROXIED != 0 }
}

/// How a connection ends.
struct End {
    /// What broke it off ([`Tcp::error`]).
    error: Option<i32>,
    /// Whether its peer took all that was sent, which was something, and then closed it in good order.
    is_heard: bool,
    /// What it carried in all.
    traffic: Traffic,
    rtt_us: u32,
}

/// How the connection ends that goes from the state `old` to its end.
#[inline(always)]
fn end(ctx: &SockOpsContext, record: &Record, old: u32) -> End {
    let ops = ctx.ops;
    // SAFETY: fields of the context.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    let tcp = if sk.is_null() { None } else { Tcp::of(sk.cast()) };
    // SAFETY: fields of the context.
    let (at, rtt_us) = unsafe {
        let at = Counters {
            state: old,
            bytes_acked: (*ops).bytes_acked,
            bytes_received: (*ops).bytes_received,
            // What was sent may be acknowledged while the FIN still waits behind data that could not leave.
            all_acknowledged: (*ops).snd_una == tcp.and_then(Tcp::write_seq).unwrap_or((*ops).snd_nxt),
            fin_received: tcp.and_then(Tcp::fin_received),
            retransmits: (*ops).total_retrans,
        };
        (at, (*ops).srtt_us >> 3)
    };
    let (error, traffic) = (tcp.and_then(|tcp| tcp.error(old)), record.traffic(&at));
    let is_heard = error == Some(0) && at.fin_received == Some(true) && at.all_acknowledged && traffic.sent > 0;
    End { error, is_heard, traffic, rtt_us }
}

/// Tells the daemon of it.
#[inline(always)]
fn tell_ended(record: &Record, end: &End, old: u32) {
    let error = end.error.unwrap_or(ERROR_UNKNOWN);
    // SAFETY: a helper without arguments.
    let at = unsafe { bpf_ktime_get_ns() };
    maps::tell_ended(record, &end.traffic, at, (old, end.rtt_us, error));
}

/// Adds a connection that ends to its endpoint's counters. What the endpoint's circuit is to hear.
#[inline(always)]
fn closed(record: &mut Record, end: &End, counts: *mut EndpointCounts) -> Option<Outcome> {
    let End { error, is_heard, ref traffic, rtt_us } = *end;
    let more = record.fold(traffic);
    // SAFETY: words inside the row.
    unsafe {
        maps::add_traffic(counts, &more);
        atomic::add(&raw mut (*counts).closed, 1);
    }
    if record.stage == stage::ESTABLISHED {
        if rtt_us > 0
            && let Some(times) = maps::endpoint_times(record.id)
        {
            // SAFETY: inside the row.
            unsafe { maps::measure(&raw mut (*times).rtt, u64::from(rtt_us) * 1000) };
        }
        // Servers of some protocols never say a word.
        if is_heard || is_of_use(record, traffic.received) {
            return is_news(record).then_some(Outcome::Alive);
        }
        let reset = matches!(error.and_then(Failure::from_errno), Some(Failure::Reset));
        return reset.then_some(Outcome::Failure);
    }
    let failure = failure(record, error);
    if let Some(failure) = failure {
        // SAFETY: a row of counters.
        unsafe { maps::count_failure(counts, failure) };
    }
    Some(match failure {
        None => Outcome::Nothing,
        Some(Failure::Timeout) if record.marks & marks::STUCK != 0 => Outcome::Nothing,
        Some(Failure::Timeout) => Outcome::Timeout,
        Some(_) => Outcome::Failure,
    })
}

/// Why a connection that was never established ended; `None`: our own side gave up.
#[inline(always)]
fn failure(record: &Record, error: Option<i32>) -> Option<Failure> {
    match error {
        Some(errno) => Failure::from_errno(errno),
        // SAFETY: a helper without arguments.
        None => (unsafe { bpf_ktime_get_ns() } - record.picked_at < FAST_NS).then_some(Failure::Refused),
    }
}

/// The record of a socket's live connection with what it carried until now, which is in its endpoint's counters from
/// now on. The caller holds the socket's lock.
#[inline(always)]
pub(crate) fn live(sk: *mut c_void) -> Option<Live> {
    // SAFETY: a socket, not null, locked by the caller.
    let record = unsafe { maps::record(sk, 0).as_mut()? };
    if !is_counted(record) {
        return None;
    }
    let (at, rtt_us) = Tcp::of(sk)?.counters()?;
    let traffic = record.traffic(&at);
    if let Some(counts) = maps::endpoint_counts(record.id, record.tag) {
        let more = record.fold(&traffic);
        if more != Traffic::default() {
            // SAFETY: a row of counters.
            unsafe { maps::add_traffic(counts, &more) };
        }
        if record.stage == stage::ESTABLISHED && is_of_use(record, traffic.received) && is_news(record) {
            report(record, Outcome::Alive);
        }
    }
    Some(Live { record: *record, traffic, state: at.state, rtt_us })
}

/// Settles a socket that was sent to an endpoint, or to the daemon, and that TCP never heard of: there was no route, or no local port.
/// A function of its own: what it leaves on its stack is nothing that the verifier follows into the rest of the hook.
///
/// # Safety
/// `record` is a socket's record.
#[inline(never)]
pub(crate) unsafe fn settle(record: *mut Record) {
    // SAFETY: the caller's.
    unsafe {
        if (*record).stage == stage::PICKED {
            (*record).stage = stage::NONE;
            // The service's row may serve another one by now; its endpoint's tag tells.
            if maps::endpoint_counts((*record).id, (*record).tag).is_some() {
                maps::count((*record).service, Reason::LocalTrouble);
                report(&*record, Outcome::Nothing);
            }
        } else if (*record).stage == stage::CAPTURED && (*record).opened_at == 0 {
            (*record).stage = stage::NONE;
            let service = (*record).service;
            // The same: the VIP tells.
            let vip = VipKey::tcp((*record).original, (*record).original_port);
            if maps::service(&vip).is_some_and(|(now, _)| now == service) {
                maps::count(service, Reason::LocalTrouble);
            }
        }
    }
}

/// The socket's own address and port (network byte order), as the endpoint sees them on this side of any translation.
#[inline(always)]
fn local(ctx: &SockOpsContext, v4: bool) -> (Address, u16) {
    let ops = ctx.ops;
    // SAFETY: fields of the context, all readable whatever the family; volatile as in `remote`.
    unsafe {
        let port = (&raw const (*ops).local_port).read_volatile();
        let ip4 = (&raw const (*ops).local_ip4).read_volatile();
        let ip6 = (&raw const (*ops).local_ip6).cast::<u32>();
        let words =
            [ip6.read_volatile(), ip6.add(1).read_volatile(), ip6.add(2).read_volatile(), ip6.add(3).read_volatile()];
        (if v4 { Address::v4(ip4) } else { Address::v6(words) }, (port as u16).to_be())
    }
}

/// The peer's address; IPv4 is v4-mapped.
///
/// Both families are read, and volatile: the compiler would make one load at a computed offset of two branches, which
/// the verifier refuses.
#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Address {
    let ops = ctx.ops;
    // SAFETY: fields of the context, all readable whatever the family.
    unsafe {
        let v4 = (&raw const (*ops).remote_ip4).read_volatile();
        let v6 = (&raw const (*ops).remote_ip6).cast::<u32>();
        let words =
            [v6.read_volatile(), v6.add(1).read_volatile(), v6.add(2).read_volatile(), v6.add(3).read_volatile()];
        if (*ops).family == AF_INET { Address::v4(v4) } else { Address::v6(words) }
    }
}
