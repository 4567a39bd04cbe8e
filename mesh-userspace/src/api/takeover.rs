//! A daemon that takes over from another one: the way from a request to a line between the two, and what is said there.
//!
//! `POST /v1/takeover` with `Upgrade: mesh-takeover/1` at the admin socket is answered `101`, and the connection is a
//! [`Line`] from then on. The successor says [`Greeting`], the predecessor [`Estate`] with the descriptors, the
//! successor [`Ready`] once it is at work, the predecessor [`Farewell`]. Whichever end closes before [`Ready`] was
//! sent: there was no takeover.

use super::{door::Door, line::Line, routes::HttpError, stream::Impatient};
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    header::{CONNECTION, HeaderValue, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, thread};
use tokio::net::UnixStream;

/// What both daemons must speak. The number rises when a message changes its meaning; fields may be added.
pub(super) const PROTOCOL: &str = "mesh-takeover/1";

/// Who wants to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estate {
    /// The version of the daemon that goes.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Whether its programs intercept connections.
    pub intercepts: bool,
    /// What sources of services told it.
    #[serde(default)]
    pub discovered: Discovered,
    /// What operators changed while it ran.
    pub changes: Vec<RuntimeChange>,
    /// What the descriptors are, in their order.
    pub descriptors: Vec<Passed>,
}

/// What sources of services told a daemon, written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// The directory in which it stands.
    pub directory: PathBuf,
    /// The sources that told all they know.
    pub sources: Vec<String>,
}

/// What an operator changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RuntimeChange {
    /// How a service's endpoints are picked.
    Policy {
        /// The service.
        service: String,
        /// The policy's word.
        policy: String,
    },
    /// An endpoint's weight, or whether it is in selection.
    Endpoint {
        /// Of this service.
        service: String,
        /// Where it listens.
        address: SocketAddr,
        /// Its weight; null: as configured.
        weight: Option<u16>,
        /// Whether it drains; null: as configured.
        draining: Option<bool>,
        /// Whether its circuit is held open.
        #[serde(default)]
        tripped: bool,
    },
    /// When a service's circuits open, and for how long.
    Breaker {
        /// The service.
        service: String,
        /// Failures in a row that open a circuit; null: as configured.
        failure_threshold: Option<u32>,
        /// How long a circuit stays open at first, in milliseconds; null: as configured.
        reset_timeout_ms: Option<u64>,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Passed {
    /// A TCP listener.
    Tcp,
    /// The admin socket's listener.
    Socket {
        /// Device of its file.
        device: u64,
        /// Inode of its file.
        inode: u64,
    },
    /// A lock on a file or directory.
    Lock {
        /// Where it is.
        path: PathBuf,
    },
    /// A listener of the explicit proxy; there is one for each worker.
    Proxy,
    /// A listener for captured clients.
    Capture {
        /// Cookie of its network namespace.
        netns: u64,
        /// Whether it listens at `::1`, not at 127.0.0.1.
        ipv6: bool,
        /// The worker that accepts.
        worker: usize,
    },
    /// A socket of the DNS server.
    NameServer {
        /// Whether it is that for UDP, not a TCP listener.
        udp: bool,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// More descriptors of the [`Estate`], of which one message carries [`MOST_PASSED`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MorePassed {
    /// How many come with this message.
    pub more: usize,
}

/// How many descriptors one message carries.
pub const MOST_PASSED: usize = 32;

/// The successor is at work; the predecessor must go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
}

/// The predecessor goes, and touches nothing any more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Farewell {
    /// Always true.
    pub farewell: bool,
}

/// Goes on with a takeover once there is a line to the successor. It may block. Dropped, there is no takeover.
pub type HandOver = Box<dyn FnOnce(Line) + Send>;

/// Answers the request of a successor, and leads the connection to the door afterwards.
pub(super) fn begin<B>(request: Request<B>, door: &Arc<dyn Door>) -> Result<Response<Full<bytes::Bytes>>, HttpError> {
    if !asks_for_upgrade(request.headers()) {
        let message = format!("a takeover begins with the headers Connection: upgrade and Upgrade: {PROTOCOL}");
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, "invalid", message));
    }
    let hand_over = door.take_over()?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let Some(line) = line(upgraded) else { return };
        // Its own thread: it waits, and the admin server may end before it does.
        // Without a thread the line is dropped, and the successor hears that.
        let _ = thread::Builder::new().name("takeover".to_owned()).spawn(move || hand_over(line));
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol == PROTOCOL)
}

/// The connection itself, nothing of it read or buffered: the successor speaks only after the answer.
fn line(upgraded: Upgraded) -> Option<Line> {
    let parts = upgraded.downcast::<TokioIo<Impatient<UnixStream>>>().ok()?;
    if !parts.read_buf.is_empty() {
        return None;
    }
    Line::new(parts.io.into_inner().into_inner().into_std().ok()?).ok()
}
