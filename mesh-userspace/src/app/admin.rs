//! The admin servers, on a thread and a runtime of their own: whatever traffic does, the operator gets an answer.

use super::{daemon::Daemon, door::Doorkeeper, succession::Succession};
use crate::api::{self, Addresses, Inherited, Listeners, Passed, SocketFile};
use std::{os::fd::OwnedFd, sync::Arc, thread};
use tokio::sync::{oneshot, watch};

/// Admin servers whose listeners are open and that do not answer yet.
pub(super) struct Admin {
    /// Copies of the listeners, to pass on.
    pub(super) copies: Vec<(Passed, OwnedFd)>,
    /// Decides over the admin socket's file.
    pub(super) file: Option<SocketFile>,
    thread: thread::JoinHandle<()>,
    /// Who answers; who asks before it is sent waits.
    door: oneshot::Sender<Arc<Doorkeeper>>,
    stop: oneshot::Sender<()>,
}

/// Admin servers that answer.
pub(super) struct Serving {
    thread: thread::JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Admin {
    /// Opens the listeners, or takes those that were inherited.
    pub(super) fn bind(addresses: Addresses, inherited: Inherited) -> Result<Self, String> {
        let (bound, ready) = std::sync::mpsc::channel();
        let (door, keeper) = oneshot::channel::<Arc<Doorkeeper>>();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => return drop(bound.send(Err(format!("the admin server cannot start: {e}")))),
            };
            runtime.block_on(async {
                let listeners = match Listeners::bind(&addresses, inherited).await {
                    Ok(listeners) => listeners,
                    Err(e) => return drop(bound.send(Err(e.to_string()))),
                };
                let copies = listeners.copies().map_err(|e| format!("the admin server cannot start: {e}"));
                drop(bound.send(copies.map(|c| (c, listeners.socket_file(), listeners.listen_address()))));
                // Without a keeper the start failed; the listeners go as they came.
                let Ok(keeper) = keeper.await else { return };
                let (stop, stopping) = watch::channel(false);
                let stopped = async {
                    let _ = stopped.await;
                    let _ = stop.send(true);
                };
                let until = async || {
                    let _ = stopping.clone().wait_for(|stopped| *stopped).await;
                };
                let places = keeper.0.registry.doors();
                tokio::join!(
                    stopped,
                    api::serve(listeners, keeper.clone(), until()),
                    api::serve_registry(places, keeper.clone(), until()),
                );
            });
        };
        let thread = thread::Builder::new().name("admin".to_owned()).spawn(work).map_err(|e| e.to_string())?;
        let (copies, file, listen) = ready.recv().map_err(|e| format!("the admin server did not start: {e}"))??;
        if let Some(listen) = listen {
            tracing::info!("admin server at http://{listen}/");
        }
        Ok(Self { copies, file, thread, door, stop })
    }

    /// Begins to answer.
    pub(super) fn serve(self, daemon: &Arc<Daemon>, succession: &Arc<Succession>) -> Result<Serving, String> {
        let sent = self.door.send(Arc::new(Doorkeeper(Arc::clone(daemon), Arc::clone(succession))));
        sent.map_err(|_| "the admin server has ended".to_owned())?;
        Ok(Serving { thread: self.thread, stop: Some(self.stop) })
    }
}

impl Serving {
    /// Takes no more requests; those under way are answered.
    pub(super) fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It fails only if the servers have ended.
            let _ = stop.send(());
        }
    }

    pub(super) fn stop(mut self) {
        self.end();
        let _ = self.thread.join();
    }
}
