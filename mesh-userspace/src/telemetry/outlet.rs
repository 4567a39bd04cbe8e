//! Lines on their way to stderr. Whoever reads it too slowly, or has stopped reading it, holds up nobody: what finds no room
//! is dropped, whole lines at a time, and counted.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tracing_subscriber::fmt::MakeWriter;

/// So many bytes may wait to be written.
const ROOM: usize = 4 << 20;

/// How long what still waits at the end may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A buffer that grew larger than this is not kept.
const KEPT: usize = 256 << 10;

/// Where lines go in.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Pipe>);

/// Sees to it that what waits is written before it is dropped.
#[derive(Debug)]
pub(super) struct Flush(Arc<Pipe>);

#[derive(Debug, Default)]
struct Pipe {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    more: Condvar,
    /// Everything is written.
    done: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// What was taken is being written.
    writing: bool,
}

impl Outlet {
    /// Lines go to `end`, by a thread of their own.
    ///
    /// # Errors
    /// The system's, where there can be no thread.
    pub(super) fn start(end: impl Write + AsFd + Send + 'static) -> io::Result<(Self, Flush)> {
        let pipe = Arc::new(Pipe::default());
        let writer = Arc::clone(&pipe);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || writer.run(end))?;
        Ok((Self(Arc::clone(&pipe)), Flush(pipe)))
    }

    /// Takes `count` whole lines, or drops them all.
    pub fn lines(&self, text: &[u8], count: u64) {
        let mut waiting = self.0.lock();
        if waiting.lines.len() + text.len() > ROOM {
            drop(waiting);
            self.0.dropped.fetch_add(count, Ordering::Relaxed);
            return;
        }
        let wakes = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(text);
        drop(waiting);
        if wakes {
            self.0.more.notify_one();
        }
    }

    /// How many lines were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut end: impl Write + AsFd) {
        let (mut lines, mut cut) = (Vec::new(), false);
        loop {
            let mut waiting = self.lock();
            waiting.writing = false;
            if waiting.lines.is_empty() {
                self.done.notify_all();
            }
            let idle = |waiting: &mut Waiting| waiting.lines.is_empty();
            let mut waiting = self.more.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut lines, &mut waiting.lines);
            waiting.writing = true;
            drop(waiting);
            let lost = write(&mut end, &lines, &mut cut);
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }
}

/// Writes all of it; how many lines were lost, because nobody reads any more or a file system is full. `cut`: whether what
/// was written last is a part of a line, which is ended before anything else is written.
fn write(end: &mut (impl Write + AsFd), all: &[u8], cut: &mut bool) -> u64 {
    let count = |lines: &[u8]| lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    *cut = *cut && push(end, b"\n") == 0;
    if *cut {
        return count(all);
    }
    let written = push(end, all);
    let lost = &all[written..];
    let is_part = written > 0 && all[written - 1] != b'\n';
    // It has room for a byte sooner than for a line.
    *cut = !lost.is_empty() && is_part && push(end, b"\n") == 0;
    count(lost)
}

/// Writes as much of it as can be; how much that was.
fn push(end: &mut (impl Write + AsFd), all: &[u8]) -> usize {
    let mut rest = all;
    while !rest.is_empty() {
        match end.write(rest) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Another process that has the same file may have made it so.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Ok(_) | Err(_) => break,
        }
    }
    all.len() - rest.len()
}

impl Drop for Flush {
    fn drop(&mut self) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        // The thread ends with the process: it may be writing to somebody who never reads.
        drop(self.0.done.wait_timeout_while(self.0.lock(), LAST_WORDS, busy));
    }
}

/// A message of the daemon's own log: `tracing` hands each over whole.
impl Write for &Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines(line, 1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::net::UnixStream};

    #[test]
    fn lines_come_out_in_order_and_what_waits_is_written_at_the_end() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (outlet, flush) = Outlet::start(near).unwrap();
        let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        for line in expected.split_inclusive('\n') {
            (&outlet).write_all(line.as_bytes()).unwrap();
        }
        drop(flush);
        far.set_nonblocking(true).unwrap();
        let mut read = Vec::new();
        let _ = far.read_to_end(&mut read);
        assert_eq!(String::from_utf8(read).unwrap(), expected);
        assert_eq!(outlet.dropped(), 0);
    }

    #[test]
    fn a_file_system_that_is_full_costs_lines_that_are_counted() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (outlet, flush) = Outlet::start(full).unwrap();
        outlet.lines(b"one\ntwo\n", 2);
        outlet.lines(b"three\n", 1);
        drop(flush);
        assert_eq!(outlet.dropped(), 3);
    }

    /// Takes so many bytes, and then only short ones.
    struct Nearly(usize, std::fs::File, Vec<u8>);

    impl AsFd for Nearly {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.1.as_fd()
        }
    }

    impl Write for Nearly {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let written = lines.len().min(self.0);
            self.0 -= written;
            self.2.extend_from_slice(&lines[..written]);
            if written > 0 { Ok(written) } else { Err(io::ErrorKind::StorageFull.into()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_is_cut_off_does_not_take_the_next_one_with_it() {
        let mut end = Nearly(5, std::fs::File::open("/dev/null").unwrap(), Vec::new());
        let mut cut = false;
        assert_eq!(write(&mut end, b"one\ntwo\nthree\n", &mut cut), 2);
        assert_eq!(write(&mut end, b"four\n", &mut cut), 1);
        // There is room again.
        end.0 = 11;
        assert_eq!(write(&mut end, b"five\nsix\nseven\n", &mut cut), 1);
        end.0 = 100;
        assert_eq!(write(&mut end, b"eight\n", &mut cut), 0);
        assert_eq!(end.2, b"one\nt\nfive\nsix\ns\neight\n");
    }

    #[test]
    fn a_reader_that_stopped_costs_whole_lines_that_are_counted_and_waits_for_nobody() {
        let (mut far, near) = UnixStream::pair().unwrap();
        // As a file that somebody else made so.
        near.set_nonblocking(true).unwrap();
        let (outlet, _flush) = Outlet::start(near).unwrap();
        let line = [&[b'x'; 9999][..], b"\n"].concat();
        let most = 2 * ROOM / line.len();
        for _ in 0..most {
            outlet.lines(&line, 1);
        }
        let dropped = outlet.dropped();
        assert!(dropped > 0 && dropped < most as u64, "{dropped}");
        // It reads again.
        let expected = (most as u64 - dropped) as usize * line.len();
        let mut read = vec![0; expected];
        far.read_exact(&mut read).unwrap();
        assert!(read.chunks(line.len()).all(|read| read == line));
    }
}
