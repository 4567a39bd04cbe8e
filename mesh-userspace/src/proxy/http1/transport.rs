//! What the codec asks of a connection.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A connection that HTTP/1.1 can be spoken on.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Makes the close that follows a reset: the only way to say that a body which ends with its connection is not whole.
    fn reset_on_close(&self);
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        // An error here means that the connection is gone already.
        let _ = self.set_zero_linger();
    }
}
