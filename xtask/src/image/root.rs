//! What is in the root file system, and nothing that is not listed here.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::at;

/// One name in the tree. All of them belong to root.
pub(super) enum Entry {
    /// With these permissions.
    Directory(u32),
    /// With these permissions and this content.
    File(u32, Vec<u8>),
}

/// By path without a leading slash, in the order in which they are written: directories come before what is in them.
pub(super) type Entries = BTreeMap<PathBuf, Entry>;

/// Where the daemon lies in the image.
pub(super) const BINARY: &str = "usr/bin/mesh";

/// Where distributions keep the certificates of authorities, all in one file.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// Where they are in the image, and TLS looks for them.
const AUTHORITIES_HERE: &str = "etc/ssl/certs/ca-certificates.crt";

/// Everything: the daemon, `libraries` at their own paths, certificates of authorities, and directories to mount on.
pub(super) fn entries(binary: &Path, libraries: &[PathBuf]) -> Result<Entries, String> {
    let mut entries = Entries::new();
    let mut add = |path: &str, entry| entries.insert(PathBuf::from(path), entry);
    add(BINARY, Entry::File(0o755, read(binary)?));
    add(AUTHORITIES_HERE, Entry::File(0o644, authorities()?));
    // Names of /etc/hosts before those of the DNS. Without it glibc asks for /etc/hosts only where there is no DNS.
    add("etc/nsswitch.conf", Entry::File(0o644, b"hosts: files dns\n".to_vec()));
    // What is written or mounted. A read-only root file system needs the names to be there.
    for (directory, mode) in [("etc/mesh", 0o755), ("var/lib/mesh", 0o700), ("run/mesh", 0o700), ("tmp", 0o1777)] {
        add(directory, Entry::Directory(mode));
    }
    for directory in ["dev", "proc", "sys"] {
        add(directory, Entry::Directory(0o755));
    }
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name))?;
        add(&format!("usr/share/doc/mesh/{name}"), Entry::File(0o644, text));
    }
    for library in libraries {
        let path = library.strip_prefix("/").map_err(|_| format!("{}: not a whole path", library.display()))?;
        entries.insert(path.to_owned(), Entry::File(0o755, read(library)?));
    }
    Ok(with_parents(entries))
}

/// Directories that are only there for what is in them.
fn with_parents(mut entries: Entries) -> Entries {
    let paths: Vec<PathBuf> = entries.keys().cloned().collect();
    for parent in paths.iter().flat_map(|path| path.ancestors().skip(1)).filter(|path| *path != Path::new("")) {
        entries.entry(parent.to_owned()).or_insert(Entry::Directory(0o755));
    }
    entries
}

fn authorities() -> Result<Vec<u8>, String> {
    let found = AUTHORITIES.into_iter().find(|path| Path::new(path).is_file());
    read(Path::new(found.ok_or("no certificates of authorities on this machine: install ca-certificates")?))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(at(path))
}

/// Writes them below `tree`.
pub(super) fn write(entries: &Entries, tree: &Path) -> Result<(), String> {
    // Whatever mask this was started with.
    fs::set_permissions(tree, Permissions::from_mode(0o755)).map_err(at(tree))?;
    for (path, entry) in entries {
        let place = tree.join(path);
        let written = match entry {
            Entry::Directory(mode) => {
                fs::create_dir(&place).and_then(|()| fs::set_permissions(&place, Permissions::from_mode(*mode)))
            }
            Entry::File(mode, content) => {
                fs::write(&place, content).and_then(|()| fs::set_permissions(&place, Permissions::from_mode(*mode)))
            }
        };
        written.map_err(at(&place))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut entries = Entries::new();
        entries.insert("a/b/c".into(), Entry::File(0o644, Vec::new()));
        entries.insert("a/b".into(), Entry::Directory(0o700));
        let entries = with_parents(entries);
        let names: Vec<&str> = entries.keys().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c"]);
        assert!(matches!(entries[Path::new("a/b")], Entry::Directory(0o700)), "what was asked for stays");
    }
}
