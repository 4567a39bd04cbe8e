//! Endpoints that do to each connection what a test says, and remember every byte they got.

use crate::{
    poll,
    ports::Port,
    raw::{Message, Wire},
};
use socket2::{Domain, Socket, Type};
use std::{
    fmt,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

/// What an endpoint does with a connection.
type Script = dyn Fn(&mut Connection) + Send + Sync;

/// What was seen, over all connections.
#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Message>,
    /// Of each connection that was accepted, until its end.
    streams: Vec<Option<TcpStream>>,
    /// Connections that are served at the moment.
    open: usize,
}

/// A connection that a script serves.
#[derive(Debug)]
pub struct Connection {
    /// How many came before it.
    pub index: usize,
    /// Its bytes.
    pub wire: Wire,
    seen: Arc<Mutex<Seen>>,
}

impl Connection {
    /// The next request with its body, `None` where the client ends the connection. It is remembered.
    pub fn request(&mut self) -> Option<Message> {
        let request = self.wire.request().ok()?;
        self.remember(&request);
        Some(request)
    }

    /// The head of the next request. It is remembered.
    pub fn head(&mut self) -> Option<Message> {
        let request = self.wire.head().ok()?;
        self.remember(&request);
        Some(request)
    }

    fn remember(&self, request: &Message) {
        self.seen.lock().expect("nobody panics with the list in hand").requests.push(request.clone());
    }

    /// An answer with a length.
    pub fn answer(&mut self, status: u16, body: &str) -> bool {
        let length = body.len();
        self.wire.send(format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\n\r\n{body}"))
    }

    /// Resets the connection, at the end of the script.
    pub fn reset(&self) {
        let socket = socket2::SockRef::from(self.wire.stream());
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

/// A server on threads of the test.
pub struct Scripted {
    port: Port,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    running: Option<(Arc<TcpListener>, JoinHandle<()>)>,
}

impl Scripted {
    /// Does this to each connection, each in a thread, and closes it.
    #[must_use]
    pub fn new(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let mut server = Self { port: Port::new(), script: Arc::new(script), seen: Arc::default(), running: None };
        server.open();
        server
    }

    /// Does this with each request, whose body was read.
    #[must_use]
    pub fn each(answer: impl Fn(&mut Connection, &Message) + Send + Sync + 'static) -> Self {
        Self::new(move |connection| {
            while let Some(request) = connection.request() {
                answer(connection, &request);
            }
        })
    }

    /// Answers each request with 200 and its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::each(move |connection, _| {
            connection.answer(200, &name);
        })
    }

    /// Takes as long for each request as its path says, in milliseconds, and answers with 200 and `done`.
    #[must_use]
    pub fn slow() -> Self {
        Self::each(|connection, request| {
            thread::sleep(Duration::from_millis(request.target()[1..].parse().unwrap_or_default()));
            connection.answer(200, "done");
        })
    }

    /// Answers each request with 200 and the request itself: every byte of it, as it came.
    #[must_use]
    pub fn mirror() -> Self {
        Self::each(|connection, request| {
            connection.answer(200, &String::from_utf8_lossy(&request.bytes));
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The requests so far, of all connections.
    #[must_use]
    pub fn requests(&self) -> Vec<Message> {
        self.seen.lock().expect("nobody panics with the list in hand").requests.clone()
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.seen.lock().expect("nobody panics with the list in hand").streams.len()
    }

    /// How many connections are served at the moment.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.seen.lock().expect("nobody panics with the list in hand").open
    }

    /// Waits until no connection is open any more.
    pub fn wait_until_idle(&self) {
        poll::holds("every connection of the endpoint is closed", || self.open_connections(), |open| *open == 0);
    }

    /// Listens, again after [`Scripted::close`].
    ///
    /// # Panics
    /// Where the port is taken.
    pub fn open(&mut self) {
        let address: SocketAddr = self.port.address().parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        socket.set_reuse_address(true).expect("an option can be set");
        socket.bind(&address.into()).expect("a port of ours can be bound");
        socket.listen(1024).expect("a bound socket listens");
        let listener = Arc::new(TcpListener::from(socket));
        let (accepting, script, seen) = (listener.clone(), self.script.clone(), self.seen.clone());
        let thread = thread::spawn(move || {
            // Shutting the listener down ends this with an error.
            while let Ok((stream, _)) = accepting.accept() {
                let Ok(copy) = stream.try_clone() else { continue };
                let mut all = seen.lock().expect("nobody panics with the list in hand");
                let index = all.streams.len();
                all.streams.push(Some(copy));
                all.open += 1;
                drop(all);
                let (script, seen) = (script.clone(), seen.clone());
                thread::spawn(move || serve(&*script, index, stream, &seen));
            }
        });
        self.running = Some((listener, thread));
    }

    /// Stops listening: connects are refused from now on. Accepted connections go on.
    pub fn close(&mut self) {
        if let Some((listener, thread)) = self.running.take() {
            let _ = socket2::SockRef::from(&*listener).shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }

    /// As if the process were killed: stops listening, and every connection ends.
    pub fn kill(&mut self) {
        self.close();
        for stream in self.seen.lock().expect("nobody panics with the list in hand").streams.iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(script: &Script, index: usize, stream: TcpStream, seen: &Arc<Mutex<Seen>>) {
    let mut connection = Connection { index, wire: Wire::over(stream), seen: seen.clone() };
    script(&mut connection);
    // Both copies go: with the last one the socket closes, by FIN or by reset, before anybody sees that none is open.
    drop(connection);
    let mut all = seen.lock().expect("nobody panics with the list in hand");
    all.open -= 1;
    all.streams[index] = None;
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("port", &self.port).finish_non_exhaustive()
    }
}

/// A server that takes no connection: its queue is full, so connects get no answer until they give up.
#[derive(Debug)]
pub struct Deaf {
    port: Port,
    _sockets: Vec<Socket>,
}

impl Deaf {
    /// A new one.
    ///
    /// # Panics
    /// Where its sockets cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let port = Port::new();
        let address: SocketAddr = port.address().parse().expect("an address");
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
        let listener = new();
        listener.bind(&address.into()).expect("a port of ours can be bound");
        listener.listen(0).expect("a bound socket listens");
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let filler = new();
            filler.set_nonblocking(true).expect("an option can be set");
            // It is under way, and the queue holds it or not.
            let _ = filler.connect(&address.into());
            sockets.push(filler);
        }
        thread::sleep(Duration::from_millis(20));
        Self { port, _sockets: sockets }
    }

    /// Where nobody answers.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }
}

impl Default for Deaf {
    fn default() -> Self {
        Self::new()
    }
}
