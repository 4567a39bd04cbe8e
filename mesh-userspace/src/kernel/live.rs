//! Live connections, namespace by namespace. Looking at them also brings their endpoints' counters up to now.

use super::{
    diag,
    error::chain,
    namespaces::{self, Namespace},
    sys,
};
use aya::{Ebpf, maps::Map, programs::Program};
use mesh_common::{
    connection::{self, Counters, Record, stage},
    names,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

/// How live connections are looked at.
#[derive(Debug)]
pub enum Live {
    /// By a program that the kernel runs over a namespace's sockets. It holds each socket's lock, so what it sees is
    /// added to the counters of endpoints at the same time.
    Iterator(Iterator),
    /// Through INET_DIAG, where the kernel refuses that program. Counters get what a connection carried when it closes.
    Diag(Diag),
}

/// The link of the program.
#[derive(Debug)]
pub struct Iterator(OwnedFd);

/// The map of records.
#[derive(Debug)]
pub struct Diag(OwnedFd);

/// A live connection and the namespace it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Inode of the network namespace, as `lsns -t net` shows it.
    pub namespace: u64,
    /// What the kernel tells of it.
    pub live: connection::Live,
}

impl Live {
    /// Takes what is needed out of the object: the program called `name`, unless something is known to be `hidden` from
    /// it, else the map of records. The error says why it is not the program.
    pub(super) fn load(ebpf: &mut Ebpf, name: &str, hidden: Option<String>) -> Result<(Self, Option<String>), String> {
        let why = match hidden.map_or_else(|| Self::iterator(ebpf, name), Err) {
            Ok(iterator) => return Ok((iterator, None)),
            Err(why) => why,
        };
        let Some(Map::SkStorage(records)) = ebpf.map(names::CONNECTIONS) else { return Err(why) };
        let map = records.fd().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
        Ok((Self::Diag(Diag(map)), Some(why)))
    }

    fn iterator(ebpf: &mut Ebpf, name: &str) -> Result<Self, String> {
        let program = ebpf.program_mut(name).ok_or("the object does not have the iterator")?;
        let Program::Iter(program) = program else { return Err("the iterator is none".to_owned()) };
        let btf = aya::Btf::from_sys_fs().map_err(|e| chain(&e))?;
        program.load("tcp", &btf).map_err(|e| chain(&e))?;
        let fd = program.fd().map_err(|e| chain(&e))?;
        let link = sys::link_iterator(fd.as_fd()).map_err(|e| format!("linking the iterator: {e}"))?;
        Ok(Self::Iterator(Iterator(link)))
    }

    /// Whether a look brings the counters of endpoints up to now.
    #[must_use]
    pub const fn counts(&self) -> bool {
        matches!(self, Self::Iterator(_))
    }

    /// Looks at every connection of some namespaces and shows each to `visit`; see [`Live::counts`]. Returns why some namespaces could not be looked at; the others were.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn read(
        &self,
        namespaces: &[Namespace],
        visit: &mut (dyn FnMut(Connection) + Send),
    ) -> io::Result<Vec<String>> {
        namespaces::visit(namespaces, &mut |namespace| self.read_one(namespace, visit))
    }

    fn read_one(&self, namespace: &Namespace, visit: &mut dyn FnMut(Connection)) -> io::Result<()> {
        let mut show = |live| visit(Connection { namespace: namespace.inode, live });
        match self {
            Self::Iterator(iterator) => iterator.read(&mut show),
            Self::Diag(Diag(map)) => {
                let mut show_held = |held: diag::Held<'_>| show_held(&held, &mut show);
                diag::dump(map.as_fd(), &mut show_held)
            }
        }
    }
}

impl Iterator {
    fn read(&self, show: &mut dyn FnMut(connection::Live)) -> io::Result<()> {
        const ROW: usize = size_of::<connection::Live>();
        let mut rows = File::from(sys::iter_create(self.0.as_fd())?);
        let mut buffer = vec![0; 256 * ROW];
        let mut filled = 0;
        loop {
            let read = rows.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            let whole = filled - filled % ROW;
            buffer[..whole].chunks_exact(ROW).for_each(|row| show(bytemuck::pod_read_unaligned(row)));
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}

fn show_held(held: &diag::Held<'_>, show: &mut dyn FnMut(connection::Live)) {
    // Of another layout: not ours to read.
    let Ok(record) = bytemuck::try_pod_read_unaligned::<Record>(held.record) else { return };
    if !matches!(record.stage, stage::OPENING | stage::ESTABLISHED) {
        return;
    }
    let counters = Counters {
        state: held.state,
        bytes_acked: held.info.bytes_acked(),
        bytes_received: held.info.bytes_received(),
        // A socket whose FIN is acknowledged leaves the states in which this matters.
        all_acknowledged: false,
        fin_received: None,
        retransmits: held.info.retransmits(),
    };
    let traffic = record.traffic(&counters);
    show(connection::Live { record, traffic, state: held.state, rtt_us: held.info.rtt_us() });
}
