//! The connection a check is made over.

use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpSocket, TcpStream};

/// Connects with `mark` on the socket; the error says in words what failed.
pub(super) async fn connect(address: SocketAddr, mark: u32) -> Result<TcpStream, String> {
    let socket = socket(address, mark)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(address).await.map_err(|error| format!("connect: {error}"))
}

/// A socket for `address` that carries `mark`; 0 is no mark.
fn socket(address: SocketAddr, mark: u32) -> Result<Socket, String> {
    let made = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // Closing resets. An orderly close would leave a TIME_WAIT socket, and its port, for a minute after each check:
        // 120,000 of them at 2,000 checks a second. The handshake was complete, so that the server has accepted by then;
        // HAProxy closes its checks in the same way.
        socket.set_linger(Some(Duration::ZERO))?;
        Ok(socket)
    };
    let socket = made().map_err(|error| format!("socket: {error}"))?;
    if mark != 0 {
        socket
            .set_mark(mark)
            .map_err(|error| format!("mark {mark:#x} cannot be set on the socket: {error}; CAP_NET_ADMIN is needed"))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_on_the_socket_before_it_connects() {
        match socket(([127, 0, 0, 1], 1).into(), 0x6d65) {
            Ok(socket) => assert_eq!(socket.mark().unwrap(), 0x6d65),
            Err(reason) => assert!(reason.contains("CAP_NET_ADMIN"), "{reason}"),
        }
    }
}
