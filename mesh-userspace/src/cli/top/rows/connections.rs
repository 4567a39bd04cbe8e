//! Connections.

use super::{bytes_a_second, numbers, words};
use crate::{
    api::Connection,
    cli::{
        output::Look,
        rates::{Rated, Rates},
        top::column::{Cell, Column, Kind, Row, Value},
        units::{approximate, bytes, milliseconds, nanoseconds, short},
        views::{age, process},
    },
};
use std::net::SocketAddr;

/// A connection, and what it carries.
#[derive(Clone, Debug)]
pub(in crate::cli::top) struct ConnectionRow {
    connection: Connection,
    rates: Option<Rates>,
    process: String,
}

impl From<Rated> for ConnectionRow {
    fn from(Rated { connection, rates }: Rated) -> Self {
        Self { process: process(&connection.client), connection, rates }
    }
}

impl ConnectionRow {
    fn sent(&self) -> Option<f64> {
        self.rates?.sent
    }

    fn received(&self) -> Option<f64> {
        self.rates?.received
    }

    /// Where the process runs: its pod, else its cgroup.
    fn place(&self) -> &str {
        let client = &self.connection.client;
        client.pod.as_deref().or(client.cgroup.as_deref()).unwrap_or_default()
    }

    fn state(&self) -> Cell {
        let look = if self.connection.state == "established" { Look::Plain } else { Look::Warn };
        Cell::new(look, &self.connection.state)
    }
}

impl Row for ConnectionRow {
    /// Namespace and both ends, and who dialled: ends are used again.
    type Id = (Option<u64>, Option<SocketAddr>, SocketAddr, Option<u32>);

    const COLUMNS: &'static [Column<Self>] = &[
        words("PROCESS", (12, 26), 0, |row, _| Cell::plain(&row.process), |row| Value::Text(&row.process)),
        Column {
            title: "CGROUP",
            least: 12,
            most: 50,
            rank: 9,
            kind: Kind::Path,
            cell: |row, _| Cell::plain(row.place()),
            value: |row| Value::Text(row.place()),
            applies: |row| !row.place().is_empty(),
        },
        words(
            "SERVICE",
            (9, 40),
            1,
            |row, _| Cell::plain(row.connection.service.as_deref().unwrap_or_default()),
            |row| Value::Text(row.connection.service.as_deref().unwrap_or_default()),
        ),
        words(
            "ENDPOINT",
            (14, 47),
            2,
            |row, _| Cell::plain(row.connection.endpoint.to_string()),
            |row| Value::Address(Some(row.connection.endpoint)),
        ),
        words(
            "PATH",
            (7, 7),
            12,
            |row, _| Cell::plain(row.connection.path.word()),
            |row| Value::Text(row.connection.path.word()),
        ),
        words("STATE", (11, 11), 8, |row, _| row.state(), |row| Value::Text(&row.connection.state)),
        numbers("SENT/S", 8, 4, |row, _| bytes_a_second(row.sent()), |row| Value::Number(row.sent())),
        numbers("RECV/S", 8, 3, |row, _| bytes_a_second(row.received()), |row| Value::Number(row.received())),
        numbers(
            "SENT",
            8,
            11,
            |row, _| Cell::plain(bytes(row.connection.sent_bytes)),
            |row| Value::Number(Some(approximate(row.connection.sent_bytes))),
        ),
        numbers(
            "RECV",
            8,
            10,
            |row, _| Cell::plain(bytes(row.connection.received_bytes)),
            |row| Value::Number(Some(approximate(row.connection.received_bytes))),
        ),
        numbers(
            "RTT",
            7,
            5,
            |row, _| {
                let rtt = row.connection.rtt_us.map(|us| nanoseconds(us.saturating_mul(1000)));
                Cell::plain(rtt.unwrap_or_default())
            },
            |row| Value::Number(row.connection.rtt_us.map(approximate)),
        ),
        numbers(
            "RETR",
            5,
            7,
            |row, _| match row.connection.retransmits {
                0 => Cell::new(Look::Faint, "0"),
                retransmits => Cell::new(Look::Warn, short(approximate(retransmits))),
            },
            |row| Value::Number(Some(approximate(row.connection.retransmits))),
        ),
        numbers(
            "AGE",
            7,
            6,
            |row, _| Cell::plain(age(row.connection.age_ms)),
            |row| Value::Number(Some(row.connection.age_ms)),
        ),
    ];

    fn id(&self) -> Self::Id {
        let Connection { client, endpoint, .. } = &self.connection;
        (client.netns, client.address, *endpoint, client.pid)
    }

    fn words(&self) -> String {
        let Connection { service, endpoint, client, original_destination, path, state, .. } = &self.connection;
        let client = client.address.map(|address| address.to_string()).unwrap_or_default();
        let service = service.as_deref().unwrap_or_default();
        format!("{} {} {client} {original_destination} {service} {endpoint} {path} {state}", self.process, self.place())
    }

    fn details(&self) -> [String; 2] {
        let c = &self.connection;
        let mut first = if self.process.is_empty() { "unknown process".to_owned() } else { self.process.clone() };
        for (what, place) in [("pod", &c.client.pod), ("cgroup", &c.client.cgroup)] {
            if let Some(place) = place {
                first.push_str(&format!(", {what} {place}"));
            }
        }
        if let Some(netns) = c.client.netns {
            first.push_str(&format!(", netns {netns}"));
        }
        let from = c.client.address.map_or_else(|| "not bound yet".to_owned(), |address| address.to_string());
        let mut second = format!("{from} → {} → {} ({}, {})", c.original_destination, c.endpoint, c.path, c.state);
        second.push_str(&format!(", {} sent, {} received", bytes(c.sent_bytes), bytes(c.received_bytes)));
        if let Some(ms) = c.connect_ms {
            second.push_str(&format!(", connected in {}", milliseconds(ms)));
        }
        if c.attempt > 1 {
            second.push_str(&format!(", attempt {}", c.attempt));
        }
        [first, second]
    }
}
