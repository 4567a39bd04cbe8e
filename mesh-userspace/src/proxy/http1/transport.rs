//! What the codec asks of a connection.

use socket2::SockRef;
use std::{io, mem::MaybeUninit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection that HTTP/1.1 can be spoken on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Makes the close that follows a reset: the only way to say that a body which ends with its connection is not whole.
    fn reset_on_close(&self);
    /// Whether the peer has ended it, or said something: the system is asked, whatever is known without.
    fn has_news(&self) -> bool;
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // An error here means that the connection is gone already.
        let _ = self.set_zero_linger();
    }

    fn has_news(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self).peek(&mut byte);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
