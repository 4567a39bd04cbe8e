//! How the daemon reaches its sources: past its own hooks.
//!
//! A source must not be reached by what it said itself. Endpoints of `default/kubernetes` that are none any more would cut
//! the daemon off from the one who could tell it so.

use hickory_resolver::net::runtime::{
    RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime, iocompat::AsyncIoTokioAsStd,
};
use hyper_util::client::legacy::connect::HttpConnector;
use socket2::{Domain, SockRef, Socket, Type};
use std::{io, net::SocketAddr, num::NonZeroU32, os::fd::AsFd, pin::Pin, time::Duration};
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

/// How long a DNS server may take to take a connection, where the library does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// Makes sockets that the hooks let pass, by the mark of the daemon's own (`SO_MARK`); without one, plain sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direct(Option<NonZeroU32>);

impl Direct {
    /// With this mark, which this process may set; 0: without one.
    #[must_use]
    pub const fn new(mark: u32) -> Self {
        Self(NonZeroU32::new(mark))
    }

    fn mark(self, socket: &impl AsFd) -> io::Result<()> {
        self.0.map_or(Ok(()), |mark| SockRef::from(socket).set_mark(mark.get()))
    }

    /// For connections to servers of HTTP.
    pub(super) fn connector(self) -> HttpConnector {
        let mut connector = HttpConnector::new();
        // TLS is made over it.
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_mark(self.0.map(NonZeroU32::get));
        connector
    }

    /// For questions to DNS servers.
    pub(super) fn dns(self) -> DirectDns {
        DirectDns { direct: self, tokio: TokioRuntimeProvider::default() }
    }

    async fn tcp(self, to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.mark(&socket)?;
        socket.set_nodelay(true)?;
        if let Some(from) = from {
            socket.bind(from)?;
        }
        socket.connect(to).await
    }

    fn udp(self, from: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(from), Type::DGRAM.nonblocking(), None)?;
        self.mark(&socket)?;
        socket.bind(&from.into())?;
        UdpSocket::from_std(socket.into())
    }
}

/// Sockets for questions to DNS servers, as the library wants them.
#[derive(Clone)]
pub(super) struct DirectDns {
    direct: Direct,
    tokio: TokioRuntimeProvider,
}

type Made<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for DirectDns {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tokio.create_handle()
    }

    fn connect_tcp(&self, to: SocketAddr, from: Option<SocketAddr>, within: Option<Duration>) -> Made<Self::Tcp> {
        let connect = self.direct.tcp(to, from);
        Box::pin(async move {
            let connected = timeout(within.unwrap_or(CONNECT), connect).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, from: SocketAddr, _to: SocketAddr) -> Made<UdpSocket> {
        let bound = self.direct.udp(from);
        Box::pin(async move { bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    fn mark(socket: &impl AsFd) -> u32 {
        SockRef::from(socket).mark().unwrap()
    }

    #[tokio::test]
    async fn every_socket_to_a_source_carries_the_mark() {
        let may = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().set_mark(1).is_ok();
        let expected = if may { 0x6d65 } else { 0 };
        let direct = Direct::new(expected);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}").parse().unwrap();
        let stream = tower::Service::call(&mut direct.connector(), url).await.map(TokioIo::into_inner).unwrap();
        assert_eq!(mark(&stream), expected);
        let dns = direct.dns();
        assert_eq!(mark(&dns.connect_tcp(address, None, None).await.unwrap().0), expected);
        assert_eq!(mark(&dns.bind_udp("0.0.0.0:0".parse().unwrap(), address).await.unwrap()), expected);
    }

    #[tokio::test]
    async fn without_a_mark_there_are_sockets_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Direct::default().tcp(listener.local_addr().unwrap(), None).await.unwrap();
        assert_eq!(mark(&stream), 0);
    }
}
