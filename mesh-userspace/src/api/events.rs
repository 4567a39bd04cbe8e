//! Events of a [`Feed`](super::Feed) or a [`Screen`](super::Screen) on the wire: server-sent events, as browsers and
//! `curl -N` read them.

use super::{
    feed::{Event, Read, Reader, Source},
    live::Viewer,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{HeaderMap, body::Frame};
use std::{convert::Infallible, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, watch};

/// How long nothing may be said: proxies close connections on which nothing is.
const SILENCE: Duration = Duration::from_secs(15);

/// The body of an answer that goes on.
pub(super) type Frames = UnsyncBoxBody<Bytes, Infallible>;

/// The event that a client read last, as it says.
pub(super) fn last_event(headers: &HeaderMap) -> Option<u64> {
    // Something else is no id of ours: such a client gets a snapshot.
    headers.get("last-event-id")?.to_str().ok()?.trim().parse().ok()
}

/// What events come from.
pub(super) trait Events: Send + 'static {
    /// The next one, once there is one. Nothing may be lost where it is not waited for to the end.
    fn next(&mut self) -> impl Future<Output = Read> + Send;
}

impl Events for Reader {
    fn next(&mut self) -> impl Future<Output = Read> + Send {
        self.next()
    }
}

impl Events for Box<dyn Source> {
    fn next(&mut self) -> impl Future<Output = Read> + Send {
        (**self).next()
    }
}

impl Events for Viewer {
    fn next(&mut self) -> impl Future<Output = Read> + Send {
        self.next()
    }
}

/// All that comes from `source`, until the server stops. `place` is kept as long as somebody listens.
///
/// An event is asked for when the one before is on its way, so a client that does not read is asked for none.
pub(super) fn frames<E: Events>(source: E, stopped: watch::Receiver<bool>, place: OwnedSemaphorePermit) -> Frames {
    let next = |state: Option<(E, watch::Receiver<bool>, OwnedSemaphorePermit)>| async move {
        let (mut source, mut stopped, place) = state?;
        let (text, goes_on) = tokio::select! {
            read = source.next() => match read {
                Read::Event(event) => (written(&event), true),
                Read::Behind => (BEHIND.to_owned(), false),
                Read::Ended => return None,
            },
            _ = stopped.wait_for(|stopped| *stopped) => return None,
            () = tokio::time::sleep(SILENCE) => (": nothing new\n\n".to_owned(), true),
        };
        Some((Ok(Frame::data(Bytes::from(text))), goes_on.then_some((source, stopped, place))))
    };
    StreamBody::new(unfold(Some((source, stopped, place)), next)).boxed_unsync()
}

/// The last event of a client that reads too slowly. It has no id: who comes again says which one it really read last.
const BEHIND: &str = "event: behind\ndata: {\"message\":\"too slow: events were missed; connect again\"}\n\n";

fn written(event: &Event) -> String {
    let Event { id, kind, data } = event;
    format!("id: {id}\nevent: {kind}\ndata: {data}\n\n")
}

/// An event as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number, where it has one.
    pub id: Option<u64>,
    /// Which kind of event.
    pub kind: String,
    /// JSON.
    pub data: String,
}

/// Reads events, however they are cut into pieces.
#[derive(Debug, Default)]
pub(super) struct Parser {
    text: Vec<u8>,
}

impl Parser {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// The next whole event.
    pub(super) fn next(&mut self) -> Option<Received> {
        loop {
            let end = memchr::memmem::find(&self.text, b"\n\n")?;
            let rest = self.text.split_off(end + 2);
            let whole = std::mem::replace(&mut self.text, rest);
            let whole = String::from_utf8_lossy(&whole);
            let field = |name: &str| whole.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                let id = field("id").and_then(|id| id.parse().ok());
                return Some(Received { id, kind: kind.to_owned(), data: data.to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_were_written_however_they_are_cut() {
        let events = [7, 8].map(|id| Event { id, kind: "endpoint", data: format!("{{\"n\":\"{id}: ä\"}}").into() });
        let text = format!("{}: nothing new\n\n{}{BEHIND}", written(&events[0]), written(&events[1]));
        for size in [1, 2, 3, 7, 1000] {
            let (mut parser, mut read) = (Parser::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                parser.feed(piece);
                read.extend(std::iter::from_fn(|| parser.next()));
            }
            let ids: Vec<_> = read.iter().map(|event| event.id).collect();
            assert_eq!(ids, [Some(7), Some(8), None]);
            assert_eq!((read[1].kind.as_str(), &*read[1].data), ("endpoint", &*events[1].data));
            assert_eq!(read[2].kind, "behind");
        }
    }
}
