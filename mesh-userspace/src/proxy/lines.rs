//! Lines on their way to the log, many at a time: to hand each over by itself would cost more than to write it down.

use super::{told::Line, worker::RequestLog};
use crate::text::is_harmless;
use http::Method;
use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    mem,
    sync::Arc,
};

/// So many are handed over at once.
const MOST: usize = 64;
/// Or as many as have paths of so many bytes together.
const MOST_BYTES: usize = 64 << 10;

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
    let end = path.floor_char_boundary(MOST_OF_PATH);
    if end == path.len() && path.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return path.into();
    }
    let mut logged = String::with_capacity(end);
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
    logged.into()
}

/// The lines of one worker that the log does not have yet. It gets them when it is time ([`Lines::flush`]), when they are
/// many, and when the worker ends.
#[derive(Debug)]
pub(super) struct Lines {
    log: Arc<dyn RequestLog>,
    waiting: RefCell<Vec<Line>>,
    /// Bytes of their paths.
    bytes: Cell<usize>,
}

impl Lines {
    pub(super) fn new(log: Arc<dyn RequestLog>) -> Self {
        Self { log, waiting: RefCell::default(), bytes: Cell::new(0) }
    }

    pub(super) fn push(&self, line: Line) {
        let bytes = self.bytes.get() + line.path.as_ref().map_or(0, |path| path.len());
        self.bytes.set(bytes);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.capacity() == 0 {
            waiting.reserve_exact(MOST);
        }
        waiting.push(line);
        let many = waiting.len() >= MOST || bytes >= MOST_BYTES;
        drop(waiting);
        if many {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(super) fn flush(&self) {
        let lines = mem::take(&mut *self.waiting.borrow_mut());
        self.bytes.set(0);
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
    use super::{method, path};
    use http::Method;

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
