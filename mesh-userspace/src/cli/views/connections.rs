//! `mesh connections`.

use crate::{
    api::ConnectionClient,
    cli::{
        output::Style,
        rates::Rated,
        table::{Field, Table},
        units::{bytes, count, duration, milliseconds, nanoseconds, rate},
    },
};
use std::time::Duration;

/// Live connections, with what they carry a second where they are watched.
pub(in crate::cli) fn connections(connections: &[Rated], style: Style) -> String {
    let watched = connections.iter().any(|rated| rated.rates.is_some());
    let mut titles = vec![
        "SERVICE",
        "ENDPOINT",
        "CLIENT",
        "PROCESS",
        "CGROUP",
        ">NETNS",
        "DIALLED",
        "STATE",
        ">SENT",
        ">RECEIVED",
        ">RTT",
        ">RETRANSMITS",
        ">AGE",
    ];
    if watched {
        let after_received = 10;
        titles.splice(after_received..after_received, [">SENT/S", ">RECEIVED/S"]);
    }
    let mut table = Table::new(&titles);
    for Rated { connection, rates } in connections {
        let client = &connection.client;
        let rtt = connection.rtt_us.map(|us| nanoseconds(us.saturating_mul(1000)));
        let second = |value: Option<f64>| Field::new(value.map(rate).unwrap_or_default());
        let rates = rates.as_ref().map(|rates| [second(rates.sent), second(rates.received)]);
        let first = [
            Field::new(connection.service.as_deref().unwrap_or_default()),
            Field::new(connection.endpoint.to_string()),
            Field::new(client.address.map(|address| address.to_string()).unwrap_or_default()),
            Field::new(process(client)),
            Field::new(client.pod.as_deref().or(client.cgroup.as_deref()).unwrap_or_default()),
            Field::new(client.netns.map(|netns| netns.to_string()).unwrap_or_default()),
            Field::new(connection.original_destination.to_string()),
            Field::new(&connection.state),
            Field::new(bytes(connection.sent_bytes)),
            Field::new(bytes(connection.received_bytes)),
        ];
        let last = [
            Field::new(rtt.unwrap_or_default()),
            Field::new(count(connection.retransmits)),
            Field::new(age(connection.age_ms)),
        ];
        table.row(first.into_iter().chain(rates.into_iter().flatten()).chain(last));
    }
    table.render(style, 0)
}

/// Who dialled: `curl[4711]`.
pub(in crate::cli) fn process(client: &ConnectionClient) -> String {
    match (&client.command, client.pid) {
        (Some(command), Some(pid)) => format!("{command}[{pid}]"),
        (Some(command), None) => command.clone(),
        (None, pid) => pid.map(|pid| pid.to_string()).unwrap_or_default(),
    }
}

/// `120 ms`, `1m 1s`.
pub(in crate::cli) fn age(ms: f64) -> String {
    if ms < 1000.0 {
        return milliseconds(ms);
    }
    Duration::try_from_secs_f64(ms / 1000.0).map(duration).unwrap_or_default()
}
