//! A scrape: metrics that are sent while they are written, so that no more than a few pieces are in memory at a time.
//!
//! It promises that no answer looks whole and is not: what goes wrong before anything was sent is an error with its status,
//! and what goes wrong later breaks the connection off. And that nobody writes for a client that went away, or that does
//! not read and so loses its connection ([`Impatient`](super::stream::Impatient)).

use super::door::{Door, Refusal};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::{BodyExt, Either, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Version, body::Frame};
use std::{ops::ControlFlow, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

/// Pieces that may wait to be sent, half a MiB: who writes them is ahead of who sends them by so much. A client that reads
/// slowly keeps the thread that writes; connections are limited to fewer than there are threads for that.
const AHEAD: usize = 8;

/// A body that is sent piece by piece, and broken off where there is an error.
pub(super) type Pieces = UnsyncBoxBody<Bytes, Refusal>;

/// The metrics: as a whole where they fit into one piece.
///
/// # Errors
/// [`Refusal`], where they cannot be collected.
pub(super) async fn body(door: &Arc<dyn Door>, version: Version) -> Result<Either<Full<Bytes>, Pieces>, Refusal> {
    let mut scrape = Scrape::begin(Arc::clone(door));
    let Some(first) = scrape.next().await? else { return Ok(Either::Left(Full::default())) };
    let Some(second) = scrape.next().await? else { return Ok(Either::Left(Full::new(first))) };
    if version < Version::HTTP_11 {
        // Such a client would take the end of the connection for the end of the text, also where it was broken off.
        let mut whole = [first, second].concat();
        while let Some(piece) = scrape.next().await? {
            whole.extend_from_slice(&piece);
        }
        return Ok(Either::Left(Full::new(whole.into())));
    }
    let begin = stream::iter([Ok(first), Ok(second)]);
    let pieces = begin.chain(stream::unfold(Some(scrape), rest)).map(|piece| piece.map(Frame::data));
    Ok(Either::Right(StreamBody::new(pieces).boxed_unsync()))
}

async fn rest(scrape: Option<Scrape>) -> Option<(Result<Bytes, Refusal>, Option<Scrape>)> {
    let mut scrape = scrape?;
    match scrape.next().await.transpose()? {
        Ok(piece) => Some((Ok(piece), Some(scrape))),
        Err(why) => {
            tracing::error!("a scrape was broken off: {why}");
            Some((Err(why), None))
        }
    }
}

/// Metrics that are being written on a thread where that may take its time.
struct Scrape {
    pieces: mpsc::Receiver<Bytes>,
    writer: JoinHandle<Result<(), Refusal>>,
}

impl Scrape {
    fn begin(door: Arc<dyn Door>) -> Self {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let write = move || {
            // Nobody receives once the connection is gone.
            door.metrics(&mut |piece| match sender.blocking_send(piece.into()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        };
        Self { pieces, writer: tokio::task::spawn_blocking(write) }
    }

    /// The next piece; `None`: that was all. Not to be asked again after anything but a piece.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if let Some(piece) = self.pieces.recv().await {
            return Ok(Some(piece));
        }
        let written = (&mut self.writer).await;
        written.map_err(|e| Refusal::internal(format!("the metrics were not collected: {e}")))??;
        Ok(None)
    }
}
