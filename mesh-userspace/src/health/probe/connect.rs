//! The connection a check is made over.

use super::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpSocket, TcpStream};

/// Connects with `mark` on the socket; 0 is no mark.
pub(super) async fn connect(address: SocketAddr, mark: u32) -> Result<TcpStream, Failure> {
    establish(TcpSocket::from_std_stream(socket(address, mark).map_err(Failure::Here)?.into()), address).await
}

async fn establish(socket: TcpSocket, address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = socket.connect(address).await.map_err(|error| failure(&error))?;
    // Where nobody listens on a port of this host, a socket that got the same port for its own end meets itself.
    if stream.local_addr().is_ok_and(|own| own == address) {
        return Err(Failure::Endpoint("connect: nobody listens".to_owned()));
    }
    Ok(stream)
}

/// Whose fault it is that a connection was not made.
fn failure(error: &io::Error) -> Failure {
    let reason = format!("connect: {error}");
    match error.raw_os_error() {
        // No local port, no memory.
        Some(libc::EADDRNOTAVAIL | libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Failure::Here(reason),
        _ => Failure::Endpoint(reason),
    }
}

fn socket(address: SocketAddr, mark: u32) -> Result<Socket, String> {
    let made = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Closing resets. After an orderly close by this side, the port would be in TIME_WAIT for a minute: 120,000 ports
        // at 2,000 checks a second.
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

    #[tokio::test]
    async fn a_port_without_listener_does_not_pass_by_meeting_itself() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        // As if the kernel had given the checking socket this very port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let failure = establish(socket, address).await.unwrap_err();
        assert_eq!(failure, Failure::Endpoint("connect: nobody listens".to_owned()));
    }

    #[test]
    fn running_out_of_local_ports_is_not_the_endpoints_fault() {
        assert!(matches!(failure(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)), Failure::Here(_)));
        assert!(matches!(failure(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), Failure::Endpoint(_)));
    }
}
