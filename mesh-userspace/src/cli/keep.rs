//! An instance that is registered for as long as this command runs.

use super::{
    execute::failed,
    output::{harmless_lines, note, print},
};
use crate::api::{Client, ClientError, Registration, Request};
use std::{process::ExitCode, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

/// How long the daemon may take for an answer: one that hangs must not cost the registration.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that is away is asked so often whether it is back.
const BACK: Duration = Duration::from_secs(1);

/// Registers an instance, says again and again that it is alive, and deregisters it when this process is told to end.
///
/// A daemon that goes away meanwhile is waited for; if it does not know the instance any more then, it is told again.
pub(super) async fn keep(client: &Client, registration: Registration) -> Result<(), ExitCode> {
    let client = client.clone().with_patience(PATIENCE);
    let mut signals = Signals::new().map_err(|e| {
        super::output::complain(&format!("signals cannot be handled: {e}"));
        ExitCode::FAILURE
    })?;
    let Registration { service, id, .. } = registration.clone();
    let register = Request::Register(registration);
    let registered = client.register(&register).await.map_err(|e| failed(&e))?;
    print(&format!("{}\n", harmless_lines(&registered.message)))?;
    // It says what it understood; a heartbeat may be lost, and one more.
    let period = humantime::parse_duration(&registered.ttl).unwrap_or(Duration::from_secs(3)) / 3;
    let heartbeat = Request::Heartbeat { service: service.clone(), id: id.clone() };
    let mut away = false;
    loop {
        tokio::select! {
            () = signals.end() => break,
            () = sleep(if away { period.min(BACK) } else { period }) => {}
        }
        let mut done = client.change(&heartbeat).await.map(|_| None);
        if matches!(&done, Err(ClientError::Refused { kind, .. }) if kind == "not_found") {
            done = client.register(&register).await.map(|registered| Some(registered.message));
        }
        match done {
            Ok(Some(message)) => note(&format!("the daemon did not know it any more: {message}")),
            Ok(None) if away => note(&format!("the daemon is back, and knows {service} {id}")),
            Ok(None) => {}
            Err(e) if comes_back(&e) => {
                if !away {
                    note(&format!("mesh: {e}; trying again until it works"));
                }
                away = true;
                continue;
            }
            Err(e) => return Err(failed(&e)),
        }
        away = false;
    }
    match client.change(&Request::Deregister { service, id }).await {
        Ok(changed) => print(&format!("{}\n", harmless_lines(&changed.message))),
        // What was to be done is done.
        Err(ClientError::Refused { kind, .. }) if kind == "not_found" => Ok(()),
        Err(e) => Err(failed(&e)),
    }
}

fn comes_back(e: &ClientError) -> bool {
    e.is_unreachable() || matches!(e, ClientError::Refused { kind, .. } if kind == "unavailable")
}

/// What tells this process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
