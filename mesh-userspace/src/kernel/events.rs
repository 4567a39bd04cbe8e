//! What programs tell as it happens.

use super::{KernelError, error::chain, sys, wire::Wire};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, RingBuf},
};
use mesh_common::{
    event::{Ended, MAX_REFUSED, NoListener, Refused, RefusedKey, Transition, untold},
    names,
};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
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

/// What the log is told of connections: those that ended, in a ring buffer, and those that were refused, in a table. It is
/// not readable for every one that ended, and never for one that was refused: look every
/// [`LOOK_EVERY_MS`](mesh_common::event::LOOK_EVERY_MS) and
/// [`LOOK_FOR_REFUSED_MS`](mesh_common::event::LOOK_FOR_REFUSED_MS).
pub struct Endings {
    ring: RingBuf<MapData>,
    refused: HashMap<MapData, Wire<RefusedKey>, Wire<Refused>>,
    /// The map of `refused`.
    fd: OwnedFd,
    untold: Array<MapData, u64>,
}

/// How many there was no room for, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    /// Connections that ended.
    pub ended: u64,
    /// Connects that were refused.
    pub refused: u64,
}

impl Endings {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let refuse = |name: &str, why: String| KernelError::Map { map: name.to_owned(), why };
        let mut take =
            |name: &str| ebpf.take_map(name).ok_or_else(|| refuse(name, "the object does not have it".to_owned()));
        let (ring, refused, untold) = (take(names::ENDED)?, take(names::REFUSED)?, take(names::UNTOLD)?);
        let Map::HashMap(data) = &refused else {
            return Err(refuse(names::REFUSED, "the object has another kind of it".to_owned()));
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|e| refuse(names::REFUSED, e.to_string()))?;
        Ok(Self {
            ring: RingBuf::try_from(ring).map_err(|e| refuse(names::ENDED, chain(&e)))?,
            refused: HashMap::try_from(refused).map_err(|e| refuse(names::REFUSED, chain(&e)))?,
            fd,
            untold: Array::try_from(untold).map_err(|e| refuse(names::UNTOLD, chain(&e)))?,
        })
    }

    /// Takes the next one that ended, if there is one.
    pub fn take(&mut self) -> Option<Ended> {
        loop {
            // One of another length would be another program's: there is none.
            if let Ok(ended) = bytemuck::try_pod_read_unaligned(&self.ring.next()?) {
                return Some(ended);
            }
        }
    }

    /// Takes what was refused since this was called last.
    pub fn take_refused(&mut self) -> Vec<(RefusedKey, Refused)> {
        // Keys first: a look that stands at a key that is gone begins again.
        let keys: Vec<_> = self.refused.keys().map_while(Result::ok).take(MAX_REFUSED as usize).collect();
        keys.into_iter().filter_map(|Wire(key)| Some((key, sys::map_take(&self.fd, &key).ok()?))).collect()
    }

    /// How many there was no room for.
    #[must_use]
    pub fn untold(&self) -> Untold {
        let word = |word| self.untold.get(&word, 0).unwrap_or(0);
        Untold { ended: word(untold::ENDED), refused: word(untold::REFUSED) }
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
