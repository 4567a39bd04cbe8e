//! A DNS server that says what a test tells it to, by UDP and TCP; and questions to one.

use crate::Netns;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use socket2::{Domain, Socket, Type};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How the server treats questions about a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// It answers with the records that there are.
    #[default]
    Answers,
    /// The name does not exist.
    Denies,
    /// It fails.
    Fails,
    /// It says nothing.
    IsSilent,
    /// It answers by TCP only.
    Truncates,
}

/// Records of one name.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// What becomes of questions.
    pub manner: Manner,
    /// Seconds for which an answer holds.
    pub ttl: u32,
    /// Addresses of both kinds.
    pub addresses: Vec<IpAddr>,
    /// Priority, weight, port, target.
    pub services: Vec<(u16, u16, u16, String)>,
    /// What the name stands for.
    pub alias: Option<String>,
}

impl Records {
    /// These addresses.
    ///
    /// # Panics
    /// Where one is none.
    #[must_use]
    pub fn addresses(addresses: &[&str], ttl: u32) -> Self {
        let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        Self { addresses, ttl, ..Self::default() }
    }

    /// These services: priority, weight, port, target.
    #[must_use]
    pub fn services(services: &[(u16, u16, u16, &str)], ttl: u32) -> Self {
        let services = services.iter().map(|(p, w, port, target)| (*p, *w, *port, (*target).to_owned())).collect();
        Self { services, ttl, ..Self::default() }
    }

    /// No records at all; the name exists.
    #[must_use]
    pub fn none(ttl: u32) -> Self {
        Self { ttl, ..Self::default() }
    }

    /// The same, treated in another manner.
    #[must_use]
    pub fn that(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    fn data(&self, kind: RecordType) -> Vec<RData> {
        match kind {
            RecordType::SRV => {
                let srv =
                    |(p, w, port, target): &(u16, u16, u16, String)| RData::SRV(SRV::new(*p, *w, *port, name(target)));
                self.services.iter().map(srv).collect()
            }
            kind => {
                let address = |ip: &IpAddr| match (ip, kind) {
                    (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(*ip))),
                    (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(*ip))),
                    _ => None,
                };
                self.addresses.iter().filter_map(address).collect()
            }
        }
    }
}

#[derive(Debug, Default)]
struct Zone {
    names: HashMap<String, Records>,
    asked: HashMap<String, usize>,
    by_tcp: usize,
}

/// The server. Names it was not told of do not exist.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    listener: Arc<Socket>,
    threads: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// At any free port of the host's loopback interface.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn new() -> Self {
        let sockets = (0..50).find_map(|_| bind("127.0.0.1:0".parse().ok()?).ok());
        Self::at(sockets.expect("a port that is free for UDP and TCP"))
    }

    /// In a network namespace.
    ///
    /// # Panics
    /// Where the address cannot be bound.
    #[must_use]
    pub fn inside(netns: &Netns, address: &str) -> Self {
        let address = address.parse().expect("IP:PORT");
        Self::at(netns.enter(|| bind(address)).unwrap_or_else(|e| panic!("DNS server {address}: {e}")))
    }

    fn at((udp, tcp): (UdpSocket, Socket)) -> Self {
        let address = udp.local_addr().expect("a bound socket has an address");
        let (zone, stop, listener) = (Arc::<Mutex<Zone>>::default(), Arc::<AtomicBool>::default(), Arc::new(tcp));
        udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
        let by_udp = {
            let (zone, stop) = (zone.clone(), stop.clone());
            thread::spawn(move || serve_udp(&udp, &zone, &stop))
        };
        let by_tcp = {
            let (zone, listener) = (zone.clone(), listener.clone());
            thread::spawn(move || {
                // Shutting the listener down ends this with an error.
                while let Ok((socket, _)) = listener.accept() {
                    let zone = zone.clone();
                    thread::spawn(move || serve_tcp(socket.into(), &zone));
                }
            })
        };
        Self { address, zone, stop, listener, threads: vec![by_udp, by_tcp] }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        lock(&self.zone)
    }

    /// What a name has from now on.
    pub fn set(&self, name: &str, records: Records) {
        self.zone().names.insert(name.to_ascii_lowercase(), records);
    }

    /// Treats questions about a name in another manner.
    pub fn treat(&self, name: &str, manner: Manner) {
        self.zone().names.entry(name.to_owned()).or_default().manner = manner;
    }

    /// How often a name was asked for.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        self.zone().asked.get(name).copied().unwrap_or(0)
    }

    /// How many questions came by TCP.
    #[must_use]
    pub fn asked_by_tcp(&self) -> usize {
        self.zone().by_tcp
    }
}

impl Default for DnsServer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.listener.shutdown(Shutdown::Both);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().expect("nobody panics with the zone in hand")
}

fn bind(address: SocketAddr) -> io::Result<(UdpSocket, Socket)> {
    let udp = UdpSocket::bind(address)?;
    let address = udp.local_addr()?;
    let tcp = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(64)?;
    Ok((udp, tcp))
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        if let Some((answer, manner)) = answer(&question, zone, false) {
            let whole = answer.to_vec().unwrap_or_default();
            let fits = whole.len() <= usize::from(question.max_payload()) && manner != Manner::Truncates;
            let sent = if fits { whole } else { answer.truncate().to_vec().unwrap_or_default() };
            let _ = socket.send_to(&sent, client);
        }
    }
}

fn serve_tcp(mut stream: TcpStream, zone: &Mutex<Zone>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    while let Ok(question) = receive(&mut stream) {
        let Some((answer, _)) = answer(&question, zone, true) else { continue };
        if send(&mut stream, &answer).is_err() {
            return;
        }
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut text = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut text)?;
    Message::from_vec(&text).map_err(io::Error::other)
}

fn send(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let text = message.to_vec().map_err(io::Error::other)?;
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &text].concat())
}

fn answer(question: &Message, zone: &Mutex<Zone>, tcp: bool) -> Option<(Message, Manner)> {
    let query = question.queries.first()?;
    let mut asked = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut zone = lock(zone);
    *zone.asked.entry(asked.clone()).or_default() += 1;
    zone.by_tcp += usize::from(tcp);
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    if question.edns.is_some() {
        answer.set_edns(Edns::new());
    }
    let mut owner = query.name().clone();
    let mut manner = Manner::Denies;
    let mut ttl = 1;
    while let Some(records) = zone.names.get(&asked) {
        (manner, ttl) = (records.manner, records.ttl);
        if let Some(alias) = &records.alias {
            answer.add_answer(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(name(alias)))));
            (owner, asked) = (name(alias), alias.clone());
            continue;
        }
        if !matches!(manner, Manner::Denies | Manner::Fails) {
            let data = records.data(query.query_type());
            answer.add_answers(data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)));
        }
        break;
    }
    answer.metadata.response_code = match manner {
        Manner::IsSilent => return None,
        Manner::Fails => ResponseCode::ServFail,
        Manner::Denies => ResponseCode::NXDomain,
        Manner::Answers | Manner::Truncates => ResponseCode::NoError,
    };
    if answer.answers.is_empty() && manner != Manner::Fails {
        let soa = SOA::new(name("ns.test"), name("admin.test"), 1, 60, 60, 60, ttl);
        answer.add_authority(Record::from_rdata(owner.base_name(), ttl, RData::SOA(soa)));
    }
    Some((answer, manner))
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// A question by UDP, from inside a network namespace. `payload`: the most bytes that an answer may have.
///
/// # Errors
/// Where no answer comes within two seconds.
pub fn ask_with(
    netns: &Netns,
    server: &str,
    asked: &str,
    kind: RecordType,
    payload: Option<u16>,
) -> io::Result<Message> {
    netns.enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        exchange(&socket, &question(asked, kind, payload))
    })
}

/// A question by a UDP socket that is connected to a server.
///
/// # Errors
/// Where no answer comes.
pub fn ask_over(socket: &UdpSocket, asked: &str, kind: RecordType) -> io::Result<Message> {
    exchange(socket, &question(asked, kind, None))
}

fn exchange(socket: &UdpSocket, question: &Message) -> io::Result<Message> {
    socket.set_read_timeout(Some(Duration::from_secs(8)))?;
    socket.send(&question.to_vec().map_err(io::Error::other)?)?;
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer)?;
    Message::from_vec(&buffer[..length]).map_err(io::Error::other)
}

/// A question by UDP.
///
/// # Panics
/// Where no answer comes.
#[must_use]
pub fn ask(netns: &Netns, server: &str, asked: &str, kind: RecordType) -> Message {
    ask_with(netns, server, asked, kind, Some(1232)).unwrap_or_else(|e| panic!("{asked} {kind}: {e}"))
}

/// A question by TCP.
///
/// # Errors
/// Where no answer comes.
pub fn ask_by_tcp(netns: &Netns, server: &str, asked: &str, kind: RecordType) -> io::Result<Message> {
    netns.enter(|| {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(8)))?;
        send(&mut stream, &question(asked, kind, None))?;
        receive(&mut stream)
    })
}

fn question(asked: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name(asked), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        question.set_edns(edns);
    }
    question
}

/// The data of an answer's records, sorted.
#[must_use]
pub fn data(answer: &Message) -> Vec<String> {
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}
