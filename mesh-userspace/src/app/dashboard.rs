//! The node live, for all who look at it: a picture a second, made once, and none while nobody looks.

use super::{
    answer,
    counts::Counts,
    daemon::{Daemon, State},
    secrets::Secrets,
    transitions::Circuits,
};
use crate::{
    api::{self, Live, LiveEndpoint, LiveService, Percentiles, Rates, Time, Totals},
    kernel,
    model::Service,
    proxy::DURATION_BOUNDS,
    telemetry::rates::{Counted, Window, percentiles},
};
use mesh_common::histogram::{self, FINITE};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// From one picture to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Making pictures may take one part in so many of a processor's time: with very many endpoints they come less often.
const SHARE: u32 = 20;
/// Endpoints in a picture. Each is some 800 bytes of the first one that a viewer gets.
const MOST_ENDPOINTS: usize = 5000;
/// How far percentiles reach back, at least; at most twice as far.
const LATELY: Duration = Duration::from_secs(10);

/// Requests or responses, those with 5xx, connections, failed connects, bytes sent, bytes received.
type Counters = Counted<6>;
/// Buckets of the kernel's histograms.
type Connects = [u64; FINITE + 1];
/// Buckets of the proxy's.
type Requests = [u64; DURATION_BOUNDS.len() + 1];

/// What was counted up to the picture before.
#[derive(Debug, Default)]
struct Before {
    at: Option<Instant>,
    services: HashMap<String, ServiceBefore>,
}

#[derive(Debug)]
struct ServiceBefore {
    counted: Counters,
    requests: Window<{ DURATION_BOUNDS.len() + 1 }>,
    connects: Window<{ FINITE + 1 }>,
    endpoints: HashMap<SocketAddr, EndpointBefore>,
}

#[derive(Debug)]
struct EndpointBefore {
    counted: Counters,
    connects: Window<{ FINITE + 1 }>,
}

/// Makes pictures while somebody looks; for ever.
pub(super) async fn follow(daemon: Arc<Daemon>) {
    loop {
        daemon.screen.watched().await;
        let mut before = Before::default();
        while daemon.screen.is_watched() {
            let begun = Instant::now();
            let looker = Arc::clone(&daemon);
            let look = move || {
                looker.screen.show(looker.live(&mut before));
                before
            };
            // The state may be in use for a while. A look that fails leaves nothing to compare the next one with.
            before = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            sleep(pause(begun.elapsed())).await;
        }
        daemon.screen.clear();
        drop(before);
        kernel::give_back_memory();
    }
}

/// How long to rest after a picture that took so long to make.
fn pause(took: Duration) -> Duration {
    EVERY.saturating_sub(took).max(took * (SHARE - 1))
}

impl Daemon {
    /// The whole node now, compared with what was `before`.
    fn live(&self, before: &mut Before) -> Live {
        // They lock the state themselves.
        let (mut status, ready) = (self.status(), self.readiness());
        Secrets::default().clean_status(&mut status);
        self.count_live();
        let state = self.state();
        let now = Instant::now();
        let look = Look {
            daemon: self,
            state: &state,
            counts: Counts::new(self, &state),
            circuits: Circuits::new(self, &state),
            elapsed: before.at.map(|at| now.duration_since(at)),
            now: self.started.elapsed(),
        };
        let mut was = std::mem::take(&mut before.services);
        let (mut services, mut endpoints, mut left_out) = (Vec::new(), Vec::new(), 0);
        for service in look.state.snapshot.services() {
            let fits = endpoints.len() + service.endpoints.len() <= MOST_ENDPOINTS;
            let known = was.remove(&service.name);
            let (live, own, known) = look.service(service, fits, known);
            left_out += if fits { 0 } else { service.endpoints.len() as u64 };
            services.push(live);
            endpoints.extend(own);
            before.services.insert(service.name.clone(), known);
        }
        before.at = Some(now);
        let totals = totals(&services, look.elapsed.is_some());
        Live { time: Time::now(), status, ready, totals, services, endpoints, endpoints_left_out: left_out }
    }
}

/// One look at everything.
struct Look<'a> {
    daemon: &'a Daemon,
    state: &'a State,
    counts: Counts<'a>,
    circuits: Circuits<'a>,
    /// Since the look before, if there was one.
    elapsed: Option<Duration>,
    /// On the daemon's clock.
    now: Duration,
}

impl Look<'_> {
    /// A service, its endpoints if they fit, and what to compare the next look with.
    fn service(
        &self,
        service: &Service,
        fits: bool,
        before: Option<ServiceBefore>,
    ) -> (LiveService, Vec<LiveEndpoint>, ServiceBefore) {
        let row = self.daemon.service(service, &self.counts, &self.circuits);
        let counted = Counted([
            row.requests_total,
            row.responses_5xx_total,
            row.connections_total,
            row.connect_failures_total,
            row.sent_bytes_total,
            row.received_bytes_total,
        ]);
        let durations = self.counts.requests(&service.name).map(|s| s.state().durations.read().0);
        let durations = durations.unwrap_or_default();
        let (was, requests, connects, mut known) = match before {
            Some(ServiceBefore { counted, requests, connects, endpoints }) => {
                (Some(counted), Some(requests), Some(connects), endpoints)
            }
            None => (None, None, None, HashMap::new()),
        };
        let mut together: Connects = [0; FINITE + 1];
        let (mut endpoints, mut next) = (Vec::new(), HashMap::new());
        for endpoint in service.endpoints.iter().filter(|_| fits) {
            let times = self.counts.times(&service.name, endpoint.address);
            let row = answer::endpoint(service, endpoint, &self.counts, &self.circuits, &times);
            for (sum, count) in together.iter_mut().zip(&times.connect.buckets) {
                *sum += count;
            }
            let (live, own) = self.endpoint(row, &times.connect.buckets, known.remove(&endpoint.address));
            next.insert(endpoint.address, own);
            endpoints.push(live);
        }
        let mut requests = requests.unwrap_or_else(|| Window::new(durations, self.now));
        let mut connects = connects.unwrap_or_else(|| Window::new(together, self.now));
        let live = LiveService {
            service: row,
            rates: self.rates(&counted, was.as_ref()),
            request_percentiles: self.of_requests(&mut requests, &durations),
            connect_percentiles: self.of_connects(&mut connects, &together),
        };
        (live, endpoints, ServiceBefore { counted, requests, connects, endpoints: next })
    }

    fn endpoint(
        &self,
        row: api::Endpoint,
        connects: &Connects,
        before: Option<EndpointBefore>,
    ) -> (LiveEndpoint, EndpointBefore) {
        let counted = Counted([
            row.responses_total,
            row.responses_5xx_total,
            row.connections_total,
            row.connect_failures_total,
            row.sent_bytes_total,
            row.received_bytes_total,
        ]);
        let rates = self.rates(&counted, before.as_ref().map(|before| &before.counted));
        let mut window = before.map_or_else(|| Window::new(*connects, self.now), |before| before.connects);
        let connect_percentiles = self.of_connects(&mut window, connects);
        (LiveEndpoint { endpoint: row, rates, connect_percentiles }, EndpointBefore { counted, connects: window })
    }

    fn rates(&self, now: &Counters, before: Option<&Counters>) -> Rates {
        let rates = self.elapsed.zip(before).and_then(|(elapsed, before)| now.rates_since(before, elapsed));
        let [requests, responses_5xx, connections, connect_failures, sent, received] =
            rates.map_or([None; 6], |rates| rates.map(Some));
        Rates {
            requests_per_s: requests,
            responses_5xx_per_s: responses_5xx,
            connections_per_s: connections,
            connect_failures_per_s: connect_failures,
            sent_bytes_per_s: sent,
            received_bytes_per_s: received,
        }
    }

    fn of_requests(&self, window: &mut Window<{ DURATION_BOUNDS.len() + 1 }>, now: &Requests) -> Option<Percentiles> {
        told(percentiles(window.begin(now, self.now, LATELY), now, |at| DURATION_BOUNDS[at]))
    }

    fn of_connects(&self, window: &mut Window<{ FINITE + 1 }>, now: &Connects) -> Option<Percentiles> {
        told(percentiles(window.begin(now, self.now, LATELY), now, histogram::bound_us))
    }
}

fn told(percentiles: Option<[f64; 3]>) -> Option<Percentiles> {
    percentiles.map(|[p50_ms, p90_ms, p99_ms]| Percentiles { p50_ms, p90_ms, p99_ms })
}

/// All services together. Rates are sums of theirs, so that a service that comes or goes is no peak.
fn totals(services: &[LiveService], compared: bool) -> Totals {
    let rate = |value: fn(&Rates) -> Option<f64>| {
        let sum: f64 = services.iter().filter_map(|s| value(&s.rates)).sum();
        compared.then(|| (sum * 10.0).round() / 10.0)
    };
    let sum = |value: fn(&api::Service) -> u64| services.iter().map(|s| value(&s.service)).sum();
    Totals {
        rates: Rates {
            requests_per_s: rate(|r| r.requests_per_s),
            responses_5xx_per_s: rate(|r| r.responses_5xx_per_s),
            connections_per_s: rate(|r| r.connections_per_s),
            connect_failures_per_s: rate(|r| r.connect_failures_per_s),
            sent_bytes_per_s: rate(|r| r.sent_bytes_per_s),
            received_bytes_per_s: rate(|r| r.received_bytes_per_s),
        },
        requests_total: sum(|s| s.requests_total),
        responses_5xx_total: sum(|s| s.responses_5xx_total),
        connections_total: sum(|s| s.connections_total),
        connect_failures_total: sum(|s| s.connect_failures_total),
        sent_bytes_total: sum(|s| s.sent_bytes_total),
        received_bytes_total: sum(|s| s.received_bytes_total),
        active_requests: sum(|s| s.active_requests),
        active_connections: sum(|s| s.active_connections),
        open_circuits: sum(|s| s.endpoints.open),
        unhealthy: sum(|s| s.endpoints.total - s.endpoints.healthy),
        draining: sum(|s| s.endpoints.draining),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_take_a_twentieth_of_a_processor_at_most() {
        assert_eq!(pause(Duration::from_millis(2)), Duration::from_millis(998));
        assert_eq!(pause(Duration::from_millis(50)), Duration::from_millis(950));
        assert_eq!(pause(Duration::from_millis(300)), Duration::from_millis(5700));
    }
}
