//! The daemon's listeners in all network namespaces: opened where there are clients, closed where there are none left.

use super::{Family, KernelError, Listeners, Namespace, Netns};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io, iter,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// A listening socket for a worker. It does not block, accepted sockets do not wait with small writes (`TCP_NODELAY`).
#[derive(Debug)]
pub struct Captured {
    /// The socket.
    pub socket: OwnedFd,
    /// Where it listens.
    pub family: Family,
    /// The network namespace it is in.
    pub netns: Arc<Netns>,
}

/// A listener's place: cookie of its network namespace, family, worker.
pub type Place = (u64, Family, usize);

/// What became of the listeners in a network namespace.
#[derive(Debug)]
pub enum Change {
    /// For the worker with this number.
    Opened(usize, Captured),
    /// All of them are to be closed: nobody is in the namespace with this cookie any more.
    Closed(u64),
    /// There is no listener for a family, and clients go past the daemon. Said once, and tried again.
    Refused(Refused),
    /// There is none in namespaces that this process may not enter. Said once.
    Barred(Barred),
}

/// Why there is no listener for a family in a network namespace.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Inode of the namespace.
    pub inode: u64,
    /// Where.
    pub address: SocketAddr,
    /// What the system says: `EADDRINUSE`, somebody else listens; `EADDRNOTAVAIL`, the loopback interface is down, or
    /// IPv6 is disabled.
    pub errno: i32,
}

/// What the system says (an errno) where a namespace of clients may not be looked at (`CAP_SYS_PTRACE`) or entered
/// (`CAP_SYS_ADMIN`).
#[derive(Clone, Copy, Debug)]
pub struct Barred(pub i32);

/// Which listeners are open. It has a descriptor of each: a worker that closes its own does not close the listener.
#[derive(Debug)]
pub struct Places {
    port: u16,
    workers: usize,
    mark: u32,
    open: BTreeMap<u64, Open>,
    inherited: HashMap<(u64, Family), Vec<OwnedFd>>,
    barred: Option<Barred>,
}

#[derive(Debug)]
struct Open {
    netns: Arc<Netns>,
    /// By family, with the number of the worker.
    sockets: BTreeMap<Family, Vec<(usize, OwnedFd)>>,
    refused: BTreeMap<Family, Refused>,
}

/// How many clients may wait to be accepted by a worker; `net.core.somaxconn` is the limit.
const BACKLOG: i32 = 4096;

impl Places {
    /// None yet. Each of so many `workers` will listen at `port`; sockets that are made to connect carry `mark`.
    #[must_use]
    pub fn new(port: u16, workers: usize, mark: u32) -> Self {
        Self { port, workers: workers.max(1), mark, open: BTreeMap::new(), inherited: HashMap::new(), barred: None }
    }

    /// Where there are clients and no listener, as far as that is known.
    pub fn refused(&self) -> impl Iterator<Item = Refused> {
        self.open.values().flat_map(|open| open.refused.values().copied())
    }

    /// Whether there are namespaces of clients that this process may not enter.
    #[must_use]
    pub const fn barred(&self) -> Option<Barred> {
        self.barred
    }

    /// The namespaces it has been opened in, by their inodes.
    #[must_use]
    pub fn inodes(&self) -> BTreeSet<u64> {
        self.open.values().map(|open| open.netns.inode()).collect()
    }

    /// Takes listeners of a daemon that is followed. They are handed out where their namespaces are found: those who
    /// wait there to be accepted are not turned away.
    pub fn inherit(&mut self, sockets: impl IntoIterator<Item = (Place, OwnedFd)>) {
        for ((netns, family, _), socket) in sockets {
            self.inherited.entry((netns, family)).or_default().push(socket);
        }
    }

    /// Every listener.
    pub fn all(&self) -> impl Iterator<Item = (Place, BorrowedFd<'_>)> {
        self.open.iter().flat_map(|(netns, open)| {
            let families = open.sockets.iter().flat_map(|(family, all)| all.iter().map(move |one| (*family, one)));
            families.map(|(family, (worker, socket))| ((*netns, family, *worker), socket.as_fd()))
        })
    }

    /// These are the namespaces with clients (one may stand there twice), and no others: opens what is new, tries again what
    /// was refused, closes the rest.
    pub fn found(&mut self, listeners: &Listeners, namespaces: &[Namespace], tell: &mut dyn FnMut(Change)) {
        let inodes: BTreeSet<u64> = namespaces.iter().map(|namespace| namespace.inode).collect();
        let gone = self.open.iter().filter(|(_, open)| !inodes.contains(&open.netns.inode())).map(|(netns, _)| *netns);
        for netns in gone.collect::<Vec<_>>() {
            self.close(listeners, netns, tell);
        }
        let mut known = self.inodes();
        for namespace in namespaces.iter().filter(|namespace| known.insert(namespace.inode)) {
            match Netns::of(namespace, self.mark) {
                Ok(netns) => self.enter(netns),
                Err(e) => self.bar(&e, tell),
            }
        }
        for netns in self.open.keys().copied().collect::<Vec<_>>() {
            self.complete(listeners, netns, tell);
        }
        // Of namespaces that ended between two daemons.
        self.inherited.clear();
    }

    /// A client, process `pid`, went past the daemon in the namespace with the cookie `netns`.
    pub fn missed(&mut self, listeners: &Listeners, netns: u64, pid: u32, tell: &mut dyn FnMut(Change)) {
        if let Some(open) = self.open.get(&netns) {
            // What cannot be opened is tried again later; what is open may have been taken out of the table.
            return open.show(listeners, netns);
        }
        match Netns::open(pid, self.mark) {
            Ok(found) if found.cookie() == netns => {
                self.enter(found);
                self.complete(listeners, netns, tell);
            }
            // It went elsewhere, or only one of its threads was there.
            Ok(_) => {}
            Err(e) => self.bar(&e, tell),
        }
    }

    /// A namespace could not be entered: it is gone, or this process may not.
    fn bar(&mut self, error: &io::Error, tell: &mut dyn FnMut(Change)) {
        match error.raw_os_error() {
            Some(errno @ (libc::EPERM | libc::EACCES)) if self.barred.is_none() => {
                self.barred = Some(Barred(errno));
                tell(Change::Barred(Barred(errno)));
            }
            _ => tracing::debug!("the network namespace of a client cannot be entered: {error}"),
        }
    }

    /// From now on clients go past the daemon. Those who wait to be accepted still can be.
    pub fn hide(&self, listeners: &Listeners) {
        for (netns, open) in &self.open {
            open.sockets.keys().for_each(|family| warn(listeners.remove(*netns, *family)));
        }
    }

    /// Closes everything.
    pub fn close_all(&mut self, listeners: &Listeners, tell: &mut dyn FnMut(Change)) {
        for netns in self.open.keys().copied().collect::<Vec<_>>() {
            self.close(listeners, netns, tell);
        }
    }

    fn close(&mut self, listeners: &Listeners, netns: u64, tell: &mut dyn FnMut(Change)) {
        let Some(open) = self.open.remove(&netns) else { return };
        open.sockets.keys().for_each(|family| warn(listeners.remove(netns, *family)));
        tell(Change::Closed(netns));
    }

    fn enter(&mut self, netns: Netns) {
        let open = Open { netns: Arc::new(netns), sockets: BTreeMap::new(), refused: BTreeMap::new() };
        self.open.insert(open.netns.cookie(), open);
    }

    /// Opens what is not open yet in a namespace.
    fn complete(&mut self, listeners: &Listeners, netns: u64, tell: &mut dyn FnMut(Change)) {
        let Some(open) = self.open.get_mut(&netns) else { return };
        for family in Family::ALL {
            if open.sockets.contains_key(&family) {
                continue;
            }
            let inherited = self.inherited.remove(&(netns, family)).unwrap_or_default();
            let address = SocketAddr::new(family.loopback(), self.port);
            match open.listen(family, address, self.workers, inherited, tell) {
                Ok(()) => open.show_one(listeners, netns, family),
                Err(e) => {
                    let errno = e.raw_os_error().unwrap_or(libc::EIO);
                    let refused = Refused { inode: open.netns.inode(), address, errno };
                    if open.refused.insert(family, refused).is_none() {
                        tell(Change::Refused(refused));
                    }
                }
            }
        }
    }
}

impl Open {
    fn listen(
        &mut self,
        family: Family,
        address: SocketAddr,
        workers: usize,
        inherited: Vec<OwnedFd>,
        tell: &mut dyn FnMut(Change),
    ) -> io::Result<()> {
        let sockets = self.netns.listen_beside(address, BACKLOG, workers, inherited)?;
        // All descriptors first: what is handed out is open here as well.
        let copies = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        // Workers have more than one each where an earlier daemon had more of them.
        let turns = iter::repeat_with(|| 0..workers).flatten();
        for (worker, socket) in turns.clone().zip(copies) {
            tell(Change::Opened(worker, Captured { socket, family, netns: Arc::clone(&self.netns) }));
        }
        self.sockets.insert(family, turns.zip(sockets).collect());
        self.refused.remove(&family);
        Ok(())
    }

    fn show(&self, listeners: &Listeners, netns: u64) {
        self.sockets.keys().for_each(|family| self.show_one(listeners, netns, *family));
    }

    /// Sends clients there: whichever worker's socket is shown, all of them share what comes.
    fn show_one(&self, listeners: &Listeners, netns: u64, family: Family) {
        if let Some((_, socket)) = self.sockets.get(&family).and_then(|all| all.first()) {
            warn(listeners.insert(netns, family, socket.as_fd()));
        }
    }
}

fn warn(done: Result<(), KernelError>) {
    if let Err(e) = done {
        tracing::warn!("the daemon's listeners: {e}");
    }
}
