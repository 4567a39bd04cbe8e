//! The guest's root file system: the tests, the daemon, what they run, and the libraries of all that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{find, step};

use super::kernels::Kernel;
use super::modules;
use super::newc::Archive;
use super::plan::Plan;
use super::{directory, guest};

/// Programs that the tests run, besides ours. What is not on this machine is not in the guest, where the tests that need
/// it say that they were skipped. Chromium and Prometheus are left out for their size: what they test is no kernel.
const PROGRAMS: [&str; 30] = [
    "sh", "bash", "cat", "sleep", "true", "kill", "ls", "ps", "env", "rm", "mkdir", "chmod", "head", "grep", "tar",
    "gzip", "mount", "umount", "unshare", "nsenter", "setpriv", "ip", "tc", "ss", "curl", "openssl", "nginx", "etcd",
    "tmux", "stty",
];

/// What programs read. Directories come with what is in them.
const FILES: [&str; 10] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/lib/terminfo",
    "/usr/share/terminfo/x",
    "/usr/lib/locale/C.utf8",
];

/// An image that only starts and ends: for a look whether an accelerator works.
pub(super) fn empty() -> Result<PathBuf, String> {
    write("probe", |_| Ok(()))
}

/// The image for a plan, with the modules of these kernels.
pub(super) fn make(plan: &Plan, kernels: &[Kernel]) -> Result<PathBuf, String> {
    step("packing the guest");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    write("guest", |image| {
        image.program(&plan.daemon, &Path::new(guest::HOME).join("mesh"))?;
        image.program(&plan.peer, &Path::new(guest::HOME).join("mesh-test-peer"))?;
        for (name, path) in &plan.binaries {
            image.program(path, &guest::binary(name))?;
        }
        for program in PROGRAMS.iter().filter_map(|program| installed(program)) {
            let name = program.file_name().unwrap_or_default();
            image.program(&program, &Path::new("/bin").join(name))?;
        }
        for path in FILES {
            image.copy(Path::new(path))?;
        }
        // Tests read them where they were when they were compiled.
        for path in ["docs/metrics.md", "deploy"] {
            image.copy(&source.join(path))?;
        }
        for kernel in kernels {
            for (n, module) in modules::of(kernel)?.iter().enumerate() {
                let path = guest::modules(&kernel.release).join(format!("{n:02}.ko"));
                image.archive.file(&path, 0o644, module).map_err(|error| error.to_string())?;
            }
        }
        image
            .archive
            .file(Path::new(guest::PLAN), 0o644, guest::write_plan(&plan.tests).as_bytes())
            .map_err(|e| e.to_string())
    })
}

struct Image {
    archive: Archive<BufWriter<File>>,
    /// Libraries that are in it already.
    libraries: BTreeSet<PathBuf>,
}

/// Writes an image with what every guest has, and what `more` adds.
fn write(name: &str, more: impl FnOnce(&mut Image) -> Result<(), String>) -> Result<PathBuf, String> {
    // By a name of our own: several may run at once. One that was killed has left its image.
    sweep();
    let path = directory().join(format!("{name}-{}.cpio", std::process::id()));
    let file = File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut image = Image { archive: Archive::new(BufWriter::new(file)), libraries: BTreeSet::new() };
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let filled = image.base().map_err(|error| error.to_string()).and_then(|()| image.program(&me, Path::new("/init")));
    let filled = filled.and_then(|()| more(&mut image));
    let done = filled.and_then(|()| image.archive.finish().map(drop).map_err(|error| error.to_string()));
    done.inspect_err(|_| drop(fs::remove_file(&path)))?;
    Ok(path)
}

/// Removes images of processes that are gone.
fn sweep() {
    for path in fs::read_dir(directory()).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if maker(&name).is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The process that made an image, by the image's name.
fn maker(name: &str) -> Option<&str> {
    let (_, pid) = name.strip_suffix(".cpio")?.rsplit_once('-')?;
    pid.bytes().all(|byte| byte.is_ascii_digit()).then_some(pid)
}

impl Image {
    fn base(&mut self) -> std::io::Result<()> {
        for path in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/var/lib", "/var/log/nginx", "/var/run", "/etc"]
        {
            self.archive.directory(Path::new(path))?;
        }
        // The kernel opens the first for init, whose runtime asks for the second.
        self.archive.device(Path::new("/dev/console"), (5, 1))?;
        self.archive.device(Path::new("/dev/null"), (1, 3))?;
        self.archive.link(Path::new("/usr/bin"), "../bin")?;
        self.archive.link(Path::new("/usr/sbin"), "../bin")?;
        self.archive.link(Path::new("/sbin"), "bin")?;
        self.archive.file(Path::new("/etc/resolv.conf"), 0o644, b"nameserver 127.0.0.1\n")
    }

    /// A program without what only debuggers read, and its libraries.
    fn program(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        let content = stripped(from)?;
        self.archive.file(to, 0o755, &content).map_err(|error| error.to_string())?;
        for library in libraries(from)? {
            if self.libraries.insert(library.clone()) {
                let content = fs::read(&library).map_err(|error| format!("{}: {error}", library.display()))?;
                self.archive.file(&library, 0o755, &content).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// A file, or a directory with all that is in it, at its own place. What is not here is left out.
    fn copy(&mut self, path: &Path) -> Result<(), String> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
        if metadata.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.copy(&entry.path())?;
            }
            return Ok(());
        }
        let content = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let permissions = metadata.permissions().mode() & 0o777;
        self.archive.file(path, permissions, &content).map_err(|error| error.to_string())
    }
}

/// Where a program lies; servers do where the path of users does not lead.
fn installed(program: &str) -> Option<PathBuf> {
    let servers = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).join(program));
    find(program).or_else(|| servers.into_iter().find(|path| path.is_file()))
}

/// A program's content, stripped where that can be done. Debug information is five parts in six of it.
fn stripped(program: &Path) -> Result<Vec<u8>, String> {
    let into = directory().join(format!("stripped-{}", std::process::id()));
    let strip = Command::new("strip").arg("-o").arg(&into).arg(program).output();
    let from = if strip.is_ok_and(|output| output.status.success()) { into.as_path() } else { program };
    let content = fs::read(from).map_err(|error| format!("{}: {error}", from.display()));
    let _ = fs::remove_file(&into);
    content
}

/// The shared libraries of a program, with what loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("ldd").arg(program).output().map_err(|error| format!("ldd: {error}"))?;
    Ok(resolved(&String::from_utf8_lossy(&output.stdout)))
}

/// The paths that ldd found.
fn resolved(text: &str) -> Vec<PathBuf> {
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_maker_and_nothing_else_is_one() {
        assert_eq!(maker("guest-123.cpio"), Some("123"));
        assert_eq!(maker("guest-mine.cpio"), None);
        assert_eq!(maker("console-6.1.log"), None);
        assert_eq!(maker("kernels"), None);
    }

    #[test]
    fn libraries_are_what_ldd_found() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(resolved(text), expected);
        assert!(resolved("\tnot a dynamic executable\n").is_empty());
    }
}
