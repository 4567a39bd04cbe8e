//! Who may speak at the registry's TCP listener: whoever shows the token of a file.

use super::routes::HttpError;
use hyper::{HeaderMap, StatusCode, header::AUTHORIZATION};
use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// The longest file with a token, in bytes: no head of a request has room for more.
const LONGEST: u64 = 16 << 10;

/// A token in a file, which is read again when the file is another one.
#[derive(Debug)]
pub(super) struct Token {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

/// What was read, and what the file was like then.
type Known = (Stamp, Result<Vec<u8>, String>);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Token {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why nobody is let in; `None`: whoever shows the token is.
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.expected().err()?;
        Some(format!("discovery.registry.token_file {}: {why}: nobody is let in", self.path.display()))
    }

    /// Whether a request shows the token.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        let expected = self.expected().map_err(|why| {
            let message = format!("nobody is let in: {}: {why}", self.path.display());
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        })?;
        let shown = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
        });
        if shown.is_some_and(|shown| equal(shown, &expected)) {
            return Ok(());
        }
        let why = if shown.is_some() { "the token is not the right one" } else { "a token is needed" };
        let message = format!("{why}: authorization: Bearer TOKEN, the content of discovery.registry.token_file");
        Err(HttpError::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
    }

    fn expected(&self) -> Result<Vec<u8>, String> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(&self.path).map_err(|e| e.to_string())?;
        let stamp = Stamp { modified: found.modified().ok(), length: found.len(), inode: found.ino() };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, token)) = known.as_ref().filter(|(of, _)| *of == stamp) {
            return token.clone();
        }
        // A pipe would be waited for, and a device read for ever.
        let read = match found.is_file() {
            true if found.len() > LONGEST => Err(format!("expected a token, found {} bytes", found.len())),
            true => fs::read(&self.path).map_err(|e| e.to_string()),
            false => Err("expected a file, found something else".to_owned()),
        };
        let read = read.and_then(|text| match text.trim_ascii() {
            [] => Err("the file is empty".to_owned()),
            token => Ok(token.to_vec()),
        });
        *known = Some((stamp, read.clone()));
        read
    }
}

/// Whether the two are the same; it takes as long for every wrong one of the right length.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_of_the_file_as_it_is_now_opens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::new(&path);
        let status = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(AUTHORIZATION, value.parse().unwrap()));
            token.check(&headers).map_err(|e| e.status.as_u16())
        };
        assert_eq!(status(Some("Bearer ")), Err(503), "no file opens to nobody");
        assert!(token.trouble().unwrap().ends_with("token: No such file or directory (os error 2): nobody is let in"));
        fs::write(&path, "\n").unwrap();
        assert_eq!(status(Some("Bearer ")), Err(503));
        fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(token.trouble().unwrap().contains("expected a token, found 20000 bytes"));
        fs::write(&path, "secret\n").unwrap();
        assert_eq!(token.trouble(), None);
        assert_eq!(status(Some("Bearer secret")), Ok(()));
        assert_eq!(status(Some("bearer secret")), Ok(()));
        for wrong in
            [None, Some(""), Some("secret"), Some("Basic secret"), Some("Bearer secre"), Some("Bearer secrets")]
        {
            assert_eq!(status(wrong), Err(401), "{wrong:?}");
        }
        fs::write(directory.path().join("new"), "other!\n").unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        assert_eq!((status(Some("Bearer secret")), status(Some("Bearer other!"))), (Err(401), Ok(())));
    }
}
