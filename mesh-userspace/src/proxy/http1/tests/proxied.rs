//! Both halves together, as a proxy uses them, on sockets.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{super::Message, After, Connection, Limits, Server, Transport},
    read_to, run, write,
};

/// A socket that counts what is asked of the kernel.
struct Counted {
    stream: TcpStream,
    counts: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    reads: Cell<u32>,
    writes: Cell<u32>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.counts.reads.set(self.counts.reads.get() + u32::from(result.is_ready()));
        result
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.counts.writes.set(self.counts.writes.get() + 1);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Transport for Counted {
    fn confirmed(&self) -> Option<u64> {
        None
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    fn has_news(&self) -> bool {
        false
    }

    fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }
}

async fn pair() -> (TcpStream, Counted, Rc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let counts = Rc::new(Counts::default());
    (near, Counted { stream, counts: Rc::clone(&counts) }, counts)
}

const REQUEST: &[u8] = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nworld";
const ROUNDS: u32 = 100;

#[test]
fn a_request_through_costs_one_read_and_one_write_on_each_side() {
    run(async {
        let (mut client, downstream, down) = pair().await;
        let (mut endpoint, upstream, up) = pair().await;
        let ask = async {
            for _ in 0..ROUNDS {
                client.write_all(REQUEST).await.unwrap();
                let mut text = vec![0; RESPONSE.len()];
                client.read_exact(&mut text).await.unwrap();
                assert_eq!(text, RESPONSE);
            }
            drop(client);
        };
        let serve = async {
            for _ in 0..ROUNDS {
                let mut text = vec![0; REQUEST.len()];
                endpoint.read_exact(&mut text).await.unwrap();
                assert_eq!(text, REQUEST);
                endpoint.write_all(RESPONSE).await.unwrap();
            }
            endpoint
        };
        let proxy = async {
            let mut server = Server::new(downstream, Bytes::new(), &Limits::default());
            let mut connection = Connection::new(upstream, &Limits::default());
            while let Some(request) = server.request().await.unwrap() {
                assert!(connection.is_alive());
                let Message { head, body } = request;
                let Message { head, mut body } = connection.send(&head, body).await.unwrap();
                let response = Message { head, body: &mut body };
                assert_eq!(server.respond(response, false).await.unwrap().after, After::Request);
                connection = body.into_connection().unwrap();
            }
        };
        tokio::join!(ask, serve, proxy);
        assert_eq!((down.writes.get(), up.writes.get()), (ROUNDS, ROUNDS));
        // One for the end of the client's connection.
        assert_eq!((down.reads.get(), up.reads.get()), (ROUNDS + 1, ROUNDS));
    });
}

#[test]
fn a_client_that_reads_only_after_it_sent_is_not_waited_for_for_ever() {
    run(async {
        const LENGTH: usize = 100_000;
        let (mut client, downstream) = tokio::io::duplex(1_000);
        let (upstream, mut endpoint) = tokio::io::duplex(1_000);
        let ask = async {
            write(&mut client, &format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
            write(&mut client, &"x".repeat(LENGTH)).await;
            read_to(&mut client, "\r\n\r\n").await;
            client.read_exact(&mut vec![0; LENGTH]).await.unwrap();
        };
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\n").await;
            let (mut read, mut write) = tokio::io::split(&mut endpoint);
            let answer = async {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
                write.write_all(head.as_bytes()).await.unwrap();
                write.write_all(&vec![b'y'; LENGTH]).await.unwrap();
            };
            let mut request = vec![0; LENGTH];
            tokio::join!(answer, async { read.read_exact(&mut request).await.unwrap() });
        };
        let proxy = async {
            let mut server = Server::new(downstream, Bytes::new(), &Limits::default());
            let connection = Connection::new(upstream, &Limits::default());
            let Message { head, body } = server.request().await.unwrap().unwrap();
            let Message { head, mut body } = connection.send(&head, body).await.unwrap();
            let response = Message { head, body: &mut body };
            let responded = server.respond_while(response, false, |mut body, cx| body.poll_upload(cx)).await;
            assert_eq!(responded.unwrap().after, After::Request);
            assert!(body.into_connection().is_some());
        };
        tokio::join!(ask, serve, proxy);
    });
}
