//! A door for tests: answers from memory, and remembers what it was asked.

use super::{
    Addresses, BoxFuture, Changed, Client, Door, HandOver, Health, HealthComponent, Inherited, Kind, Listeners,
    Readiness, Refusal, Request, Response, sample, serve,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

#[derive(Default)]
pub(crate) struct FakeDoor {
    pub(crate) asked: Mutex<Vec<Request>>,
    pub(crate) ready: AtomicBool,
    /// A reload has reached its end.
    pub(crate) reloaded: AtomicBool,
    /// Another daemon has been let in.
    pub(crate) taken_over: AtomicBool,
}

impl FakeDoor {
    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        self.asked.lock().unwrap().push(request.clone());
        Ok(match request {
            Request::Status => Response::Status(Box::new(sample::status())),
            Request::Services { name } => {
                let all = sample::services();
                let found: Vec<_> =
                    all.into_iter().filter(|service| name.as_ref().is_none_or(|name| *name == service.name)).collect();
                if let (Some(name), true) = (name, found.is_empty()) {
                    return Err(Refusal::not_found(format!("no service is named {name:?}")));
                }
                Response::Services(found)
            }
            Request::Endpoints { service } => {
                let all = sample::endpoints().into_iter();
                Response::Endpoints(
                    all.filter(|endpoint| service.as_ref().is_none_or(|name| *name == endpoint.service)).collect(),
                )
            }
            Request::Connections(wanted) => {
                let all = sample::connections().into_iter();
                Response::Connections(all.take(wanted.limit.map_or(usize::MAX, |limit| limit as usize)).collect())
            }
            Request::Circuits { service } => {
                let all = sample::circuits().into_iter();
                Response::Circuits(
                    all.filter(|circuit| service.as_ref().is_none_or(|name| *name == circuit.service)).collect(),
                )
            }
            Request::Explain { host: Some(_), .. } => return Err(Refusal::unsupported("explain --host")),
            Request::Explain { .. } => Response::Explanation(Box::new(sample::explanation())),
            Request::ConfigDump => Response::Config(sample::config()),
            Request::ConfigReload => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.reloaded.store(true, Ordering::SeqCst);
                Response::Changed(Changed::new("reloaded: 1 service added"))
            }
            Request::EndpointDrain { service, address, .. } => Response::Changed(Changed {
                message: format!("{service}: {address} drains"),
                warnings: vec!["no endpoint of checkout is left that can be chosen".to_owned()],
            }),
            Request::EndpointUndrain { .. } => return Err(Refusal::new(Kind::Conflict, "it is not draining")),
            Request::EndpointWeight { weight: 13, .. } => panic!("an unlucky number"),
            Request::EndpointWeight { service, address, weight, .. } => {
                Response::Changed(Changed::new(format!("{service}: {address} weight 1 → {weight}")))
            }
            Request::LbSet { policy, .. } => return Err(Refusal::unsupported(format!("policy {policy}"))),
            Request::CircuitTrip { service, .. } => {
                Response::Changed(Changed::new(format!("{service}: its circuits are held open")))
            }
            Request::CircuitReset { .. } => return Err(Refusal::new(Kind::Conflict, "the circuit is closed")),
            Request::CircuitSet { service, failure_threshold, .. } => {
                Response::Changed(Changed::new(format!("{service}: threshold 5 → {}", failure_threshold.unwrap_or(5))))
            }
            Request::Bypass { .. } => return Err(Refusal::new(Kind::Unavailable, "no programs are attached")),
        })
    }
}

impl Door for FakeDoor {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, Refusal>> {
        Box::pin(self.answer(request))
    }

    fn metrics(&self) -> Result<Vec<u8>, Refusal> {
        Ok(b"# TYPE mesh_interception_ok gauge\nmesh_interception_ok 1\n".to_vec())
    }

    fn health(&self) -> Health {
        let component = HealthComponent { ok: false, detail: Some("stuck".to_owned()) };
        Health { ok: true, components: [("datapath".to_owned(), component)].into() }
    }

    fn ready(&self) -> Readiness {
        let ready = self.ready.load(Ordering::SeqCst);
        Readiness { ready, reasons: if ready { vec![] } else { vec!["programs are not attached".to_owned()] } }
    }

    fn take_over(&self) -> Result<HandOver, Refusal> {
        if self.taken_over.swap(true, Ordering::SeqCst) {
            return Err(Refusal::new(Kind::Conflict, "another daemon is taking over"));
        }
        Ok(Box::new(|line| {
            let (greeting, _) = line.receive::<String>(Duration::from_secs(5)).unwrap();
            line.send(&format!("{greeting} to you"), &[], Duration::from_secs(5)).unwrap();
        }))
    }
}

/// A server on a socket in a directory of its own and on two free ports.
pub(crate) struct Served {
    pub(crate) door: Arc<FakeDoor>,
    pub(crate) socket: PathBuf,
    pub(crate) tcp: SocketAddr,
    pub(crate) metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/admin.sock");
        let free = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addresses = Addresses { listen: free, metrics_listen: free, socket: Some(socket.clone()) };
        let listeners = Listeners::bind(&addresses, Inherited::default()).await.unwrap();
        let (tcp, metrics) = (listeners.listen_address().unwrap(), listeners.metrics_address().unwrap());
        let door = Arc::new(FakeDoor::default());
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listeners, door.clone(), stopped));
        Self { door, socket, tcp, metrics, stop: Some(stop), task: Some(task), _directory: directory }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    pub(crate) async fn stop(&mut self) {
        if let (Some(stop), Some(task)) = (self.stop.take(), self.task.take()) {
            let _ = stop.send(());
            task.await.unwrap();
        }
    }
}
