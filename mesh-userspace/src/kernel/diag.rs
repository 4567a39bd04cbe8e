//! Sockets with their records by way of INET_DIAG: for kernels that refuse the iterator, and to learn whether any
//! socket still has a record of another layout.
//!
//! Formats: include/uapi/linux/{netlink,sock_diag,inet_diag,tcp}.h. Nothing is trusted to be as long as it says.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// A socket that has a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<'a> {
    /// The record's bytes.
    pub(super) record: &'a [u8],
    /// The socket's state, of [`mesh_common::connection::tcp`].
    pub(super) state: u32,
    /// `struct tcp_info`, as far as this kernel fills it.
    pub(super) info: TcpInfo<'a>,
}

/// `struct tcp_info`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpInfo<'a>(&'a [u8]);

impl TcpInfo<'_> {
    /// `tcpi_rtt`: smoothed round-trip time in microseconds.
    pub(super) fn rtt_us(self) -> u32 {
        u32_at(self.0, 68).unwrap_or(0)
    }

    /// `tcpi_total_retrans`.
    pub(super) fn retransmits(self) -> u32 {
        u32_at(self.0, 100).unwrap_or(0)
    }

    /// `tcpi_bytes_acked`.
    pub(super) fn bytes_acked(self) -> u64 {
        u64_at(self.0, 120).unwrap_or(0)
    }

    /// `tcpi_bytes_received`.
    pub(super) fn bytes_received(self) -> u64 {
        u64_at(self.0, 128).unwrap_or(0)
    }
}

/// `NETLINK_SOCK_DIAG`'s one request.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `INET_DIAG_INFO`, an attribute and, less one, a bit of what is asked for.
const INET_DIAG_INFO: u16 = 2;
/// `INET_DIAG_REQ_SK_BPF_STORAGES`.
const REQUEST_STORAGES: u16 = 2;
/// `INET_DIAG_SK_BPF_STORAGES`.
const STORAGES: u16 = 20;
/// `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`.
const REQUEST_MAP: u16 = 1;
/// `SK_DIAG_BPF_STORAGE`, with a `SK_DIAG_BPF_STORAGE_MAP_VALUE` in it.
const STORAGE: u16 = 1;
const VALUE: u16 = 3;
/// The nesting flag and the byte order flag in an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Shows every TCP socket of the calling thread's network namespace that has a record in `map` to `visit`.
///
/// # Errors
/// What the kernel said.
pub(super) fn dump(map: BorrowedFd<'_>, visit: &mut dyn FnMut(Held<'_>)) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let netlink =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        send(netlink.as_raw_fd(), &request(family, map), MsgFlags::empty())?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if messages(&buffer[..length], visit)? {
                break;
            }
        }
    }
    Ok(())
}

/// Asks for all sockets of a family with TCP's numbers and their records in one map.
fn request(family: libc::c_int, map: BorrowedFd<'_>) -> Vec<u8> {
    let mut message = Vec::with_capacity(84);
    // struct nlmsghdr: length (filled in below), type, flags, sequence, port.
    message.extend([0; 4]);
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, and a socket's id that matches all.
    message.extend([family.cast_unsigned() as u8, libc::IPPROTO_TCP as u8, 1 << (INET_DIAG_INFO - 1), 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend([0; 48]);
    // The map, in a nested attribute.
    for word in [12, REQUEST_STORAGES, 8, REQUEST_MAP] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(map.as_raw_fd().to_ne_bytes());
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// Reads the messages of one datagram. Whether the last one was among them.
fn messages(mut datagram: &[u8], visit: &mut dyn FnMut(Held<'_>)) -> io::Result<bool> {
    const HEADER: usize = 16;
    while let Some(length) = u32_at(datagram, 0) {
        let message = datagram.get(..length as usize).filter(|m| m.len() >= HEADER).ok_or_else(truncated)?;
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let errno = u32_at(message, HEADER).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(-errno));
            }
            Some(SOCK_DIAG_BY_FAMILY) => {
                if let Some(held) = held(&message[HEADER..]) {
                    visit(held);
                }
            }
            _ => {}
        }
        datagram = datagram.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// A socket of a `struct inet_diag_msg` with its attributes, if it has a record.
fn held(message: &[u8]) -> Option<Held<'_>> {
    /// The size of `struct inet_diag_msg`.
    const FIXED: usize = 72;
    let found = attributes(message.get(FIXED..)?);
    let storages = attribute(found.clone(), STORAGES)?;
    let record = attribute(attributes(attribute(attributes(storages), STORAGE)?), VALUE)?;
    let info = attribute(found, INET_DIAG_INFO).unwrap_or_default();
    Some(Held { record, state: u32::from(*message.get(1)?), info: TcpInfo(info) })
}

fn attribute<'a>(mut attributes: impl Iterator<Item = (u16, &'a [u8])>, wanted: u16) -> Option<&'a [u8]> {
    attributes.find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Attributes (`struct nlattr`), until one is not whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> + Clone {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)? & TYPE_MASK);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer is not whole")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn a_socket_without_a_record_is_left_out() {
        let mut seen = 0;
        let mut datagram = message(SOCK_DIAG_BY_FAMILY, &[0; 72]);
        datagram.extend(message(NLMSG_DONE, &[0; 4]));
        assert!(messages(&datagram, &mut |_| seen += 1).unwrap());
        assert_eq!(seen, 0);
    }

    #[test]
    fn an_error_of_the_kernel_is_told() {
        let error = messages(&message(NLMSG_ERROR, &(-1i32).to_ne_bytes()), &mut |_| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
            let mut datagram = message(SOCK_DIAG_BY_FAMILY, &body);
            datagram.truncate(cut);
            let _ = messages(&datagram, &mut |_| ());
            let _ = messages(&body, &mut |_| ());
        }
    }
}
