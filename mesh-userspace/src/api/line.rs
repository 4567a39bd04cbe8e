//! What two daemons say to each other during a takeover: messages with descriptors, on a socket of their own.
//!
//! A message is its length (four bytes, big-endian) and JSON; descriptors travel with the first bytes of it. Whoever
//! reads must read here from the first byte on: a plain `read` would lose them.

use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt::PeerCredentials,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// The largest message: some 200 bytes for each of a hundred thousand runtime changes.
const MAX_MESSAGE: u32 = 32 << 20;
/// The most descriptors of a message.
const MAX_DESCRIPTORS: usize = super::takeover::MOST_PASSED;

/// One end of the conversation.
#[derive(Debug)]
pub struct Line(UnixStream);

/// Why nothing was said or heard.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other end is closed: its process has gone, or gave up.
    #[error("the other daemon has hung up")]
    Closed,
    /// Nothing came, or nothing was read, for this long.
    #[error("the other daemon was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// What came makes no sense.
    #[error("the other daemon is not understood: {0}")]
    Garbled(String),
    /// The system refuses.
    #[error("talking to the other daemon: {0}")]
    Io(io::Error),
}

impl Line {
    /// Speaks over `stream`.
    ///
    /// # Errors
    /// If the socket cannot be made a blocking one.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    /// The process that opened the connection, as the kernel knows it; `None` in another pid namespace.
    #[must_use]
    pub fn peer(&self) -> Option<i32> {
        getsockopt(&self.0, PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
    }

    /// Says something and passes descriptors. Waits at most `patience` for the other side to read.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(), LineError> {
        let failed = |e| said(e, patience);
        self.0.set_write_timeout(Some(patience)).map_err(failed)?;
        let text = serde_json::to_vec(message).map_err(|e| LineError::Garbled(e.to_string()))?;
        let length = u32::try_from(text.len()).ok().filter(|length| *length <= MAX_MESSAGE);
        let length = length.ok_or_else(|| LineError::Garbled("a message is too long".to_owned()))?;
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let head = length.to_be_bytes();
        let sent = sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&head)], rights, MsgFlags::MSG_NOSIGNAL, None);
        let sent = sent.map_err(|e| failed(e.into()))?;
        (&self.0).write_all(&head[sent..]).and_then(|()| (&self.0).write_all(&text)).map_err(failed)
    }

    /// Waits at most `patience` for a message. Its descriptors come in the order in which they were passed.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn receive<T: DeserializeOwned>(&self, patience: Duration) -> Result<(T, Vec<OwnedFd>), LineError> {
        let failed = |e| said(e, patience);
        self.0.set_read_timeout(Some(patience)).map_err(failed)?;
        let mut head = [0; 4];
        let (read, descriptors) = self.first_bytes(&mut head).map_err(failed)?;
        if read == 0 {
            return Err(LineError::Closed);
        }
        (&self.0).read_exact(&mut head[read..]).map_err(failed)?;
        let length = u32::from_be_bytes(head);
        if length > MAX_MESSAGE {
            return Err(LineError::Garbled(format!("a message of {length} bytes")));
        }
        let mut text = Vec::new();
        (&self.0).take(u64::from(length)).read_to_end(&mut text).map_err(failed)?;
        if text.len() < length as usize {
            return Err(LineError::Closed);
        }
        let message = serde_json::from_slice(&text).map_err(|e| LineError::Garbled(e.to_string()))?;
        Ok((message, descriptors))
    }

    fn first_bytes(&self, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let mut descriptors = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
                descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        Ok((received.bytes, descriptors))
    }

    /// Waits until the other end is closed, however long that takes, and heeds nothing that is said before.
    pub fn wait_for_the_end(&self) {
        let forever = self.0.set_read_timeout(None);
        let mut ignored = [0; 4096];
        while forever.is_ok() {
            match self.first_bytes(&mut ignored) {
                Ok((0, _)) => return,
                Err(e) if e.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    }
}

fn said(e: io::Error, patience: Duration) -> LineError {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => LineError::Silent(patience),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => LineError::Closed,
        _ if e.raw_os_error() == Some(Errno::ENOTCONN as i32) => LineError::Closed,
        _ => LineError::Io(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{Seek, SeekFrom},
        os::fd::AsFd,
        time::Instant,
    };

    const SOON: Duration = Duration::from_secs(5);

    fn line() -> (Line, Line) {
        let (a, b) = UnixStream::pair().unwrap();
        (Line::new(a).unwrap(), Line::new(b).unwrap())
    }

    #[test]
    fn descriptors_come_with_their_message_and_in_order() {
        let (a, b) = line();
        let files: Vec<File> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        for (mut file, text) in files.iter().zip(["one", "two", "three"]) {
            file.write_all(text.as_bytes()).unwrap();
        }
        // More than a socket holds: it is read while it is written.
        let long = "x".repeat(1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                a.send(&long, &[files[2].as_fd()], SOON).unwrap();
                a.send(&"short", &[files[0].as_fd(), files[1].as_fd()], SOON).unwrap();
                a.send(&7, &[], SOON).unwrap();
            });
            let text = |fd: OwnedFd| {
                let mut file = File::from(fd);
                let mut text = String::new();
                file.seek(SeekFrom::Start(0)).unwrap();
                file.read_to_string(&mut text).unwrap();
                text
            };
            let texts = |message: &str, descriptors: Vec<OwnedFd>| {
                (message.len(), descriptors.into_iter().map(text).collect::<Vec<_>>())
            };
            let (message, descriptors) = b.receive::<String>(SOON).unwrap();
            assert_eq!(texts(&message, descriptors), (1 << 20, vec!["three".to_owned()]));
            let (message, descriptors) = b.receive::<String>(SOON).unwrap();
            assert_eq!(texts(&message, descriptors), (5, vec!["one".to_owned(), "two".to_owned()]));
            let (number, descriptors) = b.receive::<u8>(SOON).unwrap();
            assert_eq!((number, descriptors.len()), (7, 0));
        });
    }

    #[test]
    fn silence_an_end_and_nonsense_are_told_apart() {
        let (a, b) = line();
        let before = Instant::now();
        assert!(matches!(b.receive::<String>(Duration::from_millis(50)), Err(LineError::Silent(_))));
        assert!(before.elapsed() < SOON);
        a.send(&1, &[], SOON).unwrap();
        assert!(matches!(b.receive::<String>(SOON), Err(LineError::Garbled(_))));
        (&a.0).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        assert!(matches!(b.receive::<String>(SOON), Err(LineError::Garbled(_))));
        let (a, b) = line();
        (&a.0).write_all(&[0, 0, 0, 9, b'"']).unwrap();
        drop(a);
        assert!(matches!(b.receive::<String>(SOON), Err(LineError::Closed)), "in the middle of a message");
        assert!(matches!(b.receive::<String>(SOON), Err(LineError::Closed)));
        assert!(matches!(b.send(&1, &[], SOON), Err(LineError::Closed)));
        b.wait_for_the_end();
    }

    #[test]
    fn the_peer_is_known() {
        let (a, _b) = line();
        assert_eq!(a.peer(), i32::try_from(std::process::id()).ok());
    }
}
