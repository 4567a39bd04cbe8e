//! Offsets that the programs need and only the running kernel knows.

use super::btf;
use std::fs;

/// A field that a program reads: structure, name, and what follows where the kernel does not show it.
struct Field {
    global: &'static str,
    structure: &'static str,
    name: &'static str,
    consequence: &'static str,
}

const fn field(global: &'static str, structure: &'static str, name: &'static str, consequence: &'static str) -> Field {
    Field { global, structure, name, consequence }
}

const LIVE: &str = "what live connections carry is counted when they close only";

const FIELDS: [Field; 9] = [
    field("OFFSET_SK_ERR", "sock", "sk_err", "reasons of failed connects are guessed"),
    field("OFFSET_SK_FLAGS", "sock_common", "skc_flags", "received bytes may be a byte short a connection"),
    field("OFFSET_WRITE_SEQ", "tcp_sock", "write_seq", "sent bytes may be a byte short a connection that was cut off"),
    field("OFFSET_SK_STATE", "sock_common", "skc_state", LIVE),
    field("OFFSET_SND_UNA", "tcp_sock", "snd_una", LIVE),
    field("OFFSET_BYTES_ACKED", "tcp_sock", "bytes_acked", LIVE),
    field("OFFSET_BYTES_RECEIVED", "tcp_sock", "bytes_received", LIVE),
    field("OFFSET_TOTAL_RETRANS", "tcp_sock", "total_retrans", LIVE),
    field("OFFSET_SRTT", "tcp_sock", "srtt_us", LIVE),
];

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
    let only = btf::field(&raw, "sock_common", "skc_ipv6only");
    if only.is_none() {
        missing("skc_ipv6only", "IPV6_V6ONLY sockets may be sent to IPv4 endpoints");
    }
    found.push(("OFFSET_IPV6ONLY", only.map_or(0, btf::Field::byte)));
    found.push(("MASK_IPV6ONLY", only.map_or(0, btf::Field::mask)));
    found.push(("HAS_MPTCP", u32::from(btf::field(&raw, "mptcp_sock", "first").is_some())));
    found
}
