//! The registry as it is shared: between those who register, the source that tells, and the file.

use super::{
    entries::{Entries, Listed, Put, Record},
    file::File,
    registration::{Registration, RegistrationError},
};
use crate::discovery::{Said, Trouble, merge, stored::Kept};
use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// How long a registration waits at most for being in force. It counts in any case.
const IN_FORCE: Duration = Duration::from_millis(250);
/// Of so many changes in a row each waits, and after that one in each of these intervals: the others are a burst, which is
/// taken together, and soon.
const WAITING: u32 = 50;
const WAITING_EACH: Duration = Duration::from_millis(200);

/// The registry of this node. Its clock is its own, and only goes forward.
#[derive(Debug)]
pub struct Registrar {
    began: Instant,
    /// Where this daemon itself listens: nobody's address.
    refused: HashSet<SocketAddr>,
    inner: Mutex<Inner>,
    /// Something is to be told.
    pub(super) changed: Notify,
    /// Something is to be written.
    pub(super) unsaved: Notify,
    is_unsaved: AtomicBool,
    file: Mutex<File>,
    /// What was wrong with the file when it was read.
    found: Trouble,
    /// Why it is not written.
    unwritten: Mutex<Option<String>>,
    /// How often something went wrong with it.
    errors: AtomicU64,
    /// The last change that is in force.
    in_force: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Entries,
    /// Rises with each change.
    version: u64,
    /// Services told so far.
    told: u64,
    /// The version that was told last.
    told_version: u64,
    /// When those are past that waited, one in each interval.
    waited_until: Duration,
    /// What was told and is perhaps not in force yet: services told by then, and the version that they made.
    pending: VecDeque<(u64, u64)>,
    /// Another daemon is taking over: it knows what was known when it asked, so nothing is changed.
    frozen: bool,
}

/// A change that was made, and may not be in force yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made<T> {
    /// What was done.
    pub what: T,
    version: u64,
    /// Whether it is one of few.
    waits: bool,
}

impl Registrar {
    /// The registry with whom a file in this directory names. Nobody's address is one in `refused`.
    #[must_use]
    pub fn open(directory: &Path, refused: HashSet<SocketAddr>) -> Self {
        let file = File::new(directory);
        let Kept { records, trouble: mut found } = file.read();
        let mut entries = Entries::default();
        for (service, id, Record { registration, registered_at }) in records {
            if let Err(why) = entries.put(&service, &id, registration, registered_at, Duration::ZERO) {
                found.add(file.left_out(&service, &id, why));
            }
        }
        found.log();
        if entries.len() > 0 {
            tracing::info!(instances = entries.len(), "registry: known from before");
        }
        Self {
            began: Instant::now(),
            refused,
            inner: Mutex::new(Inner { entries, ..Inner::default() }),
            changed: Notify::new(),
            unsaved: Notify::new(),
            is_unsaved: AtomicBool::new(false),
            file: Mutex::new(file),
            errors: AtomicU64::new(u64::try_from(found.count()).unwrap_or(u64::MAX)),
            found,
            unwritten: Mutex::default(),
            in_force: watch::Sender::new(0),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Registers an instance, or takes what it says of itself now.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn register(
        &self,
        service: &str,
        id: &str,
        mut registration: Registration,
    ) -> Result<Made<Put>, RegistrationError> {
        let address = merge::canonical(registration.address);
        merge::acceptable(address, &self.refused)
            .map_err(|why| RegistrationError::Invalid(format!("address: {address}: {why}")))?;
        registration.address = address;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut inner = self.inner();
        if inner.frozen {
            return Err(RegistrationError::Frozen);
        }
        let put = inner.entries.put(service, id, registration, wall, self.now())?;
        if put == Put::Same {
            return Ok(Made { what: put, version: inner.version, waits: false });
        }
        Ok(self.note(inner, put))
    }

    /// An instance is alive. Its TTL; `None`: it is not known, and has to register again.
    ///
    /// It is taken even during a takeover: the daemon that follows lets everybody's TTL begin after that.
    pub fn heartbeat(&self, service: &str, id: &str) -> Option<Duration> {
        self.inner().entries.heartbeat(service, id, self.now())
    }

    /// Deregisters an instance. Its address; `None`: it is not known.
    ///
    /// # Errors
    /// [`RegistrationError::Frozen`].
    pub fn deregister(&self, service: &str, id: &str) -> Result<Option<Made<SocketAddr>>, RegistrationError> {
        let mut inner = self.inner();
        if inner.frozen {
            return Err(RegistrationError::Frozen);
        }
        let Some(record) = inner.entries.remove(service, id) else { return Ok(None) };
        Ok(Some(self.note(inner, record.registration.address)))
    }

    /// Notes a change.
    fn note<T>(&self, mut inner: MutexGuard<'_, Inner>, what: T) -> Made<T> {
        inner.version += 1;
        let version = inner.version;
        let now = self.now();
        let waits = inner.waited_until <= now + WAITING_EACH * WAITING;
        if waits {
            inner.waited_until = inner.waited_until.max(now) + WAITING_EACH;
        }
        // Under the lock: whoever freezes the registry writes this down, too.
        self.want_saved();
        drop(inner);
        self.changed.notify_one();
        Made { what, version, waits }
    }

    fn want_saved(&self) {
        self.is_unsaved.store(true, Ordering::Release);
        self.unsaved.notify_one();
    }

    /// All instances, or those of one service, sorted by service, address and id.
    #[must_use]
    pub fn list(&self, service: Option<&str>) -> Vec<Listed> {
        self.inner().entries.list(service, self.now())
    }

    /// Where an instance listens; `None`: it is not known.
    #[must_use]
    pub fn address(&self, service: &str, id: &str) -> Option<SocketAddr> {
        self.inner().entries.record(service, id).map(|record| record.registration.address)
    }

    /// What is wrong with what survives a restart: what was found at the start, and that nothing can be written now.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (unwritten, self.found.summary()) {
            (Some(now), Some(before)) => Some(format!("{now}; {before}")),
            (now, before) => now.or(before),
        }
    }

    /// How often something went wrong with that; it only rises.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// How many instances there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All services, as they are.
    #[must_use]
    pub fn all_said(&self) -> Vec<(String, Said)> {
        self.inner().entries.all_said().map(|(service, said)| (service.to_owned(), said)).collect()
    }

    /// Waits until a change is in force, a quarter of a second at most: with very much to do it takes longer. In a burst of
    /// changes only the first ones wait. Whether it is known to be in force.
    pub async fn in_force<T>(&self, made: &Made<T>) -> bool {
        if !made.waits {
            return false;
        }
        let mut version = self.in_force.subscribe();
        matches!(timeout(IN_FORCE, version.wait_for(|version| *version >= made.version)).await, Ok(Ok(_)))
    }

    /// So many of the services that the source told are in force.
    pub fn taken(&self, told: u64) {
        let mut inner = self.inner();
        let mut version = None;
        while inner.pending.front().is_some_and(|(by, _)| *by <= told) {
            version = inner.pending.pop_front().map(|(_, version)| version);
        }
        drop(inner);
        if let Some(version) = version {
            self.in_force.send_if_modified(|known| {
                let newer = *known < version;
                *known = (*known).max(version);
                newer
            });
        }
    }

    /// Everybody counts for the whole TTL from now on, and everything is told again.
    pub(super) fn begin(&self) {
        let now = self.now();
        self.inner().entries.begin(now);
    }

    /// Drops whoever was not heard of in time. Returns when to look again; `None`: there is nothing to wait for.
    pub(super) fn expire(&self) -> Option<Instant> {
        let now = self.now();
        let mut inner = self.inner();
        if inner.frozen {
            return None;
        }
        let dropped = inner.entries.expire(now);
        let due = inner.entries.due().map(|due| self.began + due);
        if !dropped.is_empty() {
            self.note(inner, ());
            for (service, id) in dropped.iter().take(LOGGED) {
                tracing::info!(%service, %id, "registry: not heard of in time, dropped");
            }
            if let Some(more @ 1..) = dropped.len().checked_sub(LOGGED) {
                tracing::info!("registry: {more} more instances were not heard of in time, dropped");
            }
        }
        due
    }

    /// Services to be told, as they are now; and how many changes made them so.
    pub(super) fn to_tell(&self) -> (Vec<Told>, u64) {
        let mut inner = self.inner();
        if !inner.entries.is_changed() {
            return (Vec::new(), 0);
        }
        let changed = inner.entries.take_changed();
        inner.told += u64::try_from(changed.len()).unwrap_or(u64::MAX);
        let (told, version) = (inner.told, inner.version);
        inner.pending.push_back((told, version));
        let changes = version - std::mem::replace(&mut inner.told_version, version);
        (changed, changes)
    }

    /// Another daemon is taking over: from now on nobody is registered, deregistered or dropped. What is known is written.
    pub fn freeze(&self) {
        self.inner().frozen = true;
        self.write(true);
    }

    /// It is not taking over after all.
    pub fn thaw(&self) {
        self.inner().frozen = false;
        self.changed.notify_one();
        // The other daemon may have written something else meanwhile.
        self.want_saved();
    }

    /// Writes down who is registered, if anything is new. Returns whether that is done.
    pub fn save(&self) -> bool {
        self.write(false)
    }

    fn write(&self, frozen: bool) -> bool {
        // From the copy to the file: of two that write, the last one knows most.
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let records: Vec<(Arc<str>, Arc<str>, Arc<Record>)> = {
            let inner = self.inner();
            // The file is the other daemon's from then on.
            if inner.frozen != frozen || !self.is_unsaved.swap(false, Ordering::AcqRel) {
                return true;
            }
            inner.entries.records()
        };
        let written =
            file.write(&records).map_err(|why| format!("not written down, a restart would not know all: {why}"));
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(why) = &written {
            if unwritten.as_ref() != Some(why) {
                tracing::error!("registry: {why}");
            }
            self.errors.fetch_add(1, Ordering::Relaxed);
            self.is_unsaved.store(true, Ordering::Release);
        }
        *unwritten = written.err();
        unwritten.is_none()
    }
}

/// A service as it is now; `None`: nobody serves it any more.
type Told = (Arc<str>, Option<Said>);

/// How many instances that are dropped at once are named in the log.
const LOGGED: usize = 10;
