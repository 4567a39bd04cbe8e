//! Servers that say who they are, and remember who asked.

use crate::Netns;
use socket2::{Domain, Socket, Type};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

/// What a backend does with a connection.
type Serve = dyn Fn(TcpStream) + Send + Sync;

/// A TCP server on threads of the test, in a network namespace; it can be closed and opened again.
pub struct Backend {
    address: SocketAddr,
    netns: Arc<Netns>,
    serve: Arc<Serve>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    running: Option<Running>,
}

struct Running {
    listener: Arc<Socket>,
    thread: JoinHandle<()>,
}

impl Backend {
    /// Answers each connection with `I am NAME` and closes it.
    #[must_use]
    pub fn identity(name: &str, netns: &Arc<Netns>, address: &str) -> Self {
        let answer = format!("I am {name}\n");
        Self::new(netns, address, move |mut stream| {
            // The client may be gone already, which is its own affair.
            let _ = stream.write_all(answer.as_bytes());
        })
    }

    /// Sends back what it receives, until the client has finished.
    #[must_use]
    pub fn echo(netns: &Arc<Netns>, address: &str) -> Self {
        Self::new(netns, address, |stream| {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        })
    }

    /// A server of another kind. `serve` runs in the accepting thread.
    ///
    /// # Panics
    /// Where the address cannot be bound.
    #[must_use]
    pub fn new(netns: &Arc<Netns>, address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = address.parse().expect("a backend's address is IP:PORT");
        let mut backend =
            Self { address, netns: netns.clone(), serve: Arc::new(serve), peers: Arc::default(), running: None };
        backend.open();
        backend
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.peers().len()
    }

    /// The address each client showed, in order.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.peers().clone()
    }

    fn peers(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.peers.lock().expect("nobody panics with the list in hand")
    }

    /// Listens, again after [`Backend::close`].
    ///
    /// # Panics
    /// Where the address cannot be bound.
    pub fn open(&mut self) {
        if self.running.is_some() {
            return;
        }
        let listen = || listen(self.address);
        let listener = self.netns.enter(listen).unwrap_or_else(|e| panic!("backend {}: {e}", self.address));
        let listener = Arc::new(listener);
        let (accepting, serve, peers) = (listener.clone(), self.serve.clone(), self.peers.clone());
        let thread = thread::spawn(move || {
            // Shutting the listener down ends this with an error.
            while let Ok((socket, peer)) = accepting.accept() {
                let peer = peer.as_socket().expect("a TCP peer has an address");
                peers.lock().expect("nobody panics with the list in hand").push(peer);
                serve(socket.into());
            }
        });
        self.running = Some(Running { listener, thread });
    }

    /// Stops listening: connects are refused from now on. Accepted connections go on.
    pub fn close(&mut self) {
        if let Some(Running { listener, thread }) = self.running.take() {
            let _ = listener.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("address", &self.address).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}

/// A UDP server that answers each datagram with its name; it ends with the test's process.
///
/// # Panics
/// Where the address cannot be bound.
pub fn udp_identity(name: &str, netns: &Netns, address: &str) {
    let socket = netns.enter(|| UdpSocket::bind(address)).unwrap_or_else(|e| panic!("UDP backend {address}: {e}"));
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    let answer = format!("I am {name}\n");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(answer.as_bytes(), client);
        }
    });
}

/// What the other side says until it closes the connection, without the `I am `.
///
/// # Errors
/// Where the connection breaks or says something else.
pub fn answer(stream: &mut impl Read) -> io::Result<String> {
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    match said.strip_prefix("I am ").and_then(|a| a.strip_suffix('\n')) {
        Some(who) => Ok(who.to_owned()),
        None => Err(io::Error::other(format!("strange answer {said:?}"))),
    }
}
