//! Questions and answers on the wire.
//!
//! The loops are not those of the library: they stop reading at once and still answer what they have read, so that a
//! daemon which is followed by another one, at the same sockets, leaves nobody without an answer.

use super::{
    answer::{Answer, Word, answer},
    forward::{Forwarder, Manner, Silence},
    table::Table,
};
use crate::discovery::{Direct, Own};
use arc_swap::ArcSwap;
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Record},
    serialize::binary::BinEncoder,
};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// How long it may be after the server was told to stop.
const LAST_WORD: Duration = Duration::from_millis(300);

/// TCP connections at one time. Whoever comes besides is turned away.
const CONNECTIONS: usize = 256;

/// How long to wait after the system refused to take or receive anything.
const TROUBLE: Duration = Duration::from_millis(50);

/// The longest question by UDP.
const QUESTION: usize = 4096;

/// The most bytes of an answer by UDP, whatever is asked for.
const LONGEST: u16 = 4096;

/// A server at work. Dropped, it takes no more questions, and answers those that it has.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<()>,
    /// Whoever has something to do has one, too.
    busy: Arc<()>,
}

impl Server {
    /// Answers by the table of the moment at these sockets, which do not block, on the runtime that is entered. The rest is
    /// asked at `servers`, or those of `/etc/resolv.conf` where there is none, past the hooks. `host`: the addresses of this
    /// host.
    ///
    /// # Errors
    /// What is wrong with the sockets.
    pub fn start(
        table: Arc<ArcSwap<Table>>,
        (udp, tcp): (std::net::UdpSocket, std::net::TcpListener),
        servers: Vec<SocketAddr>,
        host: impl FnOnce() -> Vec<IpAddr>,
        direct: Direct,
    ) -> io::Result<Self> {
        let forwarder = Forwarder::new(servers, Own::new(udp.local_addr()?, host), direct);
        let handler = Arc::new(Handler { table, forwarder });
        let (stop, stopped) = watch::channel(());
        let busy = Arc::new(());
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        tokio::spawn(serve_udp(udp, Arc::clone(&handler), stopped.clone(), Arc::clone(&busy)));
        tokio::spawn(serve_tcp(tcp, handler, stopped, Arc::clone(&busy)));
        Ok(Self { stop, busy })
    }

    /// Takes no more questions, and waits until those that it has are answered, for as long as `within`. Not to be called
    /// on its runtime.
    pub fn finish(self, within: Duration) {
        let Self { stop, busy } = self;
        drop(stop);
        let end = Instant::now() + within;
        while Arc::strong_count(&busy) > 1 && Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn serve_udp(socket: UdpSocket, handler: Arc<Handler>, mut stop: watch::Receiver<()>, busy: Arc<()>) {
    let socket = Arc::new(socket);
    let mut buffer = [0; QUESTION];
    loop {
        let received = tokio::select! {
            biased;
            _ = stop.changed() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((length, client)) = received else {
            sleep(TROUBLE).await;
            continue;
        };
        let question = buffer[..length].to_vec();
        let (handler, socket, busy) = (Arc::clone(&handler), Arc::clone(&socket), Arc::clone(&busy));
        tokio::spawn(async move {
            if let Some(answer) = handler.answer(question, client, Protocol::Udp).await {
                // Whoever does not get it asks again.
                let _ = socket.send_to(&answer, client).await;
            }
            drop(busy);
        });
    }
}

async fn serve_tcp(listener: TcpListener, handler: Arc<Handler>, mut stop: watch::Receiver<()>, busy: Arc<()>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, client)) = accepted else {
            sleep(TROUBLE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (handler, stop, busy) = (Arc::clone(&handler), stop.clone(), Arc::clone(&busy));
        tokio::spawn(async move {
            // It ends with its client, or with what goes wrong.
            let _ = converse(stream, client, &handler, stop).await;
            drop((permit, busy));
        });
    }
}

/// Answers question after question.
async fn converse(
    mut stream: TcpStream,
    client: SocketAddr,
    handler: &Handler,
    mut stop: watch::Receiver<()>,
) -> io::Result<()> {
    loop {
        let question = {
            let reading = timeout(SILENCE, read(&mut stream));
            tokio::pin!(reading);
            tokio::select! {
                question = &mut reading => question,
                // One that is on its way is still answered.
                _ = stop.changed() => timeout(LAST_WORD, reading).await?,
            }
        };
        let question = question??;
        let Some(answer) = handler.answer(question, client, Protocol::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut question = vec![0; usize::from(length)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

struct Handler {
    table: Arc<ArcSwap<Table>>,
    forwarder: Forwarder,
}

/// An answer before it is sent.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    authentic: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl From<ResponseCode> for Reply {
    fn from(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl From<Answer> for Reply {
    fn from(Answer { code, records, more, soa }: Answer) -> Self {
        let authorities = soa.into_iter().collect();
        Self { code, authoritative: true, authentic: false, answers: records, authorities, additionals: more }
    }
}

impl Handler {
    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return ResponseCode::NotImp.into();
        }
        let [query] = request.queries.queries() else { return ResponseCode::FormErr.into() };
        let query = query.original();
        if query.query_class() != DNSClass::IN {
            return ResponseCode::Refused.into();
        }
        let ours = match answer(&self.table.load(), query.name(), query.query_type()) {
            Word::Ours(answer) => return answer.into(),
            Word::OthersOr(answer) => Some(answer),
            Word::Others => None,
        };
        let manner = Manner {
            recursion: request.metadata.recursion_desired,
            dnssec: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: request.metadata.checking_disabled,
        };
        match (self.forwarder.ask(query, manner).await, ours) {
            (Ok(response), Some(ours)) if response.response_code == ResponseCode::NXDomain => ours.into(),
            // Not where too much is asked: names must not change hands by that.
            (Err(Silence::Nobody(_)), Some(ours)) => ours.into(),
            (Ok(response), _) => {
                let response = response.into_message();
                Reply {
                    code: response.metadata.response_code,
                    authoritative: false,
                    authentic: response.metadata.authentic_data,
                    answers: response.answers,
                    authorities: response.authorities,
                    additionals: response.additionals,
                }
            }
            (Err(why), _) => {
                tracing::debug!("{query}: {why}");
                ResponseCode::ServFail.into()
            }
        }
    }
}

impl Handler {
    /// The answer to a question, both as they are on the wire; `None`: none is due.
    async fn answer(&self, question: Vec<u8>, client: SocketAddr, protocol: Protocol) -> Option<Vec<u8>> {
        let id = u16::from_be_bytes(*question.first_chunk()?);
        // Who answers answers could be made to do so for ever.
        if question.get(2)? & 0x80 != 0 {
            return None;
        }
        let failure = |code| Message::error_msg(id, OpCode::Query, code).to_vec().ok();
        let Ok(request) = Request::from_bytes(question, client, protocol) else {
            return failure(ResponseCode::FormErr);
        };
        let reply = self.reply(&request).await;
        encode(&request, &reply, protocol).or_else(|| failure(ResponseCode::ServFail))
    }
}

fn encode(request: &Request, reply: &Reply, protocol: Protocol) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.message_type = MessageType::Response;
    metadata.response_code = reply.code;
    metadata.authoritative = reply.authoritative;
    metadata.authentic_data = reply.authentic;
    metadata.recursion_available = true;
    let most = request.max_payload().min(LONGEST);
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(most).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let builder = MessageResponseBuilder::new(&request.queries, edns.as_ref());
    let response = builder.build(metadata, &reply.answers, &reply.authorities, &[], &reply.additionals);
    let mut wire = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut wire);
    // What does not fit is left out, and said to be.
    encoder.set_max_size(if protocol == Protocol::Udp { most } else { u16::MAX });
    response.destructive_emit(&mut encoder).ok()?;
    Some(wire)
}
