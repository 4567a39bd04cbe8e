//! A door for tests: answers from memory, and remembers what it was asked.

use super::{
    Addresses, BoxFuture, Changed, Client, Door, Event, EventSource, Feed, HandOver, Health, HealthComponent,
    Inherited, Kind, Listeners, Logs, Reader, Readiness, Refusal, Registered, Registration, Request, Response, Screen,
    Viewer, sample, serve,
};
use std::{
    net::SocketAddr,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    /// What is watched of every service.
    pub(crate) feed: OnceLock<Arc<Feed>>,
    /// What is seen of the node live.
    pub(crate) screen: Screen,
    /// What a scrape is.
    pub(crate) scrape: Mutex<Scrape>,
    /// Scrapes that are being written.
    pub(crate) scraping: AtomicUsize,
}

/// A scrape: so many long pieces after its first line, and how that ends.
#[derive(Clone, Copy)]
pub(crate) struct Scrape {
    pub(crate) pieces: usize,
    pub(crate) end: fn() -> Result<(), Refusal>,
}

impl Default for Scrape {
    fn default() -> Self {
        Self { pieces: 0, end: || Ok(()) }
    }
}

impl Scrape {
    /// What a scrape begins with.
    pub(crate) const LINE: &str = "mesh_interception_ok 1\n";

    /// A piece of 256 KiB.
    pub(crate) fn piece(n: usize) -> Vec<u8> {
        format!("{n:0>31}\n").repeat(8 << 10).into_bytes()
    }
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
            Request::Logs(wanted) => {
                let all = sample::logs().into_iter();
                Response::Logs(all.take(wanted.limit.map_or(usize::MAX, |limit| limit as usize)).collect())
            }
            Request::LogLevels => Response::LogLevels(sample::log_levels()),
            Request::SetLogLevel { directive } => Response::Changed(Changed::new(format!("log level: {directive}"))),
            Request::Explain { host: Some(_), .. } => return Err(Refusal::unsupported("explain --host")),
            Request::Explain { .. } => Response::Explanation(Box::new(sample::explanation())),
            Request::Traces(wanted) => {
                let all = sample::traces().into_iter();
                Response::Traces(all.take(wanted.limit.map_or(usize::MAX, |limit| limit as usize)).collect())
            }
            Request::Trace { id } if id == sample::trace().trace_id => Response::Trace(Box::new(sample::trace())),
            Request::Trace { id } => return Err(Refusal::not_found(format!("no trace {id} here"))),
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
            Request::Registry { .. } => Response::Registry(vec![sample::instance()]),
            Request::Instance { .. } => Response::Instance(Box::new(sample::instance())),
            Request::Register(Registration { service, id, .. }) => Response::Registered(Registered {
                message: format!("{service}: {id} is registered"),
                warnings: Vec::new(),
                created: id != "known",
                ttl: "60s".to_owned(),
            }),
            Request::Heartbeat { service, id } | Request::Deregister { service, id } => match id.as_str() {
                "unknown" => return Err(Refusal::not_found(format!("{service}: {id} is not registered"))),
                _ => Response::Changed(Changed::new(format!("{service}: {id} is known"))),
            },
        })
    }
}

impl Door for FakeDoor {
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, Refusal>> {
        Box::pin(self.answer(request))
    }

    fn without_secrets(&self, answer: Response) -> Response {
        answer
    }

    fn metrics(&self, sink: &mut dyn FnMut(Vec<u8>) -> ControlFlow<()>) -> Result<(), Refusal> {
        let Scrape { pieces, end } = *self.scrape.lock().unwrap();
        if pieces == 0 {
            end()?;
        }
        self.scraping.fetch_add(1, Ordering::SeqCst);
        let first = std::iter::once(Scrape::LINE.into());
        let _ = first.chain((0..pieces).map(Scrape::piece)).try_for_each(sink);
        self.scraping.fetch_sub(1, Ordering::SeqCst);
        end()
    }

    fn health(&self) -> Health {
        let component = HealthComponent { ok: false, detail: Some("stuck".to_owned()) };
        Health { ok: true, components: [("datapath".to_owned(), component)].into() }
    }

    fn ready(&self) -> Readiness {
        let ready = self.ready.load(Ordering::SeqCst);
        Readiness { ready, reasons: if ready { vec![] } else { vec!["programs are not attached".to_owned()] } }
    }

    fn watch(&self, service: String, after: Option<u64>) -> BoxFuture<'_, Result<Reader, Refusal>> {
        Box::pin(async move {
            if service == "unknown" {
                return Err(Refusal::not_found("no service is named \"unknown\""));
            }
            let feed = self.feed.get_or_init(|| Feed::new(100));
            let snapshot = Event { id: feed.last(), kind: "snapshot", data: "[]".into() };
            Ok(after.and_then(|after| feed.resume(after)).unwrap_or_else(|| feed.read_from(snapshot)))
        })
    }

    fn follow_logs(&self, wanted: Logs, after: Option<u64>) -> BoxFuture<'_, Result<Box<dyn EventSource>, Refusal>> {
        Box::pin(async move {
            if wanted.service.is_some_and(|service| service == "unknown") {
                return Err(Refusal::not_found("no service is named \"unknown\""));
            }
            let feed = self.feed.get_or_init(|| Feed::new(100));
            let data = serde_json::to_string(&sample::logs()[0]).unwrap().into();
            let line = Event { id: feed.last(), kind: "line", data };
            Ok(Box::new(after.and_then(|after| feed.resume(after)).unwrap_or_else(|| feed.read_from(line))) as _)
        })
    }

    fn live(&self) -> Viewer {
        self.screen.look()
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
