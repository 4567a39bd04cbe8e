//! Live connections, namespace by namespace: reading them also brings their endpoints' counters up to now.

use super::{error::chain, namespaces::Namespace, sys};
use aya::{Ebpf, programs::Program};
use mesh_common::connection;
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    thread,
};

/// The program that runs over a namespace's sockets.
#[derive(Debug)]
pub struct Live {
    link: OwnedFd,
}

/// A live connection and the namespace it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Inode of the network namespace, as `lsns -t net` shows it.
    pub namespace: u64,
    /// What the kernel tells of it.
    pub live: connection::Live,
}

impl Live {
    /// Takes the program out of the object.
    pub(super) fn load(ebpf: &mut Ebpf, name: &str) -> Result<Self, String> {
        let program = ebpf.program_mut(name).ok_or("the object does not have the iterator")?;
        let Program::Iter(program) = program else { return Err("the iterator is none".to_owned()) };
        let btf = aya::Btf::from_sys_fs().map_err(|e| chain(&e))?;
        program.load("tcp", &btf).map_err(|e| chain(&e))?;
        let fd = program.fd().map_err(|e| chain(&e))?;
        let link = sys::link_iterator(fd.as_fd()).map_err(|e| format!("linking the iterator: {e}"))?;
        Ok(Self { link })
    }

    /// Looks at every connection of some namespaces, which brings the counters of their endpoints up to now, and shows
    /// each to `visit`. Returns why some namespaces could not be looked at; the others were.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn read(
        &self,
        namespaces: &[Namespace],
        visit: &mut (dyn FnMut(Connection) + Send),
    ) -> io::Result<Vec<String>> {
        // A thread changes its namespace for good: one for this look, that nobody else depends on.
        thread::scope(|scope| {
            let look = thread::Builder::new().name("connections".to_owned()).spawn_scoped(scope, || {
                let mut problems = Vec::new();
                for namespace in namespaces {
                    if let Err(e) = self.read_one(namespace, visit) {
                        problems.push(format!("network namespace {}: {e}", namespace.inode));
                    }
                }
                problems
            })?;
            look.join().map_err(|_| io::Error::other("the look at connections failed"))
        })
    }

    fn read_one(&self, namespace: &Namespace, visit: &mut dyn FnMut(Connection)) -> io::Result<()> {
        const ROW: usize = size_of::<connection::Live>();
        setns(&namespace.file, CloneFlags::CLONE_NEWNET)?;
        let mut rows = File::from(sys::iter_create(self.link.as_fd())?);
        let mut buffer = vec![0; 256 * ROW];
        let mut filled = 0;
        loop {
            let read = rows.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let whole = filled - filled % ROW;
            for row in buffer[..whole].chunks_exact(ROW) {
                visit(Connection { namespace: namespace.inode, live: bytemuck::pod_read_unaligned(row) });
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}
