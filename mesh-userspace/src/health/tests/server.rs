//! Servers to be checked.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A server on a port of 127.0.0.1 that knows when it was connected to.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepted: Arc<Mutex<Vec<Instant>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// One that accepts and closes.
    pub(super) fn plain() -> Self {
        Self::new("127.0.0.1:0".parse().unwrap(), |_, _| {})
    }

    /// The same on a certain port.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self::new(address, |_, _| {})
    }

    /// One that answers its nth request, counted from 0, with `status(n)` after `delay`.
    pub(super) fn http(delay: Duration, status: impl Fn(usize) -> u16 + Send + 'static) -> Self {
        Self::new("127.0.0.1:0".parse().unwrap(), move |nth, mut stream| {
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let _ = stream.read(&mut [0; 1024]);
            std::thread::sleep(delay);
            let _ = write!(stream, "HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", status(nth));
        })
    }

    fn new(address: SocketAddr, serve: impl Fn(usize, TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, ended) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let (log, end) = (accepted.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let nth = {
                            let mut log = log.lock().unwrap();
                            log.push(Instant::now());
                            log.len() - 1
                        };
                        serve(nth, stream);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { address, accepted, ended, thread: Some(thread) }
    }

    /// When it was connected to.
    pub(super) fn accepted(&self) -> Vec<Instant> {
        self.accepted.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A port that connects many connections and never says anything, as nobody accepts them.
pub(super) fn mute() -> (TcpListener, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().unwrap().port();
    (listener, SocketAddr::from(([127, 0, 0, 1], port)))
}
