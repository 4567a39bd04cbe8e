//! `mesh register --etcd`: an instance into etcd, out again, with no daemon needed.

use crate::{
    config,
    discovery::{
        self,
        etcd::{self, Lease, Registrar, Registration},
    },
};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// Registers an instance in etcd; with `keep` it is kept there until the process is interrupted, and then taken out.
/// `say` is told what is done.
///
/// # Errors
/// Why it is not registered.
pub fn register_in_etcd(
    cluster: discovery::Etcd,
    what: &Registration,
    keep: bool,
    say: &dyn Fn(&str),
) -> Result<(), String> {
    check(&cluster, &what.service)?;
    etcd::check_id(&what.id)?;
    what.record.check()?;
    runtime()?.block_on(async {
        // Before anything is registered, so that no signal ends the process with it left behind.
        let mut interrupts = keep.then(Interrupts::new).transpose()?;
        let mut registrar = Registrar::new(cluster);
        let mut lease = registrar.register(what).await?;
        let (service, id, address, ttl) = (&what.service, &what.id, what.record.address, lease.ttl);
        let named = if *id == address.to_string() { String::new() } else { format!(" as {id}") };
        match &mut interrupts {
            None => {
                say(&format!("{service}: {address} registered in etcd{named} for {ttl:?}, unless registered again"));
                Ok(())
            }
            Some(interrupts) => {
                say(&format!("{service}: {address} registered in etcd{named}, kept until interrupted"));
                interrupts.end(registrar.keep(what, &mut lease, say)).await;
                registrar.revoke(lease).await.map_err(|why| left(&why, lease))?;
                say(&format!("{service}: {address} deregistered"));
                Ok(())
            }
        }
    })
}

fn left(why: &str, lease: Lease) -> String {
    format!("not deregistered, it goes by itself within {:?}: {why}", lease.ttl)
}

/// Takes the instances of a service that are at an address out of etcd. Returns what was done, in a sentence.
///
/// # Errors
/// Why none was taken out.
pub fn deregister_from_etcd(cluster: discovery::Etcd, service: &str, address: SocketAddr) -> Result<String, String> {
    check(&cluster, service)?;
    let gone = runtime()?.block_on(Registrar::new(cluster).deregister(service, address))?;
    match gone.as_slice() {
        [] => Err(format!("{service} has no instance at {address} in etcd")),
        [id] if *id == address.to_string() => Ok(format!("{service}: {address} deregistered")),
        ids => Ok(format!("{service}: {address} deregistered ({})", ids.join(", "))),
    }
}

fn check(cluster: &discovery::Etcd, service: &str) -> Result<(), String> {
    config::check_etcd(&cluster.endpoints, &cluster.prefix)?;
    etcd::check_service(service)
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| format!("no asynchronous runtime: {e}"))
}

/// The signals that end a registration that is kept.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, String> {
        let wait = |kind| signal(kind).map_err(|e| format!("signals cannot be waited for: {e}"));
        Ok(Self { interrupt: wait(SignalKind::interrupt())?, terminate: wait(SignalKind::terminate())? })
    }

    /// Goes on with `work` until one comes.
    async fn end(&mut self, work: impl Future<Output = Infallible>) {
        tokio::select! {
            never = work => match never {},
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
