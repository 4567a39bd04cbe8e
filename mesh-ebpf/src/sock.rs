//! Fields of kernel sockets that no context shows, read at offsets that the daemon takes from the kernel's BTF.
//!
//! An offset of 0 means that the daemon did not find the field: the reader says "not known".

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_skc_to_mptcp_sock, bpf_skc_to_tcp_sock},
};
use core::ffi::c_void;
use mesh_common::connection::{Counters, tcp};

/// Declares offsets that the daemon sets when it loads the object.
macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        $($(#[$doc])* #[unsafe(no_mangle)] static $name: Global<u32> = Global::new(0);)+
    };
}

offsets! {
    /// Offset of `sk_err` in `struct sock`.
    OFFSET_SK_ERR,
    /// Offset of `sk_shutdown` there.
    OFFSET_SK_SHUTDOWN,
    /// Offset of `skc_flags` in `struct sock_common`, which begins `struct sock`.
    OFFSET_SK_FLAGS,
    /// Offset of `skc_state` there.
    OFFSET_SK_STATE,
    /// Offset of the byte that holds `skc_ipv6only` there.
    OFFSET_IPV6ONLY,
    /// The bit in that byte.
    MASK_IPV6ONLY,
    /// Offset of `write_seq` in `struct tcp_sock`.
    OFFSET_WRITE_SEQ,
    /// Offset of `snd_una` there.
    OFFSET_SND_UNA,
    /// Offset of `bytes_acked` there.
    OFFSET_BYTES_ACKED,
    /// Offset of `bytes_received` there.
    OFFSET_BYTES_RECEIVED,
    /// Offset of `total_retrans` there.
    OFFSET_TOTAL_RETRANS,
    /// Offset of `srtt_us` there.
    OFFSET_SRTT,
    /// Nanoseconds of a tick of the kernel's timers (1 / `CONFIG_HZ`).
    TICK_NS,
    /// 1 where the kernel knows MPTCP; a kernel without it refuses the helper.
    HAS_MPTCP,
}

/// Milliseconds as ticks of the kernel's timers, at least one; `None` where their length is not known.
#[inline(always)]
pub(crate) fn ticks(ms: u32) -> Option<u32> {
    let tick = u64::from(TICK_NS.load());
    if tick == 0 {
        return None;
    }
    let ticks = u64::from(ms) * 1_000_000 / tick;
    Some(if ticks == 0 { 1 } else { ticks as u32 })
}

/// A TCP socket whose fields can be read.
#[derive(Clone, Copy)]
pub(crate) struct Tcp(*const u8);

impl Tcp {
    /// `sk` as a TCP socket; `None` if it is none, or not a full one.
    #[inline(always)]
    pub(crate) fn of(sk: *mut c_void) -> Option<Self> {
        // SAFETY: the helper checks the socket, which is not null.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk) }.cast::<u8>();
        if tcp.is_null() { None } else { Some(Self(tcp)) }
    }

    /// A field, `None` where its offset is not known.
    #[inline(always)]
    fn field<T>(self, offset: &Global<u32>) -> Option<T> {
        let offset = offset.load();
        if offset == 0 {
            return None;
        }
        // SAFETY: the verifier checks the load against the kernel's own types.
        Some(unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() })
    }

    /// Whether the socket takes no v4-mapped addresses (`IPV6_V6ONLY`). Not known: no.
    #[inline(always)]
    pub(crate) fn is_ipv6_only(self) -> bool {
        self.field::<u8>(&OFFSET_IPV6ONLY).is_some_and(|byte| u32::from(byte) & MASK_IPV6ONLY.load() != 0)
    }

    /// A bit of `enum sock_flags` in include/net/sock.h by its number, `None` where it is not known.
    #[inline(always)]
    fn flag(self, number: u32) -> Option<bool> {
        self.field::<u64>(&OFFSET_SK_FLAGS).map(|flags| flags & (1 << number) != 0)
    }

    /// Whether the peer's FIN was received, `None` where it is not known: TCP sets `SOCK_DONE` when it takes a FIN,
    /// and only then.
    #[inline(always)]
    pub(crate) fn fin_received(self) -> Option<bool> {
        /// `SOCK_DONE`.
        const DONE: u32 = 1;
        self.flag(DONE)
    }

    /// Whether the application no longer listens to its peer, at the end of a connection that was in the state `old`: no
    /// application holds the socket (`SOCK_DEAD`), or it has shut it down for reading. Of the latter only where the peer's
    /// FIN cannot have done so. Not known: no.
    #[inline(always)]
    fn has_hung_up(self, old: u32) -> bool {
        /// `SOCK_DEAD`.
        const DEAD: u32 = 0;
        /// `RCV_SHUTDOWN` of include/net/sock.h.
        const READING: u8 = 1;
        if self.flag(DEAD) == Some(true) {
            return true;
        }
        let shut = self.field::<u8>(&OFFSET_SK_SHUTDOWN).is_some_and(|shut| shut & READING != 0);
        shut && matches!(old, tcp::FIN_WAIT1 | tcp::FIN_WAIT2)
    }

    /// The sequence number behind all that the socket was given to send, its FIN included.
    #[inline(always)]
    pub(crate) fn write_seq(self) -> Option<u32> {
        self.field(&OFFSET_WRITE_SEQ)
    }

    /// What broke off a connection that was in the state `old` (`sk_err`), 0: nothing; `None` where it is not known.
    ///
    /// A reset is none once the application listens no longer: TCP takes whatever arrives from then on for one
    /// (RFC 1122, 4.2.2.13), although the peer did nothing but answer somebody who had hung up. Nor is it the peer's doing
    /// when the connection is destroyed on this machine (`ss -K`).
    #[inline(always)]
    pub(crate) fn error(self, old: u32) -> Option<i32> {
        // Numbers of asm-generic/errno.h.
        const ECONNABORTED: i32 = 103;
        const ECONNRESET: i32 = 104;
        let error = self.field(&OFFSET_SK_ERR)?;
        let is_own = error == ECONNABORTED || error == ECONNRESET && self.has_hung_up(old);
        Some(if is_own { 0 } else { error })
    }

    /// Everything that is counted, and the smoothed round-trip time in microseconds. For where no context shows it.
    #[inline(always)]
    pub(crate) fn counters(self) -> Option<(Counters, u32)> {
        let counters = Counters {
            state: u32::from(self.field::<u8>(&OFFSET_SK_STATE)?),
            bytes_acked: self.field(&OFFSET_BYTES_ACKED)?,
            bytes_received: self.field(&OFFSET_BYTES_RECEIVED)?,
            all_acknowledged: self.field::<u32>(&OFFSET_SND_UNA)? == self.write_seq()?,
            fin_received: self.fin_received(),
            retransmits: self.field(&OFFSET_TOTAL_RETRANS)?,
        };
        // TCP keeps eight times the value.
        Some((counters, self.field::<u32>(&OFFSET_SRTT)? >> 3))
    }
}

/// The socket that the application holds, if `sk` is only a subflow of it (MPTCP); else null.
#[inline(always)]
pub(crate) fn application_socket(sk: *mut c_void) -> *mut c_void {
    if HAS_MPTCP.load() == 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: the helper checks the socket.
    unsafe { bpf_skc_to_mptcp_sock(sk) }.cast()
}
