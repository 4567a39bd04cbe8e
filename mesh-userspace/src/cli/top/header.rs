//! What is said above the table: of the daemon as a whole, and of what is wrong.

use super::{
    rows::{ServiceRates, several},
    state::State,
};
use crate::{
    api::{Mode, Source, Status, Time},
    cli::{
        output::Look,
        units::{duration, rate, short},
    },
};
use std::time::Duration;

/// Words with a look.
pub(super) type Part = (Look, String);

/// The first line: which daemon, and whether it works.
pub(super) fn daemon(status: &Status) -> Vec<Part> {
    let interception = match status.interception_ok {
        Some(true) => (Look::Good, "interception works"),
        Some(false) => (Look::Bad, "interception BROKEN"),
        None => (Look::Faint, "interception not probed"),
    };
    vec![
        (Look::Bold, status.node.clone()),
        (Look::Plain, format!("mesh {}", status.version)),
        (if status.mode == Mode::Ebpf { Look::Plain } else { Look::Warn }, status.mode.word().to_owned()),
        (Look::Plain, format!("up {}", duration(Duration::from_secs(status.uptime_s)))),
        (interception.0, interception.1.to_owned()),
        if status.bypass { (Look::Bad, "bypass ON".to_owned()) } else { (Look::Plain, "bypass off".to_owned()) },
    ]
}

/// The second line: what all services do together, and how many there are.
pub(super) fn totals(state: &State, status: &Status) -> Vec<Part> {
    let mut sum = None::<ServiceRates>;
    for rates in state.services.rows().iter().filter_map(|row| row.rates) {
        let all = sum.get_or_insert_default();
        all.requests += rates.requests;
        all.connections += rates.connections;
        all.sent += rates.sent;
        all.received += rates.received;
    }
    let shown = |rate: fn(&ServiceRates) -> String| sum.as_ref().map_or_else(|| "-".to_owned(), rate);
    [
        several(status.connections, "connection"),
        format!("req/s {}", shown(|sum| short(sum.requests))),
        format!("conn/s {}", shown(|sum| short(sum.connections))),
        format!("sent {}", shown(|sum| rate(sum.sent))),
        format!("recv {}", shown(|sum| rate(sum.received))),
        several(status.services, "service"),
        several(status.endpoints, "endpoint"),
    ]
    .map(|text| (Look::Plain, text))
    .into()
}

/// What is wrong, the worst first: a line each.
pub(super) fn notices(state: &State) -> Vec<Part> {
    let mut notices = Vec::new();
    if let Some(failure) = &state.failure {
        let since = duration(failure.since.age(failure.now));
        let text = format!("NO ANSWER since {} ({since}), trying again: {}", clock(failure.since), failure.why);
        notices.push((Look::Bad, text));
    }
    let Some(status) = &state.status else { return notices };
    notices.extend(
        status.sources.iter().filter_map(|source| trouble(source, state.answered)).map(|text| (Look::Bad, text)),
    );
    if let Some(proxy) = status.proxy.as_ref().filter(|proxy| !proxy.workers_ok) {
        notices.push((Look::Bad, format!("not all of the {} workers live", proxy.workers)));
    }
    if let Some(error) = &status.config.error {
        notices.push((Look::Warn, format!("the last load of the configuration was refused: {error}")));
    }
    notices.extend(status.warnings.iter().map(|warning| (Look::Warn, warning.clone())));
    notices
}

/// What is wrong with a source.
fn trouble(source: &Source, now: Option<Time>) -> Option<String> {
    let why = source.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match (source.synced, source.stale_since) {
        (false, _) => Some(format!("source {} has not synced{why}", source.name)),
        (true, Some(since)) => {
            let time = now.map(|now| format!(" ({})", duration(since.age(now)))).unwrap_or_default();
            Some(format!("source {} out of touch since {}{time}{why}", source.name, clock(since)))
        }
        // That of the configuration files is said of the configuration.
        (true, None) => None,
    }
}

/// The time of day in UTC: `12:00:00Z`.
pub(super) fn clock(time: Time) -> String {
    let text = time.to_string();
    let time_of_day = text.split_once('T').map_or("", |(_, time)| time);
    format!("{}Z", time_of_day.split_once('.').map_or(time_of_day, |(seconds, _)| seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn the_time_of_day_is_in_utc() {
        assert_eq!(clock(sample::noon()), "12:00:00Z");
    }

    #[test]
    fn a_source_says_what_is_wrong_with_it() {
        let source = |synced, error: Option<&str>, stale_since| Source {
            name: "kubernetes".to_owned(),
            synced,
            last_update: None,
            error: error.map(str::to_owned),
            stale_since,
        };
        let later = sample::noon().after(Duration::from_secs(90));
        let told = |source: &Source| trouble(source, Some(later));
        assert_eq!(told(&source(true, None, None)), None);
        assert_eq!(told(&source(false, Some("no route"), None)).unwrap(), "source kubernetes has not synced: no route");
        assert_eq!(
            told(&source(true, None, Some(sample::noon()))).unwrap(),
            "source kubernetes out of touch since 12:00:00Z (1m 30s)"
        );
    }
}
