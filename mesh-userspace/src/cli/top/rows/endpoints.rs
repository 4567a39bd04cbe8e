//! Endpoints.

use super::{a_second, bytes_a_second, circuit, health, numbers, several, time, trouble_a_second, words};
use crate::{
    api::{CircuitState, Endpoint, EndpointHealth},
    cli::{
        output::Look,
        top::column::{Cell, Column, Row, Value},
        units::{approximate, bytes, count, short},
        views::by_reason,
    },
};
use std::net::SocketAddr;

/// An endpoint, and what it does.
#[derive(Clone, Debug)]
pub(in crate::cli::top) struct EndpointRow {
    pub(in crate::cli::top) endpoint: Endpoint,
    /// What it did a second since the look before.
    pub(in crate::cli::top) rates: Option<EndpointRates>,
}

/// What is counted of an endpoint a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cli::top) struct EndpointRates {
    requests: f64,
    connections: f64,
    sent: f64,
    received: f64,
    failures: f64,
    retransmits: f64,
}

impl EndpointRates {
    /// The totals that these are the rates of, in their order.
    pub(in crate::cli::top) fn totals(endpoint: &Endpoint) -> [u64; 6] {
        [
            endpoint.responses_total,
            endpoint.connections_total,
            endpoint.sent_bytes_total,
            endpoint.received_bytes_total,
            // Connects that failed, answers with a status of 500 or more.
            endpoint.connect_failures_total.saturating_add(endpoint.responses_5xx_total),
            // Where nobody counts them none are shown.
            endpoint.retransmits_total.unwrap_or_default(),
        ]
    }
}

impl From<[f64; 6]> for EndpointRates {
    fn from([requests, connections, sent, received, failures, retransmits]: [f64; 6]) -> Self {
        Self { requests, connections, sent, received, failures, retransmits }
    }
}

impl EndpointRow {
    fn rate(&self, rate: fn(&EndpointRates) -> f64) -> Option<f64> {
        self.rates.as_ref().map(rate)
    }

    /// Segments sent again a second; `None` also where nobody counts them.
    fn retransmits(&self) -> Option<f64> {
        self.endpoint.retransmits_total.and_then(|_| self.rate(|rates| rates.retransmits))
    }

    /// Whether requests go to it, as far as it shows.
    fn sees_requests(&self) -> bool {
        let Endpoint { responses_total, active_requests, latency_ewma_ms, .. } = &self.endpoint;
        *responses_total > 0 || *active_requests > 0 || latency_ewma_ms.is_some()
    }

    /// What checks say of it, unless it is out of selection whatever they say.
    fn health(&self) -> Cell {
        if self.endpoint.draining { Cell::new(Look::Warn, "draining") } else { health(self.endpoint.health) }
    }

    /// The worst is the least.
    fn fitness(&self) -> f64 {
        match (self.endpoint.health, self.endpoint.draining) {
            (EndpointHealth::Unhealthy, _) => 0.0,
            (_, true) => 1.0,
            (EndpointHealth::Unknown, _) => 2.0,
            (EndpointHealth::Healthy, _) => 3.0,
        }
    }
}

impl Row for EndpointRow {
    type Id = (String, SocketAddr);

    const COLUMNS: &'static [Column<Self>] = &[
        words(
            "ENDPOINT",
            (16, 47),
            0,
            |row, _| Cell::plain(row.endpoint.address.to_string()),
            |row| Value::Address(Some(row.endpoint.address)),
        ),
        words(
            "SERVICE",
            (9, 40),
            1,
            |row, _| Cell::plain(&row.endpoint.service),
            |row| Value::Text(&row.endpoint.service),
        ),
        words("HEALTH", (9, 9), 2, |row, _| row.health(), |row| Value::Number(Some(row.fitness()))),
        words(
            "CIRCUIT",
            (9, 9),
            3,
            |row, _| circuit(row.endpoint.circuit),
            // The worst comes first.
            |row| {
                Value::Number(Some(match row.endpoint.circuit {
                    CircuitState::Open => 0.0,
                    CircuitState::HalfOpen => 1.0,
                    CircuitState::Closed => 2.0,
                }))
            },
        ),
        numbers(
            "WEIGHT",
            7,
            13,
            |row, _| {
                let weight = row.endpoint.weight;
                Cell::new(if weight == 0 { Look::Warn } else { Look::Plain }, weight.to_string())
            },
            |row| Value::Number(Some(f64::from(row.endpoint.weight))),
        ),
        numbers(
            "REQ/S",
            6,
            4,
            |row: &Self, _| a_second(row.rate(|rates| rates.requests)),
            |row| Value::Number(row.rate(|rates| rates.requests)),
        )
        .when(EndpointRow::sees_requests),
        numbers(
            "CONN/S",
            7,
            7,
            |row, _| a_second(row.rate(|rates| rates.connections)),
            |row| Value::Number(row.rate(|rates| rates.connections)),
        ),
        numbers(
            "ACTIVE",
            7,
            9,
            |row, _| Cell::number(Some(approximate(row.endpoint.active_connections)), short),
            |row| Value::Number(Some(approximate(row.endpoint.active_connections))),
        ),
        numbers(
            "REQS",
            5,
            11,
            |row: &Self, _| Cell::number(Some(approximate(row.endpoint.active_requests)), short),
            |row| Value::Number(Some(approximate(row.endpoint.active_requests))),
        )
        .when(EndpointRow::sees_requests),
        numbers(
            "SENT/S",
            8,
            10,
            |row, _| bytes_a_second(row.rate(|rates| rates.sent)),
            |row| Value::Number(row.rate(|rates| rates.sent)),
        ),
        numbers(
            "RECV/S",
            8,
            8,
            |row, _| bytes_a_second(row.rate(|rates| rates.received)),
            |row| Value::Number(row.rate(|rates| rates.received)),
        ),
        numbers(
            "LATENCY",
            8,
            6,
            |row: &Self, _| time(row.endpoint.latency_ewma_ms),
            |row| Value::Number(row.endpoint.latency_ewma_ms),
        )
        .when(EndpointRow::sees_requests),
        numbers("CONNECT", 8, 12, |row, _| time(row.endpoint.connect_ms), |row| Value::Number(row.endpoint.connect_ms)),
        numbers(
            "FAIL/S",
            7,
            5,
            |row, _| trouble_a_second(row.rate(|rates| rates.failures)),
            |row| Value::Number(row.rate(|rates| rates.failures)),
        ),
        numbers("RETR/S", 7, 14, |row, _| a_second(row.retransmits()), |row| Value::Number(row.retransmits())),
        words(
            "ZONE",
            (6, 20),
            15,
            |row: &Self, _| Cell::plain(row.endpoint.zone.as_deref().unwrap_or_default()),
            |row| Value::Text(row.endpoint.zone.as_deref().unwrap_or_default()),
        )
        .when(|row| row.endpoint.zone.is_some()),
    ];

    fn id(&self) -> (String, SocketAddr) {
        (self.endpoint.service.clone(), self.endpoint.address)
    }

    fn words(&self) -> String {
        let Endpoint { service, address, zone, .. } = &self.endpoint;
        let zone = zone.as_deref().unwrap_or_default();
        format!("{service} {address} {zone} {} {}", self.health().text, circuit(self.endpoint.circuit).text)
    }

    fn details(&self) -> [String; 2] {
        let endpoint = &self.endpoint;
        let mut first = format!("{} of {}: weight {}", endpoint.address, endpoint.service, endpoint.weight);
        for (what, place) in [("zone", &endpoint.zone), ("region", &endpoint.region), ("node", &endpoint.node)] {
            if let Some(place) = place {
                first.push_str(&format!(", {what} {place}"));
            }
        }
        first.push_str(&format!(", {}, circuit {}", endpoint.health, endpoint.circuit));
        if endpoint.draining {
            first.push_str(", draining");
        }
        let mut second = format!(
            "{}, {} sent, {} received",
            several(endpoint.connections_total, "connection"),
            bytes(endpoint.sent_bytes_total),
            bytes(endpoint.received_bytes_total),
        );
        if let Some(again) = endpoint.retransmits_total {
            second.push_str(&format!(", {} sent again", several(again, "segment")));
        }
        match by_reason(&endpoint.connect_failures) {
            Some(failures) => second.push_str(&format!("; failed {failures}")),
            None => second.push_str(&format!("; {} failed", count(endpoint.connect_failures_total))),
        }
        [first, second]
    }
}
