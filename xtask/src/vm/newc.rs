//! The archive that the kernel unpacks as its first root file system: cpio in its "newc" form.
//!
//! Written by hand: it is one header of fixed width, and what writes it otherwise (`cpio`) is not on every machine.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Component, Path};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const CHARACTERS: u32 = 0o020_666;

/// An archive under way. Directories come by themselves, and each path is written once: the first one stays.
pub(super) struct Archive<W> {
    to: W,
    written: u64,
    number: u32,
    known: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, written: 0, number: 1, known: BTreeSet::new() }
    }

    /// A directory and those above it.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<()> {
        let mut above = String::new();
        for name in names(path) {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(name);
            if self.known.insert(above.clone()) {
                self.entry(&above, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// A file with these permissions.
    pub(super) fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.leaf(path, FILE | permissions, (0, 0), content)
    }

    /// A symbolic link to `target`.
    pub(super) fn link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        self.leaf(path, LINK, (0, 0), target.as_bytes())
    }

    /// A device of characters, by its two numbers.
    pub(super) fn device(&mut self, path: &Path, numbers: (u32, u32)) -> io::Result<()> {
        self.leaf(path, CHARACTERS, numbers, &[])
    }

    /// Writes the end and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn leaf(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        let name = names(path).collect::<Vec<_>>().join("/");
        if self.known.insert(name.clone()) { self.entry(&name, mode, device, content) } else { Ok(()) }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{name}: 4 GiB or more")))?;
        let named = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // magic, then: inode, mode, uid, gid, links, mtime, size, device (2), device of the node (2), name, check.
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, named, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        head.push_str(name);
        head.push('\0');
        self.number += 1;
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    /// Header and content each end at a multiple of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let short = self.written.next_multiple_of(4) - self.written;
        self.to.write_all(&[0; 4][..usize::try_from(short).map_err(io::Error::other)?])?;
        self.written += short;
        Ok(())
    }
}

/// The names in a path, without its root.
fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let whole = bytes.len();
        let mut found = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, named) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&bytes[110..110 + named - 1]).unwrap().to_owned();
            let begin = (110 + named).next_multiple_of(4);
            let content = bytes[begin..begin + size].to_vec();
            found.push((name, mode, content));
            let end = (begin + size).next_multiple_of(4);
            bytes = &bytes[end..];
        }
        assert_eq!(whole % 4, 0);
        found
    }

    #[test]
    fn an_archive_reads_as_what_was_written_with_directories_before_their_content() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/a/b/one"), 0o755, b"12345").unwrap();
        archive.link(Path::new("/a/two"), "b/one").unwrap();
        archive.device(Path::new("dev/null"), (1, 3)).unwrap();
        let read = read(&archive.finish().unwrap());
        let names: Vec<(&str, u32, &[u8])> = read.iter().map(|(n, m, c)| (n.as_str(), *m, c.as_slice())).collect();
        assert_eq!(
            names,
            [
                ("a", 0o040_755, &b""[..]),
                ("a/b", 0o040_755, b""),
                ("a/b/one", 0o100_755, b"12345"),
                ("a/two", 0o120_777, b"b/one"),
                ("dev", 0o040_755, b""),
                ("dev/null", 0o020_666, b""),
                ("TRAILER!!!", 0, b""),
            ]
        );
    }

    #[test]
    fn what_is_written_twice_stays_as_it_was_first() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/lib/c"), 0o644, b"first").unwrap();
        archive.file(Path::new("/lib/c"), 0o644, b"second").unwrap();
        let read = read(&archive.finish().unwrap());
        assert_eq!(read.iter().map(|(_, _, c)| c.as_slice()).collect::<Vec<_>>(), [&b""[..], b"first", b""]);
    }
}
