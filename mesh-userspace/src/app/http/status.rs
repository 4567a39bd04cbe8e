//! How the proxy is: whether its workers live, and where it can be reached.

use super::{Http, now};
use crate::api::{HealthComponent, ProxyStatus};
use std::{net::SocketAddr, time::Duration};

impl Http {
    /// Whether there are workers.
    pub(in crate::app) fn runs(&self) -> bool {
        self.workers.get().is_some()
    }

    /// From now on this is where the explicit proxy listens, or why it does not.
    pub(super) fn is_at(&self, place: Result<SocketAddr, String>) {
        // It is set once: the daemon starts once.
        let _ = self.place.set(place);
    }

    /// Where the explicit proxy listens.
    ///
    /// # Errors
    /// Why it does not.
    pub(in crate::app) fn place(&self) -> Result<SocketAddr, &str> {
        match self.place.get() {
            Some(Ok(address)) => Ok(*address),
            Some(Err(why)) => Err(why),
            None => Err(OFF),
        }
    }

    /// How requests get here where no connection is intercepted, in words.
    pub(in crate::app) fn reached(&self) -> String {
        match self.place() {
            Ok(address) => format!("only requests by way of proxy.http {address} reach it"),
            Err(why) => format!("nor is there an explicit proxy: {why}"),
        }
    }

    /// Whether all workers live.
    ///
    /// # Errors
    /// Why they do not.
    pub(in crate::app) fn liveness(&self) -> Result<(), String> {
        if !self.runs() {
            return Err("the workers of the proxy have not started".to_owned());
        }
        liveness(self.shared.oldest_beat(), now() / 1_000_000, self.silence)
    }

    /// The workers and the explicit proxy as components of `/health`.
    pub(in crate::app) fn health(&self) -> [(&'static str, HealthComponent); 2] {
        let workers = self.liveness();
        let detail = workers.clone().err().unwrap_or_else(|| {
            let (count, connections) = (self.count, self.shared.connections());
            format!("{count} live, with {connections} connections of clients")
        });
        let explicit = match self.place() {
            Ok(address) => (true, format!("listens on {address}")),
            // Whoever switched it off knows.
            Err(why) => (why == OFF, why.to_owned()),
        };
        let component = |ok, detail| HealthComponent { ok, detail: Some(detail) };
        [("workers", component(workers.is_ok(), detail)), ("explicit_proxy", component(explicit.0, explicit.1))]
    }

    /// The proxy in `mesh status`.
    pub(in crate::app) fn status(&self) -> ProxyStatus {
        let place = self.place();
        ProxyStatus {
            http: place.ok(),
            http_error: place.err().filter(|why| *why != OFF).map(str::to_owned),
            workers: self.count as u64,
            workers_ok: self.liveness().is_ok(),
            connections: self.shared.connections() as u64,
        }
    }
}

/// Why there is no explicit proxy where nobody wants one.
const OFF: &str = "proxy.http is off";

/// Whether workers live of which the oldest sign of life is `beat` (milliseconds of the clock of `now`; 0: one has given
/// none).
fn liveness(beat: u64, now: u64, silence: Duration) -> Result<(), String> {
    let silent = Duration::from_millis(now.saturating_sub(beat));
    match beat {
        0 => Err("a worker of the proxy has not begun".to_owned()),
        _ if silent > silence => {
            let (silent, limit) = (silent.as_secs_f64(), silence.as_secs_f64());
            Err(format!("a worker of the proxy is silent for {silent:.1} s; dataplane.heartbeat_timeout is {limit} s"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_live_while_the_oldest_sign_of_life_is_young() {
        let silence = Duration::from_secs(3);
        assert_eq!(liveness(10_000, 13_000, silence), Ok(()));
        assert_eq!(liveness(10_000, 9_000, silence), Ok(()), "clocks of threads differ a little");
        assert!(liveness(10_000, 13_001, silence).unwrap_err().contains("silent for 3.0 s"));
        assert!(liveness(0, 1, silence).unwrap_err().contains("not begun"));
    }
}
