//! How an instance comes in, stays, and goes.

use super::{
    client::{Client, Failure},
    list,
    members::Members,
    record::{self, Record},
    wire,
};
use crate::discovery::{Direct, Etcd};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tokio::time::sleep;

/// An instance to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service it serves.
    pub service: String,
    /// Its name within the service.
    pub id: String,
    /// What is to be known of it.
    pub record: Record,
    /// How long it counts when it is not heard of.
    pub ttl: Duration,
}

/// The time that an instance has to be heard of again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    id: i64,
    /// How long it lasts, as etcd has it: not less than was asked for.
    pub ttl: Duration,
}

/// How a lease was kept.
enum Kept {
    /// It was there.
    There,
    /// It was not, or the key was not; both are now.
    Again,
}

/// Registers instances in etcd.
#[derive(Debug)]
pub struct Registrar {
    prefix: String,
    members: Members,
    client: Option<Client>,
}

impl Registrar {
    /// For this cluster. Its members are dialled as any program dials them: who registers need not be the daemon.
    #[must_use]
    pub fn new(settings: Etcd) -> Self {
        Self { prefix: settings.prefix.clone(), members: Members::new(settings, Direct::default()), client: None }
    }

    /// Puts an instance in, with a lease.
    ///
    /// # Errors
    /// Why no member did it.
    pub async fn register(&mut self, what: &Registration) -> Result<Lease, String> {
        let prefix = self.prefix.clone();
        self.once(async |client| register(client, &prefix, what).await).await
    }

    /// Keeps an instance registered for ever, whatever becomes of etcd meanwhile; `say` is told what does.
    pub async fn keep(&mut self, what: &Registration, lease: &mut Lease, say: &dyn Fn(&str)) -> Infallible {
        let prefix = self.prefix.clone();
        let mut lost = false;
        let mut pause = lease.ttl / 3;
        loop {
            sleep(pause).await;
            let mut held = *lease;
            let kept = self.once(async |client| keep(client, &prefix, what, held).await).await;
            match kept {
                Ok((kept, now)) => {
                    held = now;
                    match kept {
                        Kept::Again => say("registered again: etcd did not know it any more"),
                        Kept::There if lost => say("in touch with etcd again"),
                        Kept::There => {}
                    }
                    lost = false;
                    pause = held.ttl / 3;
                }
                Err(why) => {
                    if !lost {
                        say(&format!("not in touch with etcd, trying again: {why}"));
                    }
                    lost = true;
                    pause = self.members.pause(fastrand::f64()).min(held.ttl / 3);
                }
            }
            *lease = held;
        }
    }

    /// Takes an instance out with its lease.
    ///
    /// # Errors
    /// Why no member did it.
    pub async fn revoke(&mut self, lease: Lease) -> Result<(), String> {
        self.once(async |client| {
            let revoked = client.ask::<_, wire::Done>(wire::REVOKE, wire::LeaseRevokeRequest { id: lease.id }).await;
            match revoked {
                // It ran out.
                Err(Failure::Other(why)) if why.contains("requested lease not found") => Ok(()),
                revoked => revoked.map(|_| ()),
            }
        })
        .await
    }

    /// Takes out the instances of a service that are at an address or are called by it. Returns their names.
    ///
    /// # Errors
    /// Why no member did it.
    pub async fn deregister(&mut self, service: &str, address: SocketAddr) -> Result<Vec<String>, String> {
        let prefix = self.prefix.clone();
        self.once(async |client| deregister(client, &prefix, service, address).await).await
    }

    /// Lets one member after the other try it.
    async fn once<T>(&mut self, ask: impl AsyncFn(&Client) -> Result<T, Failure>) -> Result<T, String> {
        loop {
            let had = self.client.take();
            let is_old = had.is_some();
            let client = match had {
                Some(client) => Ok(client),
                None => self.members.connect().await,
            };
            let done = match client {
                Ok(client) => ask(&client).await.map(|done| (client, done)),
                Err(why) => Err(why),
            };
            match done {
                Ok((client, done)) => {
                    self.client = Some(client);
                    self.members.worked();
                    return Ok(done);
                }
                // The connection may be gone, or the token be too old: that is no one's failure.
                Err(_) if is_old => {}
                Err(why) => {
                    if let Some(why) = self.members.failed(&why) {
                        return Err(why);
                    }
                }
            }
        }
    }
}

async fn register(client: &Client, prefix: &str, what: &Registration) -> Result<Lease, Failure> {
    // Whole seconds, rather too many.
    let seconds = what.ttl.as_secs() + u64::from(what.ttl.subsec_nanos() > 0);
    let ttl = i64::try_from(seconds).unwrap_or(i64::MAX);
    let granted: wire::LeaseGrantResponse = client.ask(wire::GRANT, wire::LeaseGrantRequest { ttl }).await?;
    if !granted.error.is_empty() {
        return Err(Failure::Other(granted.error));
    }
    let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or_default().max(1));
    let lease = Lease { id: granted.id, ttl };
    put(client, prefix, what, lease).await?;
    Ok(lease)
}

async fn put(client: &Client, prefix: &str, what: &Registration, lease: Lease) -> Result<(), Failure> {
    let value = serde_json::to_vec(&what.record).map_err(Failure::other)?;
    let key = record::key(prefix, &what.service, &what.id);
    client.ask::<_, wire::Done>(wire::PUT, wire::PutRequest { key, value, lease: lease.id }).await.map(|_| ())
}

async fn keep(client: &Client, prefix: &str, what: &Registration, lease: Lease) -> Result<(Kept, Lease), Failure> {
    // A stream of questions and answers, ended after one.
    let question = wire::LeaseKeepAliveRequest { id: lease.id };
    let answer: wire::LeaseKeepAliveResponse = client.ask(wire::KEEP_ALIVE, question).await?;
    if answer.ttl <= 0 {
        return Ok((Kept::Again, register(client, prefix, what).await?));
    }
    let key = record::key(prefix, &what.service, &what.id);
    let question = wire::RangeRequest { key, keys_only: true, ..wire::RangeRequest::default() };
    let there: wire::RangeResponse = client.ask(wire::RANGE, question).await?;
    if there.kvs.is_empty() {
        put(client, prefix, what, lease).await?;
        return Ok((Kept::Again, lease));
    }
    Ok((Kept::There, lease))
}

async fn deregister(client: &Client, prefix: &str, service: &str, address: SocketAddr) -> Result<Vec<String>, Failure> {
    let (key, range_end) = list::below(&format!("{prefix}/{service}"));
    let question = wire::RangeRequest { key, range_end, ..wire::RangeRequest::default() };
    let there: wire::RangeResponse = client.ask(wire::RANGE, question).await?;
    let mut gone = Vec::new();
    for kv in there.kvs {
        let Ok((_, id)) = record::split(prefix, &kv.key) else { continue };
        let is_there = Record::parse(&kv.value).is_ok_and(|record| record.address == address);
        if is_there || id == address.to_string() {
            let id = id.to_owned();
            let deleted: wire::DeleteRangeResponse =
                client.ask(wire::DELETE, wire::DeleteRangeRequest { key: kv.key }).await?;
            if deleted.deleted > 0 {
                gone.push(id);
            }
        }
    }
    Ok(gone)
}
