//! What holds for a service besides its endpoints, as words of its row.

use crate::model::{Service, WhenDown};
use mesh_common::{
    breaker::Limits,
    service::{ServiceRow, flags},
};
use std::time::Duration;

/// After how long a probe is given up where connects have no time limit.
const LEASE: Duration = Duration::from_secs(10);

/// The row of a service without name and views.
pub(super) fn terms(service: &Service) -> ServiceRow {
    let settings = &service.settings;
    let breaker = &settings.breaker;
    let in_selection = service.endpoints.iter().filter(|e| e.is_in_selection()).count() as u64;
    let timeout = settings.connect_timeout;
    // A little longer than the probe's own connect may take, and over before the circuit can be half-open again.
    let lease = if timeout.is_zero() { LEASE } else { timeout * 6 / 5 };
    let limits = Limits {
        failure_threshold: breaker.failure_threshold,
        half_open: breaker.half_open_requests.clamp(1, 31),
        reset_ms: ms(breaker.reset_timeout),
        max_reset_ms: ms(breaker.max_reset_timeout.max(breaker.reset_timeout)),
        lease_ms: ms(lease.min(breaker.reset_timeout * 9 / 10)),
        probe_interval_ms: ms(breaker.probe_interval),
        max_open: u32::try_from(in_selection * u64::from(breaker.max_open_percent) / 100).unwrap_or(u32::MAX).max(1),
        endpoints: u32::try_from(service.endpoints.len()).unwrap_or(u32::MAX),
    };
    ServiceRow {
        limits,
        connect_timeout_ms: if timeout.is_zero() { 0 } else { ms(timeout) },
        affinity_ms: if settings.affinity.is_zero() { 0 } else { ms(settings.affinity) },
        flags: flags_of(service),
        ..ServiceRow::default()
    }
}

fn flags_of(service: &Service) -> u64 {
    let tripped = service.endpoints.iter().any(|e| e.tripped);
    let proxied = service.protocol.is_proxied();
    let refuses = proxied && service.settings.http.when_daemon_down == WhenDown::Refuse;
    let set = [
        (tripped, flags::TRIPPED),
        (proxied, flags::PROXIED),
        (refuses, flags::REFUSE_ALONE),
        (service.settings.same_family, flags::SAME_FAMILY),
    ];
    set.into_iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag)
}

/// Milliseconds, at least one: no time at all would mean something else.
fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Policy, Protocol};
    use std::sync::Arc;

    fn service(endpoints: usize) -> Service {
        let endpoint = |n| Endpoint::new(std::net::SocketAddr::from(([10, 0, 0, 1], n)));
        Service {
            name: "web".to_owned(),
            addresses: Vec::new(),
            hosts: Vec::new(),
            routes: std::sync::Arc::default(),
            protocol: Protocol::Tcp,
            policy: Policy::RoundRobin,
            settings: Arc::default(),
            endpoints: (1..=endpoints).map(|n| endpoint(u16::try_from(n).unwrap())).collect(),
        }
    }

    #[test]
    fn half_of_the_endpoints_may_be_open_and_always_one() {
        let most = |n| terms(&service(n)).limits.max_open;
        assert_eq!([0, 1, 2, 3, 4, 9].map(most), [1, 1, 1, 1, 2, 4]);
        let mut drained = service(4);
        drained.endpoints[0].draining = true;
        drained.endpoints[1].tripped = true;
        let row = terms(&drained);
        assert_eq!((row.limits.max_open, row.limits.endpoints, row.flags), (1, 4, flags::TRIPPED));
    }

    #[test]
    fn only_a_service_that_goes_through_the_daemon_can_be_refused_without_it() {
        let mut web = service(1);
        let refuse = |web: &mut Service| Arc::make_mut(&mut web.settings).http.when_daemon_down = WhenDown::Refuse;
        refuse(&mut web);
        assert_eq!(terms(&web).flags, 0);
        web.protocol = Protocol::Grpc;
        assert_eq!(terms(&web).flags, flags::PROXIED | flags::REFUSE_ALONE);
        web.settings = Arc::default();
        assert_eq!(terms(&web).flags, flags::PROXIED);
    }

    #[test]
    fn a_probe_is_given_up_after_its_connect_has_timed_out_and_before_the_next_half_open_time() {
        let mut web = service(1);
        assert_eq!(terms(&web).limits.lease_ms, 1200);
        Arc::make_mut(&mut web.settings).breaker.reset_timeout = Duration::from_secs(1);
        assert_eq!(terms(&web).limits.lease_ms, 900);
        Arc::make_mut(&mut web.settings).connect_timeout = Duration::ZERO;
        assert_eq!((terms(&web).limits.lease_ms, terms(&web).connect_timeout_ms), (900, 0));
    }
}
