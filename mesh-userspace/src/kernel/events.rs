//! What programs tell as it happens.

use super::{KernelError, error::chain};
use aya::{
    Ebpf,
    maps::{Array, MapData, RingBuf},
};
use mesh_common::{
    event::{Ended, NoListener, Transition},
    names,
};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

/// What a program tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A circuit turned.
    Turned(Transition),
    /// A client went past the daemon, which does not listen in its network namespace. Told ten times a second at most
    /// for each.
    NoListener {
        /// Cookie of the namespace.
        netns: u64,
        /// The client's process, in the host's pid namespace: the way to the namespace.
        pid: u32,
    },
}

/// The ring buffer of events. Readable when there are any.
pub struct Events(RingBuf<MapData>);

impl Events {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let refuse = |why: String| KernelError::Map { map: names::EVENTS.to_owned(), why };
        let map = ebpf.take_map(names::EVENTS).ok_or_else(|| refuse("the object does not have it".to_owned()))?;
        Ok(Self(RingBuf::try_from(map).map_err(|e| refuse(chain(&e)))?))
    }

    /// Takes the next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let item = self.0.next()?;
            // By their lengths. One of yet another would be another program's: there is none.
            if let Ok(transition) = bytemuck::try_pod_read_unaligned(&item) {
                return Some(Event::Turned(transition));
            }
            if let Ok(NoListener { netns, pid, .. }) = bytemuck::try_pod_read_unaligned(&item) {
                return Some(Event::NoListener { netns, pid });
            }
        }
    }
}

/// The ring buffer of connections that ended. It is not readable for every one of them: look every
/// [`LOOK_EVERY_MS`](mesh_common::event::LOOK_EVERY_MS).
pub struct Endings {
    ring: RingBuf<MapData>,
    untold: Array<MapData, u64>,
}

impl Endings {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut take = |name: &str| {
            let gone = || KernelError::Map { map: name.to_owned(), why: "the object does not have it".to_owned() };
            ebpf.take_map(name).ok_or_else(gone)
        };
        let (ring, untold) = (take(names::ENDED)?, take(names::UNTOLD)?);
        let refuse = |name: &str, e| KernelError::Map { map: name.to_owned(), why: chain(&e) };
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(|e| refuse(names::ENDED, e))?,
            untold: Array::try_from(untold).map_err(|e| refuse(names::UNTOLD, e))?,
        })
    }

    /// Takes the next one, if there is one.
    pub fn take(&mut self) -> Option<Ended> {
        loop {
            // One of another length would be another program's: there is none.
            if let Ok(ended) = bytemuck::try_pod_read_unaligned(&self.ring.next()?) {
                return Some(ended);
            }
        }
    }

    /// How many there was no room for, since the programs were loaded.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.untold.get(&0, 0).unwrap_or(0)
    }
}

impl AsFd for Endings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endings").field(&self.as_fd()).finish()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Events").field(&self.as_fd()).finish()
    }
}
