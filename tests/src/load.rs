//! Clients that exchange random amounts of data, end connections in every way there is, and know to the byte what they
//! sent and received.
//!
//! Client and server agree on an exchange in its first bytes. Whoever ends a connection hard first makes sure that the
//! other side's kernel has everything, so that what was acknowledged is what was written.

use crate::{Backend, Cgroup, Netns, process};
use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long either side waits for the other.
const LIMIT: Duration = Duration::from_secs(60);
/// Fits a socket's buffers whatever else is there: for what stays unread.
const SMALL: u32 = 20_000;

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (b ^ (b >> 31)) % end
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ClientCloses,
    ServerCloses,
    ClientFinishes,
    ServerFinishes,
    BothFinish,
    ClientResets,
    ServerResets,
    ClientLeavesUnread,
    ServerLeavesUnread,
}

const ENDS: [End; 9] = [
    End::ClientCloses,
    End::ServerCloses,
    End::ClientFinishes,
    End::ServerFinishes,
    End::BothFinish,
    End::ClientResets,
    End::ServerResets,
    End::ClientLeavesUnread,
    End::ServerLeavesUnread,
];

/// What client and server agree on: the head of every exchange.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    end: End,
    up: u32,
    down: u32,
}

/// Bytes of an [`Exchange`], which the client sends before everything else.
const HEAD: usize = 9;

impl Exchange {
    fn draw(random: &mut Random) -> Self {
        let end = ENDS[random.below(ENDS.len() as u64) as usize];
        let small = matches!(end, End::ClientLeavesUnread | End::ServerLeavesUnread);
        let mut size = || {
            let most = match random.below(20) {
                _ if small => SMALL,
                0 => 600_000,
                1..5 => 50_000,
                _ => 3000,
            };
            1 + random.below(u64::from(most)) as u32
        };
        Self { end, up: size(), down: size() }
    }

    fn write(self, mut to: impl Write) -> io::Result<()> {
        let mut head = [0; HEAD];
        head[0] = self.end as u8;
        head[1..5].copy_from_slice(&self.up.to_ne_bytes());
        head[5..].copy_from_slice(&self.down.to_ne_bytes());
        to.write_all(&head)
    }

    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head)?;
        let number = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(Self { end: ENDS[usize::from(head[0])], up: number(1), down: number(5) })
    }
}

fn send(mut to: impl Write, n: u32) -> io::Result<()> {
    to.write_all(&vec![b'x'; n as usize])
}

fn receive(mut from: impl Read, n: u32) -> io::Result<()> {
    from.read_exact(&mut vec![0; n as usize])
}

/// Reads until the other side has ended, and returns how much came. A reset is an end only if it is `expected`.
fn to_the_end(mut from: impl Read, reset_expected: bool) -> io::Result<u64> {
    let (mut buffer, mut came) = (vec![0; 65_536], 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(came),
            Ok(n) => came += n as u64,
            Err(e) if reset_expected && e.kind() == io::ErrorKind::ConnectionReset => return Ok(came),
            Err(e) => return Err(e),
        }
    }
}

/// Waits until an ioctl that counts bytes says `n`: `FIONREAD` (arrived, not read), `TIOCOUTQ` (not acknowledged).
fn wait_for(socket: &impl AsRawFd, request: libc::Ioctl, n: u32) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut bytes: libc::c_int = 0;
        // SAFETY: both requests write an int, whose address is given.
        if unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if i64::from(bytes) == i64::from(n) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("{bytes} bytes in the buffer, not {n}, after {LIMIT:?}")));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

fn reset_on_close(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// A server for [`Load`]s.
#[must_use]
pub fn server(netns: &Arc<Netns>, address: &str) -> Backend {
    Backend::new(netns, address, |stream| {
        // A client that goes away says itself what went wrong.
        thread::spawn(move || serve(&stream));
    })
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let Exchange { end, up, down } = Exchange::read(stream)?;
    match end {
        End::ClientCloses | End::ClientResets | End::ClientLeavesUnread => {
            receive(stream, up)?;
            send(stream, down)?;
            to_the_end(stream, true)?;
        }
        End::ServerCloses => {
            receive(stream, up)?;
            send(stream, down)?;
        }
        End::ClientFinishes => {
            to_the_end(stream, false)?;
            send(stream, down)?;
        }
        End::ServerFinishes => {
            send(stream, down)?;
            stream.shutdown(Shutdown::Write)?;
            to_the_end(stream, false)?;
        }
        End::BothFinish => {
            receive(stream, up)?;
            send(stream, down)?;
            wait_for(stream, libc::TIOCOUTQ, 0)?;
            stream.shutdown(Shutdown::Write)?;
            to_the_end(stream, false)?;
        }
        End::ServerResets => {
            receive(stream, up)?;
            send(stream, down)?;
            wait_for(stream, libc::TIOCOUTQ, 0)?;
            reset_on_close(stream)?;
        }
        End::ServerLeavesUnread => {
            wait_for(stream, libc::FIONREAD, up)?;
            send(stream, down)?;
            wait_for(stream, libc::TIOCOUTQ, 0)?;
        }
    }
    Ok(())
}

/// What clients counted themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connects that were begun, refused ones included.
    pub opened: u64,
    /// Connects that were refused.
    pub refused: u64,
    /// Bytes that the servers' kernels took.
    pub sent: u64,
    /// Bytes that arrived.
    pub received: u64,
    /// What ought not to have happened.
    pub failures: Vec<String>,
}

impl Totals {
    /// Adds those of another client.
    pub fn add(&mut self, other: Self) {
        self.opened += other.opened;
        self.refused += other.refused;
        self.sent += other.sent;
        self.received += other.received;
        self.failures.extend(other.failures);
    }

    fn to_json(&self) -> Value {
        let Self { opened, refused, sent, received, failures } = self;
        json!({ "opened": opened, "refused": refused, "sent": sent, "received": received, "failures": failures })
    }

    fn from_json(value: &Value) -> Self {
        let number = |name: &str| value[name].as_u64().expect("a report has all numbers");
        let failures = value["failures"].as_array().expect("a report has a list of failures");
        Self {
            opened: number("opened"),
            refused: number("refused"),
            sent: number("sent"),
            received: number("received"),
            failures: failures.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One client: connects to `open` addresses, and now and then to `refused` ones, until told to stop.
fn client(seed: u64, open: &[SocketAddr], refused: &[SocketAddr], stop: &AtomicBool) -> Totals {
    let (mut random, mut totals) = (Random::new(seed), Totals::default());
    while !stop.load(Ordering::Relaxed) && totals.failures.len() < 20 {
        let to = open[random.below(open.len() as u64) as usize];
        // The same family, so that the socket can be used again.
        let closed = refused.iter().find(|address| address.is_ipv4() == to.is_ipv4());
        let exchange = Exchange::draw(&mut random);
        if let Err(error) = connect_once(&mut random, exchange, to, closed, &mut totals) {
            totals.failures.push(format!("seed {seed}, {to}, {exchange:?}: {error}"));
        }
        thread::sleep(Duration::from_micros(random.below(4000)));
    }
    totals
}

fn connect_once(
    random: &mut Random,
    exchange: Exchange,
    to: SocketAddr,
    closed: Option<&SocketAddr>,
    totals: &mut Totals,
) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    if let Some(closed) = closed.filter(|_| random.below(6) == 0) {
        totals.opened += 1;
        match socket.connect(&(*closed).into()) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => totals.refused += 1,
            other => return Err(io::Error::other(format!("{closed} did not refuse: {other:?}"))),
        }
        if random.below(2) == 0 {
            return Ok(());
        }
        // Else the same socket goes on to where somebody listens.
    }
    if random.below(12) == 0 {
        // Given up at once, whether TCP has finished its part or not.
        socket.set_nonblocking(true)?;
        totals.opened += 1;
        return match socket.connect(&to.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
            _ => Ok(()),
        };
    }
    socket.connect(&to.into())?;
    totals.opened += 1;
    let (sent, received) = talk(socket, exchange)?;
    totals.sent += sent;
    totals.received += received;
    Ok(())
}

/// The client's part of an exchange: how much it sent and received.
fn talk(socket: Socket, exchange: Exchange) -> io::Result<(u64, u64)> {
    let Exchange { end, up, down } = exchange;
    exchange.write(&socket)?;
    let mut received = u64::from(down);
    if end == End::ServerFinishes {
        received = to_the_end(&socket, false)?;
        send(&socket, up)?;
        wait_for(&socket, libc::TIOCOUTQ, 0)?;
        return Ok((HEAD as u64 + u64::from(up), received));
    }
    send(&socket, up)?;
    match end {
        End::ClientCloses => receive(&socket, down)?,
        End::ClientResets => {
            receive(&socket, down)?;
            reset_on_close(&socket)?;
        }
        End::ClientLeavesUnread => wait_for(&socket, libc::FIONREAD, down)?,
        End::BothFinish => {
            receive(&socket, down)?;
            socket.shutdown(Shutdown::Write)?;
            to_the_end(&socket, false)?;
        }
        End::ClientFinishes => {
            socket.shutdown(Shutdown::Write)?;
            received = to_the_end(&socket, false)?;
        }
        End::ServerCloses => received = to_the_end(&socket, false)?,
        // The server ends hard once its data is acknowledged, which it is as soon as it has arrived: read what there
        // is before the reset takes it away.
        End::ServerResets | End::ServerLeavesUnread => {
            let _ = to_the_end(&socket, true)?;
        }
        End::ServerFinishes => {}
    }
    Ok((HEAD as u64 + u64::from(up), received))
}

/// Runs `threads` clients until stdin ends, then reports as JSON. The addresses that `refused` names refuse.
///
/// # Errors
/// Where the report cannot be written.
pub fn run(seed: u64, threads: u64, open: &[SocketAddr], refused: &[SocketAddr]) -> io::Result<()> {
    static STOP: AtomicBool = AtomicBool::new(false);
    println!("started");
    let mut totals = Totals::default();
    thread::scope(|scope| {
        let start = |n| scope.spawn(move || client(seed.wrapping_mul(1000) + n, open, refused, &STOP));
        let clients: Vec<_> = (0..threads).map(start).collect();
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        STOP.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|c| totals.add(c.join().expect("a client ends")));
    });
    writeln!(io::stdout(), "{}", totals.to_json())
}

/// A running process of clients inside a cgroup.
#[derive(Debug)]
pub struct Load {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    /// Starts a process of some threads.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(
        cgroup: &Cgroup,
        netns: &Netns,
        seed: u64,
        threads: u64,
        open: &[SocketAddr],
        refused: &[SocketAddr],
    ) -> Self {
        let list = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(process::peer());
        command.args(["load", &seed.to_string(), &threads.to_string(), &list(open), &list(refused)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        process::place(&mut command, Some(cgroup.path()), Some(netns)).expect("a test's own cgroup can be joined");
        let mut child = command.spawn().expect("the helper program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the helper program speaks");
        assert_eq!(line, "started\n", "the helper program begins");
        Self { child, stdout }
    }

    /// Lets every client finish what it does, and returns what all of them counted.
    ///
    /// # Panics
    /// Where no report comes.
    #[must_use]
    pub fn stop(mut self) -> Totals {
        // End of input is the sign to stop.
        drop(self.child.stdin.take());
        let mut report = String::new();
        self.stdout.read_to_string(&mut report).expect("the helper program reports");
        Totals::from_json(&serde_json::from_str(&report).expect("the helper program reports JSON"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
