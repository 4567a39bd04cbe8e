//! Gathering and reading ahead.

use std::io::{self, IoSlice};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    super::cork::{BOUND, cork},
    *,
};

/// A socket that takes so many bytes at a time, says now and then that it takes none, and counts its writes.
#[derive(Default)]
struct Socket {
    taken: Rc<RefCell<Vec<u8>>>,
    writes: Rc<Cell<usize>>,
    steps: VecDeque<usize>,
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = self.steps.pop_front().unwrap_or(usize::MAX);
        if step == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.writes.set(self.writes.get() + 1);
        let mut left = step;
        for piece in pieces {
            let part = &piece[..piece.len().min(left)];
            self.taken.borrow_mut().extend_from_slice(part);
            left -= part.len();
        }
        Poll::Ready(Ok(step - left))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_leaves_whole_and_in_order(
        sizes in prop::collection::vec(1..40_000_usize, 1..20),
        steps in prop::collection::vec(0..30_000_usize, 0..60),
    ) {
        run(async {
            let socket = Socket { steps: steps.into(), ..Socket::default() };
            let taken = Rc::clone(&socket.taken);
            let (mut corked, mut cork) = cork(socket, Bytes::new());
            let mut all = Vec::new();
            for (i, size) in sizes.into_iter().enumerate() {
                let piece = vec![i as u8; size];
                corked.write_all(&piece).await.unwrap();
                all.extend(piece);
                assert!(all.len() - taken.borrow().len() <= BOUND);
                if i % 3 == 0 {
                    poll_fn(|cx| cork.poll_round(cx)).await.unwrap();
                }
            }
            corked.shutdown().await.unwrap();
            assert_eq!(*taken.borrow(), all);
            assert_eq!(cork.progress().written(), all.len() as u64);
        });
    }

    #[test]
    fn what_is_read_arrives_whole_and_in_order(
        before in prop::collection::vec(any::<u8>(), 0..100),
        sizes in prop::collection::vec(1..100_000_usize, 0..10),
        reads in prop::collection::vec(1..70_000_usize, 1..30),
    ) {
        run(async {
            let (ours, mut theirs) = tokio::io::duplex(PIPE);
            let sent: Vec<u8> = sizes.iter().enumerate().flat_map(|(i, size)| vec![i as u8; *size]).collect();
            let all: Vec<u8> = [before.clone(), sent.clone()].concat();
            let write = async {
                theirs.write_all(&sent).await.unwrap();
                drop(theirs);
            };
            let (mut corked, _cork) = cork(ours, before.into());
            let read = async {
                let mut came: Vec<u8> = Vec::new();
                for size in reads.iter().cycle() {
                    let mut buf = vec![0; *size];
                    match corked.read(&mut buf).await.unwrap() {
                        0 => break,
                        n => came.extend(&buf[..n]),
                    }
                }
                came
            };
            assert_eq!(tokio::join!(read, write).0, all);
        });
    }
}

#[test]
fn frames_of_a_round_leave_in_one_write() {
    run(async {
        let socket = Socket::default();
        let writes = Rc::clone(&socket.writes);
        let (mut corked, mut cork) = cork(socket, Bytes::new());
        for _ in 0..32 {
            corked.write_all(&[1; 1000]).await.unwrap();
            corked.flush().await.unwrap();
        }
        assert_eq!(writes.get(), 0);
        let mut turns = 0;
        poll_fn(|cx| {
            turns += 1;
            cork.poll_round(cx)
        })
        .await
        .unwrap();
        assert_eq!((writes.get(), turns), (1, 2));
    });
}
