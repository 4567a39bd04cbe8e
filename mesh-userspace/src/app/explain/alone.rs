//! What becomes of connections to an HTTP service that the daemon's workers do not take.

use super::Verdict;
use crate::{
    api::Decision,
    model::{Service, WhenDown},
};
use mesh_common::{reason::Reason, settings::Settings};
use std::time::Duration;

/// Why the hooks send nobody to the workers at `now`, as `settings` tell them; `None`: they do.
pub(super) fn silence(settings: &Settings, now: u64) -> Option<String> {
    if settings.takes_connections(now) {
        return None;
    }
    let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
    Some(match settings.workers {
        0 => "no worker of the daemon has begun".to_owned(),
        workers => format!(
            "a worker of the daemon is silent for {:.1} s (dataplane.heartbeat_timeout is {:.1} s)",
            seconds(now.saturating_sub(workers)),
            seconds(settings.heartbeat_timeout)
        ),
    })
}

/// The verdict on a connection to `service` that goes past the daemon because of this `silence`, where the kernel's tables
/// alone would give `direct`.
pub(super) fn past(service: &Service, silence: &str, direct: Verdict) -> Verdict {
    let reason = Some(Reason::DaemonDown.word());
    match service.settings.http.when_daemon_down {
        WhenDown::Refuse => Verdict {
            decision: Decision::Refused,
            reason: Some(Reason::DaemonDownRefused.word()),
            sentence: format!("refused at once with ECONNREFUSED: {silence}, and when_daemon_down is refuse"),
            route: None,
            parts: Vec::new(),
        },
        WhenDown::Direct if direct.decision == Decision::Forwarded => {
            let sentence = format!("{}\npast the daemon and its routes: {silence}", direct.sentence);
            Verdict { reason, sentence, ..direct }
        }
        WhenDown::Direct => direct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Http, Protocol, Settings as ServiceSettings, tests::service as plain};
    use std::{collections::BTreeMap, sync::Arc};

    const SECOND: u64 = 1_000_000_000;

    fn service(when_daemon_down: WhenDown) -> Arc<Service> {
        let settings = ServiceSettings { http: Http { when_daemon_down, ..Http::default() }, ..Default::default() };
        Arc::new(Service { protocol: Protocol::Http, settings: Arc::new(settings), ..plain("web", &[]) })
    }

    #[test]
    fn workers_are_silent_from_the_moment_that_the_hooks_find_them_so() {
        let settings = Settings {
            workers: 10 * SECOND,
            heartbeat_timeout: 3 * SECOND,
            heartbeat: 20 * SECOND,
            ..Default::default()
        };
        assert_eq!(silence(&settings, 13 * SECOND), None);
        let silent = silence(&settings, 13 * SECOND + 1).unwrap();
        assert_eq!(silent, "a worker of the daemon is silent for 3.0 s (dataplane.heartbeat_timeout is 3.0 s)");
        let begun = silence(&Settings { workers: 0, ..settings }, SECOND).unwrap();
        assert_eq!(begun, "no worker of the daemon has begun");
    }

    #[test]
    fn a_connection_past_silent_workers_goes_straight_or_is_refused_as_the_service_says() {
        let direct = |service: &Arc<Service>| Verdict::forwarded(service, BTreeMap::new());
        let service_direct = service(WhenDown::Direct);
        let verdict = past(&service_direct, "it sleeps", direct(&service_direct));
        assert_eq!((verdict.decision, verdict.reason), (Decision::Forwarded, Some("daemon_down")));
        assert!(verdict.sentence.ends_with("\npast the daemon and its routes: it sleeps"), "{}", verdict.sentence);
        let refused = past(&service_direct, "it sleeps", Verdict::refused(Reason::CircuitOpen));
        assert_eq!((refused.decision, refused.reason), (Decision::Refused, Some("circuit_open")));
        let service_refuse = service(WhenDown::Refuse);
        let verdict = past(&service_refuse, "it sleeps", direct(&service_refuse));
        assert_eq!((verdict.decision, verdict.reason), (Decision::Refused, Some("daemon_down")));
        assert!(verdict.sentence.contains("it sleeps, and when_daemon_down is refuse"));
    }
}
