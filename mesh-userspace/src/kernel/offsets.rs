//! Offsets that the programs need and only the running kernel knows.

use super::btf;
use std::fs;

/// A field that a program reads: structure, name, and what follows where the kernel does not show it.
struct Field {
    global: &'static str,
    structure: &'static str,
    name: &'static str,
    consequence: &'static str,
    /// Whether the program that looks at live connections cannot do without it.
    live: bool,
}

const fn field(global: &'static str, structure: &'static str, name: &'static str, consequence: &'static str) -> Field {
    Field { global, structure, name, consequence, live: false }
}

const fn live(global: &'static str, structure: &'static str, name: &'static str, consequence: &'static str) -> Field {
    Field { global, structure, name, consequence, live: true }
}

pub(super) const LIVE: &str = "what live connections carry is counted when they close only";

const WRITE_SEQ: &str = "sent bytes may be a byte short a connection that was cut off, and what live connections carry is \
                         counted when they close only";

const FIELDS: [Field; 10] = [
    field("OFFSET_SK_ERR", "sock", "sk_err", "reasons of failed connects are guessed"),
    field("OFFSET_SK_SHUTDOWN", "sock", "sk_shutdown", "answers to who no longer listens may count as resets"),
    field("OFFSET_SK_FLAGS", "sock_common", "skc_flags", "received bytes may be a byte short a connection"),
    live("OFFSET_WRITE_SEQ", "tcp_sock", "write_seq", WRITE_SEQ),
    live("OFFSET_SK_STATE", "sock_common", "skc_state", LIVE),
    live("OFFSET_SND_UNA", "tcp_sock", "snd_una", LIVE),
    live("OFFSET_BYTES_ACKED", "tcp_sock", "bytes_acked", LIVE),
    live("OFFSET_BYTES_RECEIVED", "tcp_sock", "bytes_received", LIVE),
    live("OFFSET_TOTAL_RETRANS", "tcp_sock", "total_retrans", LIVE),
    live("OFFSET_SRTT", "tcp_sock", "srtt_us", LIVE),
];

/// A bit field: it has a mask too.
const IPV6ONLY: Field =
    field("OFFSET_IPV6ONLY", "sock_common", "skc_ipv6only", "IPV6_V6ONLY sockets may be sent to IPv4 endpoints");

/// The globals of the object with their values, 0 where this kernel does not show the field. What follows from that is
/// added to `notes`.
pub(super) fn find(notes: &mut Vec<String>) -> Vec<(&'static str, u32)> {
    let raw = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let mut missing = |name: &str, consequence: &str| {
        notes.push(format!("the kernel's BTF does not show {name}: {consequence}"));
    };
    let mut found = Vec::with_capacity(FIELDS.len() + 3);
    for field in &FIELDS {
        let offset = btf::field(&raw, field.structure, field.name);
        if offset.is_none() {
            missing(field.name, field.consequence);
        }
        found.push((field.global, offset.map_or(0, btf::Field::byte)));
    }
    let only = btf::field(&raw, IPV6ONLY.structure, IPV6ONLY.name);
    if only.is_none() {
        missing(IPV6ONLY.name, IPV6ONLY.consequence);
    }
    found.push((IPV6ONLY.global, only.map_or(0, btf::Field::byte)));
    found.push(("MASK_IPV6ONLY", only.map_or(0, btf::Field::mask)));
    let tick = tick_ns();
    if tick == 0 {
        notes.push("the length of the kernel's tick is not known: black holes are not seen sooner".to_owned());
    }
    found.push(("TICK_NS", tick));
    found.push(("HAS_MPTCP", u32::from(btf::field(&raw, "mptcp_sock", "first").is_some())));
    found
}

/// The first field that the program which looks at live connections needs and this kernel does not show; `found` is what
/// [`find`] found.
pub(super) fn hidden_from_live(found: &[(&str, u32)]) -> Option<String> {
    let hidden = |field: &&Field| field.live && found.contains(&(field.global, 0));
    FIELDS.iter().find(hidden).map(|field| format!("the kernel's BTF does not show {}.{}", field.structure, field.name))
}

/// Nanoseconds of a tick of the kernel's timers, which is how exact its coarse clocks are; 0: not known.
fn tick_ns() -> u32 {
    let coarse = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
    coarse.ok().and_then(|tick| u32::try_from(std::time::Duration::from(tick).as_nanos()).ok()).unwrap_or(0)
}

/// A field that the programs read, and whether this kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSeen {
    /// `structure.field`.
    pub name: String,
    /// Bytes from the start of the structure; `None`: not shown.
    pub offset: Option<u32>,
    /// What follows where it is not shown.
    pub consequence: &'static str,
}

/// Every field that the programs read.
#[must_use]
pub fn fields() -> Vec<FieldSeen> {
    let raw = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let seen = |field: &Field| FieldSeen {
        name: format!("{}.{}", field.structure, field.name),
        offset: btf::field(&raw, field.structure, field.name).map(btf::Field::byte),
        consequence: field.consequence,
    };
    FIELDS.iter().chain([&IPV6ONLY]).map(seen).collect()
}
