//! A `.tar.gz` that only its owner may read.

use flate2::{Compression, write::GzEncoder};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// An archive that is being written. Dropped before it is finished, it is gone.
pub(super) struct Archive {
    path: PathBuf,
    /// None once it is finished.
    tar: Option<tar::Builder<GzEncoder<File>>>,
    mtime: u64,
}

impl Archive {
    /// An empty one.
    ///
    /// # Errors
    /// The system's; also where there is a file of that name, or a link.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        let mtime = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { path: path.to_owned(), tar: Some(tar), mtime })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        let Some(tar) = &mut self.tar else { return Ok(()) };
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        tar.append_data(&mut header, Path::new("mesh-bugreport").join(name), text)
    }

    /// Writes its end; how many bytes it has.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let Some(tar) = self.tar.take() else { return Ok(0) };
        let finished = tar.into_inner().and_then(GzEncoder::finish).and_then(|mut file| {
            file.flush()?;
            Ok(file.metadata()?.len())
        });
        if finished.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        finished
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.tar.is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::{io::Read, os::unix::fs::PermissionsExt};

    #[test]
    fn what_was_added_is_in_it_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar.gz");
        let mut archive = Archive::create(&path).unwrap();
        archive.add("a.txt", b"abc").unwrap();
        archive.add("b.txt", b"").unwrap();
        let bytes = archive.finish().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes, 0o600));
        let mut read = tar::Archive::new(GzDecoder::new(File::open(&path).unwrap()));
        let files: Vec<(String, String)> = read
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .map(|mut entry| {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        let expected = [("mesh-bugreport/a.txt", "abc"), ("mesh-bugreport/b.txt", "")];
        assert_eq!(files, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }

    #[test]
    fn nothing_that_is_there_is_written_over_and_nothing_half_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a.tar.gz"), directory.path().join("b.tar.gz"));
        fs::write(&path, "mine").unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
        for taken in [&path, &link] {
            assert_eq!(Archive::create(taken).map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let half = directory.path().join("c.tar.gz");
        drop(Archive::create(&half).unwrap());
        assert!(!half.exists());
    }
}
