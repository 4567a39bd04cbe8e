//! Other servers, for what is nobody's here.

use crate::discovery::{Direct, Own, dns::system_servers};
use futures_util::StreamExt;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, Query, ResponseCode};
use hickory_resolver::net::{
    DnsHandle, NetError,
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsRequestSender, FirstAnswer},
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::sync::Semaphore;

/// How long one server may take for an answer, each by UDP and by TCP.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How many questions may be on their way. Whoever asks more, or asks in a circle, is refused.
const ON_THE_WAY: usize = 512;

/// The most bytes of an answer by UDP that pass everywhere in one piece.
const PAYLOAD: u16 = 1232;

/// How a question was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Wants somebody to look further.
    pub(super) recursion: bool,
    /// Wants signatures.
    pub(super) dnssec: bool,
    /// Checks signatures itself.
    pub(super) checking_disabled: bool,
}

/// Asks other servers.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// Whom to ask; nobody: those of `/etc/resolv.conf`.
    servers: Vec<SocketAddr>,
    /// Where questions come from: never asked.
    own: Own,
    direct: Direct,
    /// The one that answered last.
    first: AtomicUsize,
    permits: Semaphore,
}

impl Forwarder {
    pub(super) fn new(servers: Vec<SocketAddr>, own: Own, direct: Direct) -> Self {
        Self { servers, own, direct, first: AtomicUsize::new(0), permits: Semaphore::new(ON_THE_WAY) }
    }

    /// What the first server answers that has an answer.
    ///
    /// # Errors
    /// [`Silence`].
    pub(super) async fn ask(&self, query: &Query, manner: Manner) -> Result<DnsResponse, Silence> {
        let _permit = self.permits.try_acquire().map_err(|_| Silence::Busy)?;
        let all = match &*self.servers {
            [] => system_servers().map_err(Silence::Nobody)?,
            servers => servers.to_vec(),
        };
        let servers: Vec<SocketAddr> = all.into_iter().filter(|server| !self.own.is(*server)).collect();
        if servers.is_empty() {
            let why = "there is no other server to ask: name one in discovery.dns.servers";
            return Err(Silence::Nobody(why.to_owned()));
        }
        let first = self.first.load(Ordering::Relaxed);
        let mut trouble = Vec::new();
        for step in 0..servers.len() {
            let number = first.wrapping_add(step) % servers.len();
            let server = servers[number];
            match exchange(self.direct, server, request(query, manner)).await {
                Ok(response) if is_answer(&response) => {
                    self.first.store(number, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(response) => trouble.push(format!("{server}: {}", response.response_code)),
                Err(e) => trouble.push(format!("{server}: {e}")),
            }
        }
        Err(Silence::Nobody(trouble.join("; ")))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    /// Nobody was asked.
    #[error("too many questions are on their way")]
    Busy,
    /// There is nobody who has one.
    #[error("{0}")]
    Nobody(String),
}

/// Whether another server would say the same.
fn is_answer(response: &Message) -> bool {
    !matches!(response.response_code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

fn request(query: &Query, manner: Manner) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = manner.recursion;
    message.metadata.checking_disabled = manner.checking_disabled;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD).set_dnssec_ok(manner.dnssec);
    message.set_edns(edns);
    DnsRequest::new(message, DnsRequestOptions::default())
}

/// Asks by UDP, and by TCP what is too long for it.
async fn exchange(direct: Direct, server: SocketAddr, request: DnsRequest) -> Result<DnsResponse, NetError> {
    let provider = direct.dns();
    let mut udp = UdpClientStream::builder(server, provider.clone()).with_timeout(Some(PATIENCE)).build();
    let response = udp.send_message(request.clone()).next().await.unwrap_or(Err(NetError::NoConnections))?;
    if !response.truncation {
        return Ok(response);
    }
    let tcp = TcpClientStream::exchange(server, None, PATIENCE, None, provider).await?;
    tcp.send(request).first_answer().await
}
