//! The registry at the door: who registers, and where.

use super::daemon::Daemon;
use crate::{
    api::{
        BindError, Changed, HealthComponent, Kind, Passed, Refusal, Registered, Registration, RegistryDoor,
        RegistryInstance, Request, Response, Time,
    },
    config,
    discovery::{
        self,
        registry::{self, Listed, Put, Registrar, RegistrationError},
    },
};
use std::{
    io,
    net::{self, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::watch;

/// The registry of a daemon.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) registrar: Arc<Registrar>,
    /// The TTL of those who say none, in milliseconds.
    ttl: AtomicU64,
    /// The address as it is configured, and the listener there.
    place: Mutex<Option<(SocketAddr, Arc<RegistryDoor>)>>,
    /// That listener, for whoever serves there.
    door: watch::Sender<Option<Arc<RegistryDoor>>>,
    /// Why nobody is let in there, as it was when it was last looked at.
    shut: Mutex<Option<String>>,
    /// How often that became so.
    shut_times: AtomicU64,
}

/// Where the registry is to listen, the listener open.
pub(super) struct Place {
    ttl: Duration,
    door: Option<(SocketAddr, Arc<RegistryDoor>)>,
}

impl Registry {
    /// Listens where `wanted` says, at a listener that was `inherited` if it has the address.
    pub(super) fn new(
        registrar: Registrar,
        wanted: discovery::Registry,
        inherited: Option<net::TcpListener>,
    ) -> Result<Self, BindError> {
        let registry = Self {
            registrar: Arc::new(registrar),
            ttl: AtomicU64::default(),
            place: Mutex::default(),
            door: watch::Sender::new(None),
            shut: Mutex::default(),
            shut_times: AtomicU64::default(),
        };
        let place = registry.prepare(wanted, inherited)?;
        registry.settle(place);
        registry.look();
        Ok(registry)
    }

    /// Opens what is needed to listen where `wanted` says, and changes nothing yet.
    pub(super) fn prepare(
        &self,
        wanted: discovery::Registry,
        inherited: Option<net::TcpListener>,
    ) -> Result<Place, BindError> {
        let discovery::Registry { ttl, listen, token_file } = wanted;
        let Some(address) = listen else { return Ok(Place { ttl, door: None }) };
        let failed = |source| BindError::Tcp { key: "discovery.registry.listen", address, source };
        let current = self.place().clone().filter(|(at, _)| *at == address);
        let listener = match (inherited, current) {
            (Some(listener), _) => listener,
            (None, Some((_, door))) if door.token_file() == token_file.as_deref() => {
                return Ok(Place { ttl, door: Some((address, door)) });
            }
            // The same listener, so that nobody is turned away.
            (None, Some((_, door))) => door.listener.try_clone().map_err(failed)?,
            (None, None) => RegistryDoor::bind(address).map_err(failed)?,
        };
        Ok(Place { ttl, door: Some((address, Arc::new(RegistryDoor::new(listener, token_file.as_deref())))) })
    }

    /// Listens there from now on.
    pub(super) fn settle(&self, place: Place) {
        let Place { ttl, door } = place;
        self.ttl.store(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let new = door.as_ref().map(|(_, door)| Arc::clone(door));
        *self.place() = door;
        self.door.send_if_modified(|current| {
            if current.as_ref().map(Arc::as_ptr) == new.as_ref().map(Arc::as_ptr) {
                return false;
            }
            if let Some(local) = new.as_ref().and_then(|door| door.listener.local_addr().ok()) {
                tracing::info!("registrations are taken at http://{local}/v1/registry");
            }
            *current = new;
            true
        });
    }

    /// Looks whether whoever shows the token is let in. It reads a file, and may take its time.
    pub(super) fn look(&self) {
        let door = self.place().as_ref().map(|(_, door)| Arc::clone(door));
        let found = door.as_ref().and_then(|door| door.trouble());
        let mut shut = self.shut();
        if *shut == found {
            return;
        }
        match &found {
            Some(why) => {
                tracing::error!("registry: {why}");
                self.shut_times.fetch_add(1, Ordering::Relaxed);
            }
            None if door.is_some() => tracing::info!("registry: whoever shows the token is let in again"),
            None => {}
        }
        *shut = found;
    }

    /// What is wrong with it, as far as it is known without looking.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble: Vec<String> = self.shut().iter().cloned().chain(self.registrar.trouble()).collect();
        (!trouble.is_empty()).then(|| trouble.join("; "))
    }

    /// How often something went wrong with it.
    pub(super) fn errors(&self) -> u64 {
        self.registrar.errors().saturating_add(self.shut_times.load(Ordering::Relaxed))
    }

    /// It as a component of `/health`.
    pub(super) fn health(&self) -> HealthComponent {
        let trouble = self.trouble();
        let at = || self.place().as_ref().map(|(address, _)| format!("registrations are taken at {address} too"));
        HealthComponent { ok: trouble.is_none(), detail: trouble.or_else(at) }
    }

    fn shut(&self) -> MutexGuard<'_, Option<String>> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> MutexGuard<'_, Option<(SocketAddr, Arc<RegistryDoor>)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it listens at each moment.
    pub(super) fn doors(&self) -> watch::Receiver<Option<Arc<RegistryDoor>>> {
        self.door.subscribe()
    }

    /// A copy of the listener, to pass on.
    pub(super) fn listener(&self) -> io::Result<Option<(Passed, OwnedFd)>> {
        let copy = self.place().as_ref().map(|(_, door)| door.listener.try_clone());
        Ok(copy.transpose()?.map(|listener| (Passed::Tcp, listener.into())))
    }

    /// Does what changes the registry; gives back all other requests. `doubts`: what is in force in another way than an
    /// instance of a service, with an address and a weight, says.
    pub(super) async fn handle(
        &self,
        request: Request,
        doubts: &(dyn Fn(&str, SocketAddr, u16) -> Vec<String> + Sync),
    ) -> Result<Result<Response, Refusal>, Request> {
        Ok(match request {
            Request::Register(registration) => self.register(registration, doubts).await,
            Request::Heartbeat { service, id } => self.heartbeat(&service, &id),
            Request::Deregister { service, id } => self.deregister(&service, &id).await,
            other => return Err(other),
        })
    }

    async fn register(
        &self,
        asked: Registration,
        doubts: &(dyn Fn(&str, SocketAddr, u16) -> Vec<String> + Sync),
    ) -> Result<Response, Refusal> {
        let Registration { service, id, address, weight, zone, metadata, ttl } = asked;
        let ttl = match ttl {
            Some(text) => self::ttl(&text)?,
            None => config::Duration::from_millis(self.ttl.load(Ordering::Relaxed)),
        };
        let said = registry::Registration { address, weight, zone, metadata, ttl: ttl.get() };
        let made = self.registrar.register(&service, &id, said).map_err(refusal)?;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let name = if id == address.to_string() { id } else { format!("{address} ({id})") };
        let message = match made.what {
            Put::Created => format!("{service}: {name} is registered: weight {weight}, ttl {ttl}"),
            Put::Replaced => format!("{service}: {name} is registered anew: weight {weight}, ttl {ttl}"),
            Put::Same => format!("{service}: {name} was registered so already; its ttl of {ttl} begins again"),
        };
        let mut warnings = Vec::new();
        if made.what != Put::Same {
            tracing::info!("registry: {message}");
            if self.registrar.in_force(&made).await {
                warnings = doubts(&service, address, weight);
            }
        }
        let (created, ttl) = (made.what == Put::Created, ttl.to_string());
        Ok(Response::Registered(Registered { message, warnings, created, ttl }))
    }

    fn heartbeat(&self, service: &str, id: &str) -> Result<Response, Refusal> {
        let ttl = self.registrar.heartbeat(service, id).ok_or_else(|| unknown(service, id))?;
        let ttl = config::Duration::from(ttl);
        Ok(Response::Changed(Changed::new(format!("{service}: {id} is heard of: its ttl of {ttl} begins again"))))
    }

    async fn deregister(&self, service: &str, id: &str) -> Result<Response, Refusal> {
        let made = self.registrar.deregister(service, id).map_err(refusal)?.ok_or_else(|| unknown(service, id))?;
        let address = made.what;
        let name = if id == address.to_string() { id.to_owned() } else { format!("{address} ({id})") };
        let message = format!("{service}: {name} is deregistered");
        tracing::info!("registry: {message}");
        self.registrar.in_force(&made).await;
        Ok(Response::Changed(Changed::new(message)))
    }
}

/// For how long an instance counts, as it says itself.
fn ttl(text: &str) -> Result<config::Duration, Refusal> {
    let range = registry::MIN_TTL..=registry::MAX_TTL;
    let ttl = text.parse::<config::Duration>().ok().filter(|ttl| range.contains(&ttl.get()));
    ttl.ok_or_else(|| {
        let found: String = text.chars().take(50).collect();
        Refusal::invalid(format!("ttl: expected a duration from 1s to 24h such as 30s or 5m, found {found:?}"))
    })
}

fn unknown(service: &str, id: &str) -> Refusal {
    let message =
        format!("{service}: no instance {id:?} is registered; `curl .../v1/registry` lists them, PUT registers");
    Refusal::not_found(message)
}

fn refusal(error: RegistrationError) -> Refusal {
    let kind = match error {
        RegistrationError::Invalid(_) => Kind::Invalid,
        RegistrationError::Metadata(_) => Kind::TooLarge,
        RegistrationError::Full(_) | RegistrationError::Frozen => Kind::Unavailable,
    };
    Refusal::new(kind, error.to_string())
}

impl Daemon {
    /// Refuses an instance that says it listens at the VIP of a service: connections to it would go round in a circle. Who
    /// is known there was judged when it came, and is when that changes. The state is not waited for: many may register.
    pub(super) fn refuse_circles(&self, request: &Request) -> Result<(), Refusal> {
        let Request::Register(Registration { service, id, address, .. }) = request else { return Ok(()) };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if self.registry.registrar.address(service, id) == Some(address) {
            return Ok(());
        }
        match self.http.shared.table.load().owner_of_any(address) {
            None => Ok(()),
            Some(owner) => Err(Refusal::invalid(format!("address: {address}: a VIP of the service {}", owner.name))),
        }
    }

    /// What is in force in another way than an instance that was just registered says, which others may know better.
    pub(super) fn not_as_registered(&self, service: &str, address: SocketAddr, weight: u16) -> Vec<String> {
        let snapshot = Arc::clone(&self.state().snapshot);
        let Some(found) = snapshot.service(service) else {
            return vec![format!("there is no service {service} all the same: `mesh status` says why")];
        };
        match found.endpoints.iter().find(|endpoint| endpoint.address == address) {
            None => vec![format!("{address} is no endpoint of {service} all the same: `mesh status` says why")],
            Some(endpoint) if endpoint.weight != weight => {
                let known = endpoint.weight;
                vec![format!("the weight of {address} stays {known}: what the files, or an operator, say of it counts")]
            }
            Some(_) => Vec::new(),
        }
    }

    /// Instances that are registered, of all services or one.
    pub(super) fn registered(&self, service: Option<&str>) -> Result<Vec<RegistryInstance>, Refusal> {
        let list = self.registry.registrar.list(service);
        if let Some(service) = service.filter(|_| list.is_empty())
            && self.state().snapshot.service(service).is_none()
        {
            return Err(Refusal::not_found(format!("no service is named {service:?}; `mesh services` lists them")));
        }
        Ok(list.into_iter().map(instance).collect())
    }

    /// One instance that is registered.
    pub(super) fn registered_instance(&self, service: &str, id: &str) -> Result<RegistryInstance, Refusal> {
        let list = self.registry.registrar.list(Some(service));
        list.into_iter().find(|listed| listed.id == id).map(instance).ok_or_else(|| unknown(service, id))
    }
}

fn instance(listed: Listed) -> RegistryInstance {
    let Listed { service, id, registration, remaining, registered_at } = listed;
    let registry::Registration { address, weight, zone, metadata, ttl } = registration;
    RegistryInstance {
        service,
        id,
        address,
        weight,
        zone: Some(zone).filter(|zone| !zone.is_empty()),
        metadata,
        ttl: config::Duration::from(ttl).to_string(),
        ttl_remaining_ms: remaining.as_secs_f64() * 1000.0,
        registered_at: Time::from(UNIX_EPOCH + Duration::from_millis(registered_at)),
    }
}
