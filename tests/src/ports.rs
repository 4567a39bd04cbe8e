//! Ports of the host's network namespace that no other test takes meanwhile.
//!
//! Binding port 0 and closing again would let another test have the port before the daemon binds it, so each port is
//! held by a file lock as long as its test runs, and lies below the range the kernel hands out by itself.

use nix::fcntl::{Flock, FlockArg};
use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 15_100;
const COUNT: u16 = 15_000;

/// A port on 127.0.0.1.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    _lock: Flock<File>,
}

impl Port {
    /// A free port, ours until dropped.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes begin at different places, only to look less often.
        let start = u16::try_from(process::id() * 61 % u32::from(COUNT)).unwrap_or_default();
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let Ok(lock) = lock(&format!("port-{number}"), false) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// `127.0.0.1:NUMBER`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

/// A lock between test processes; released when dropped, or when the process ends.
pub(crate) fn lock(name: &str, wait: bool) -> io::Result<Flock<File>> {
    let directory = env::temp_dir().join("mesh-test-locks");
    fs::create_dir_all(&directory)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(name))?;
    let how = if wait { FlockArg::LockExclusive } else { FlockArg::LockExclusiveNonblock };
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}
