//! What the codec asks of a connection.

use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};
use socket2::SockRef;
use std::{
    io,
    mem::MaybeUninit,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection that HTTP/1.1 can be spoken on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Makes the close that follows a reset: the only way to say that a body which ends with its connection is not whole.
    fn reset_on_close(&self);
    /// Ready where something may be there to read; without asking the system.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Whether there is nothing to read, not even an end, as far as is known without asking the system. What there is, is
    /// lost.
    fn is_quiet(&mut self) -> bool;
    /// Whether the peer has ended it, or said something: the system is asked, whatever is known without.
    fn has_news(&self) -> bool;
    /// How many bytes that were written the peer's system has confirmed; `None`: nobody knows.
    fn confirmed(&self) -> Option<u64>;
}

sockopt_impl!(
    /// `tcp_info` up to `tcpi_bytes_acked`, which every kernel since 4.2 has.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; 128]
);

/// Where `tcpi_bytes_acked` begins.
const BYTES_ACKED: usize = 120;

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // An error here means that the connection is gone already.
        let _ = self.set_zero_linger();
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn is_quiet(&mut self) -> bool {
        self.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn has_news(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self).peek(&mut byte);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn confirmed(&self) -> Option<u64> {
        let info = getsockopt(self, TcpInfo).ok()?;
        let acked = u64::from_ne_bytes(info[BYTES_ACKED..].try_into().ok()?);
        // The SYN of who connects counts as one.
        acked.checked_sub(1)
    }
}
