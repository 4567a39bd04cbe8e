//! Lines on their way to the log, many at a time: to hand each over by itself would cost more than to write it down.

use super::{told::Line, worker::RequestLog};
use crate::text::is_harmless;
use http::Method;
use std::{cell::RefCell, fmt::Write as _, mem, sync::Arc};

/// So many are handed over at once.
const MOST: usize = 64;
/// Or as many as have paths of so many bytes together.
const MOST_BYTES: usize = 64 << 10;
/// Most paths of so many lines take less.
const USUAL_BYTES: usize = 4 << 10;

/// More bytes of a path than this are not told.
const MOST_OF_PATH: usize = 4096;

/// More bytes of a method than this are not told: one of the client's own may be as long as a head.
const MOST_OF_METHOD: usize = 64;

/// A method as it is told: cut.
pub(super) fn method(method: &Method) -> Method {
    let start = method.as_str().as_bytes().get(..MOST_OF_METHOD);
    start.and_then(|start| Method::from_bytes(start).ok()).unwrap_or_else(|| method.clone())
}

/// A path as it is logged: cut, and with whatever is not harmless percent-encoded, as it ought to have come.
pub(super) fn path(path: &str) -> Box<str> {
    let mut logged = String::with_capacity(path.len().min(MOST_OF_PATH));
    put_path(path, &mut logged);
    logged.into()
}

/// Adds a path as [`path`] has it.
fn put_path(path: &str, logged: &mut String) {
    let end = path.floor_char_boundary(MOST_OF_PATH);
    if end == path.len() && path.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return logged.push_str(path);
    }
    for character in path[..end].chars() {
        if !is_harmless(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String does not fail.
                let _ = write!(logged, "%{byte:02X}");
            }
        } else {
            logged.push(character);
        }
    }
    if end < path.len() {
        logged.push('…');
    }
}

/// Lines that are told together, as a worker packed them: their paths in one text, and each service once. Whoever reads them is
/// another thread; a path of its own that this thread frees, or a service that both count the owners of, would cost the worker
/// as much as all the rest of a line.
#[derive(Debug, Default)]
pub struct Packed {
    lines: Vec<Item>,
    /// One after the other.
    paths: String,
    services: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Item {
    /// It without its service and its path.
    line: Line,
    /// Which service it is; `None`: none.
    service: Option<usize>,
    /// How long its path is; `None`: it has none.
    path: Option<usize>,
}

impl Packed {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line that is of this service, and of a request with this path, whatever it says itself.
    fn push(&mut self, line: Line, service: Option<&Arc<str>>, path: Option<&str>) {
        if self.lines.capacity() == 0 {
            self.lines.reserve_exact(MOST);
            self.paths.reserve(USUAL_BYTES);
        }
        let service = service.map(|service| {
            // Few services have lines in it, and mostly the same ones.
            self.services.iter().position(|known| Arc::ptr_eq(known, service)).unwrap_or_else(|| {
                self.services.push(Arc::clone(service));
                self.services.len() - 1
            })
        });
        let before = self.paths.len();
        let path = path.map(|path| {
            put_path(path, &mut self.paths);
            self.paths.len() - before
        });
        self.lines.push(Item { line, service, path });
    }

    /// The lines, in the order in which they were added.
    pub fn unpack(self) -> impl Iterator<Item = Line> {
        let Self { lines, paths, services } = self;
        let mut read = 0;
        lines.into_iter().map(move |Item { line, service, path }| Line {
            service: service.and_then(|place| services.get(place)).map(Arc::clone),
            path: path.map(|length| {
                let start = read;
                read += length;
                paths[start..read].into()
            }),
            ..line
        })
    }
}

#[cfg(test)]
impl FromIterator<Line> for Packed {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        let mut packed = Self::default();
        for line in lines {
            let (service, path) = (line.service.clone(), line.path.clone());
            packed.push(line, service.as_ref(), path.as_deref());
        }
        packed
    }
}

/// The lines of one worker that the log does not have yet. It gets them when it is time ([`Lines::flush`]), when they are
/// many, and when the worker ends.
#[derive(Debug)]
pub(super) struct Lines {
    log: Arc<dyn RequestLog>,
    waiting: RefCell<Packed>,
}

impl Lines {
    pub(super) fn new(log: Arc<dyn RequestLog>) -> Self {
        Self { log, waiting: RefCell::default() }
    }

    /// Takes a line that is of this service, and of a request with this path.
    pub(super) fn push(&self, line: Line, service: Option<&Arc<str>>, path: Option<&str>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(line, service, path);
        let many = waiting.len() >= MOST || waiting.paths.len() >= MOST_BYTES;
        drop(waiting);
        if many {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(super) fn flush(&self) {
        let lines = mem::take(&mut *self.waiting.borrow_mut());
        if !lines.is_empty() {
            self.log.requests(lines);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn line(service: Option<&Arc<str>>, path: Option<&str>) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH,
            service: service.map(Arc::clone),
            endpoint: None,
            client: None,
            method: None,
            path: path.map(Into::into),
            status: None,
            duration: Duration::ZERO,
            ended: Duration::ZERO,
            sent_bytes: 0,
            received_bytes: 0,
            attempts: 0,
            trace_id: None,
            reason: None,
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_in_order_each_with_its_own() {
        let services = ["a", "b"].map(Arc::<str>::from);
        let told = [
            (Some(&services[0]), Some("/one?two")),
            (None, Some("")),
            (Some(&services[1]), None),
            (Some(&services[0]), Some("/\u{7f}é")),
            (Some(&services[1]), Some("/last")),
        ];
        let packed: Packed = told.iter().map(|(service, path)| line(*service, *path)).collect();
        assert_eq!((packed.len(), packed.services.len()), (5, 2));
        let unpacked: Vec<_> = packed.unpack().map(|line| (line.service, line.path)).collect();
        let expected = told.map(|(service, told)| (service.map(Arc::clone), told.map(path)));
        assert_eq!(unpacked, expected);
    }

    #[test]
    fn a_method_of_any_length_is_told_by_its_beginning() {
        let own = |length: usize| Method::from_bytes("x".repeat(length).as_bytes()).unwrap();
        assert_eq!((method(&Method::OPTIONS), method(&own(64))), (Method::OPTIONS, own(64)));
        assert_eq!(method(&own(60_000)), own(64));
    }

    #[test]
    fn a_path_is_cut_and_cannot_move_a_cursor() {
        assert_eq!(&*path("/a?b=c%0a"), "/a?b=c%0a");
        assert_eq!(&*path("/\u{9b}31m\u{7f}é日本"), "/%C2%9B31m%7Fé日本");
        assert_eq!(&*path("/\u{202e}a\u{200b}b\u{2028}"), "/%E2%80%AEa%E2%80%8Bb%E2%80%A8");
        let long = path(&"é".repeat(3000));
        assert!(long.len() < 4100 && long.ends_with("é…"), "{}", long.len());
        assert_eq!(path(&"x".repeat(4096)).len(), 4096);
    }
}
