//! A connection to an endpoint, and what goes over it: counted here where no kernel does.

use super::{http1::Transport, state::Counts};
use mesh_common::endpoint::Counter;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) struct Upstream {
    stream: TcpStream,
    /// Where its bytes are counted; `None`: the kernel does.
    counted: Option<Arc<dyn Counts>>,
}

impl Upstream {
    /// `counted`: where its bytes are counted; `None`: the kernel does.
    pub(super) const fn new(stream: TcpStream, counted: Option<Arc<dyn Counts>>) -> Self {
        Self { stream, counted }
    }

    fn sent(&self, result: io::Result<usize>) -> io::Result<usize> {
        if let (Some(counts), Ok(n)) = (&self.counted, &result) {
            counts.add(Counter::Sent, *n as u64);
        }
        result
    }
}

impl AsyncRead for Upstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(counts) = &self.counted {
            counts.add(Counter::Received, (buffer.filled().len() - before) as u64);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes).map(|written| self.sent(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces).map(|written| self.sent(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Transport for Upstream {
    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    fn has_news(&self) -> bool {
        self.stream.has_news()
    }

    fn confirmed(&self) -> Option<u64> {
        self.stream.confirmed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::EndpointState;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    #[tokio::test]
    async fn bytes_are_counted_for_the_endpoint_and_only_where_nobody_else_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (counts, expected) in [(true, (7, 3)), (false, (0, 0))] {
            let endpoint = Arc::<EndpointState>::default();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut upstream = Upstream::new(stream, counts.then(|| Arc::clone(&endpoint) as _));
            let mut peer = listener.accept().await.unwrap().0;
            peer.write_all(b"abc").await.unwrap();
            upstream.read_exact(&mut [0; 3]).await.unwrap();
            upstream.write_all(b"abcd").await.unwrap();
            let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
            assert_eq!(upstream.write_vectored(&pieces).await.unwrap(), 3);
            let counts = endpoint.connections.counts();
            assert_eq!((counts.sent, counts.received), expected);
        }
    }
}
