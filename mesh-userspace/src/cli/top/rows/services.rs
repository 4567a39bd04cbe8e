//! Services.

use super::{a_second, bytes_a_second, circuit, numbers, several, time, trouble_a_second, words};
use crate::{
    api::{CircuitState, Percentiles, Protocol, Service},
    cli::{
        output::Look,
        top::{
            column::{Cell, Column, Kind, Row, Value},
            history::{CELLS, Minute},
            latencies::Latency,
        },
        units::{approximate, bytes, count, short},
        views::by_reason,
    },
};
use std::{collections::BTreeMap, time::Duration};

/// A service, and what it does.
#[derive(Clone, Debug)]
pub(in crate::cli::top) struct ServiceRow {
    pub(in crate::cli::top) service: Service,
    /// What it did a second since the look before.
    pub(in crate::cli::top) rates: Option<ServiceRates>,
    /// How long what is asked of it takes.
    pub(in crate::cli::top) latency: Latency,
    pub(in crate::cli::top) minute: Minute,
    /// On the clock of the minute.
    pub(in crate::cli::top) now: Duration,
}

/// What is counted of a service a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::cli::top) struct ServiceRates {
    pub(in crate::cli::top) requests: f64,
    pub(in crate::cli::top) connections: f64,
    pub(in crate::cli::top) sent: f64,
    pub(in crate::cli::top) received: f64,
    /// Connects that failed or were refused, answers with a status of 500 or more, requests that a rate limit turned away.
    pub(in crate::cli::top) failures: f64,
}

impl ServiceRates {
    /// The totals that these are the rates of, in their order.
    pub(in crate::cli::top) fn totals(service: &Service) -> [u64; 5] {
        let sum = |reasons: &BTreeMap<String, u64>| reasons.values().fold(0, |sum: u64, n| sum.saturating_add(*n));
        let limited = service.requests_rejected_total.get("rate_limited").copied().unwrap_or_default();
        let answered = service.responses_5xx_total.saturating_add(limited);
        [
            service.requests_total,
            service.connections_total,
            service.sent_bytes_total,
            service.received_bytes_total,
            service
                .connect_failures_total
                .saturating_add(service.connects_refused_total.as_ref().map_or(0, sum))
                .saturating_add(answered),
        ]
    }

    /// What the line of the last minute shows: requests of services that have any, bytes of all others.
    pub(in crate::cli::top) fn activity(&self, service: &Service) -> f64 {
        match service.protocol {
            Protocol::Http | Protocol::Grpc => self.requests,
            Protocol::Tcp | Protocol::Udp | Protocol::Auto => self.sent + self.received,
        }
    }
}

impl From<[f64; 5]> for ServiceRates {
    fn from([requests, connections, sent, received, failures]: [f64; 5]) -> Self {
        Self { requests, connections, sent, received, failures }
    }
}

impl ServiceRow {
    fn rate(&self, rate: fn(&ServiceRates) -> f64) -> Option<f64> {
        self.rates.as_ref().map(rate)
    }

    fn requests(&self) -> Option<f64> {
        self.rate(|rates| rates.requests).filter(|_| self.sees_requests())
    }

    fn sees_requests(&self) -> bool {
        !matches!(self.service.protocol, Protocol::Tcp | Protocol::Udp)
    }

    /// How long a part of its requests takes; of a service without any, of its connects.
    fn takes(&self, part: fn(&Percentiles) -> f64) -> Option<f64> {
        let Latency { requests, connects } = &self.latency;
        let percentiles = if self.sees_requests() { requests } else { connects };
        percentiles.as_ref().map(part)
    }

    fn healthy(&self) -> Cell {
        let endpoints = self.service.endpoints;
        let look = match endpoints.healthy {
            0 => Look::Bad,
            healthy if healthy < endpoints.total => Look::Warn,
            _ => Look::Good,
        };
        Cell::new(look, format!("{}/{}", endpoints.healthy, endpoints.total))
    }

    /// The circuit of the service, or how many of its endpoints' are open while others are not.
    fn circuit(&self) -> Cell {
        match (self.service.circuit, self.service.endpoints.open) {
            (CircuitState::Closed, open) if open > 0 => Cell::new(Look::Warn, format!("{open} OPEN")),
            (state, _) => circuit(state),
        }
    }

    /// The larger, the less of it is left.
    fn severity(&self) -> f64 {
        match self.service.circuit {
            CircuitState::Closed => approximate(self.service.endpoints.open).min(1e18),
            CircuitState::HalfOpen => 1e19,
            CircuitState::Open => 1e20,
        }
    }

    fn vips(&self) -> String {
        match self.service.addresses.as_slice() {
            [] => String::new(),
            [one] => one.to_string(),
            [first, more @ ..] => format!("{first} +{}", more.len()),
        }
    }
}

impl Row for ServiceRow {
    type Id = String;

    const COLUMNS: &'static [Column<Self>] = &[
        words("NAME", (11, 40), 0, |row, _| Cell::plain(&row.service.name), |row| Value::Text(&row.service.name)),
        words(
            "VIP",
            (15, 28),
            12,
            |row, _| Cell::plain(row.vips()),
            |row| Value::Address(row.service.addresses.first().copied()),
        ),
        words(
            "PROTOCOL",
            (9, 9),
            13,
            |row, _| Cell::plain(row.service.protocol.word()),
            |row| Value::Text(row.service.protocol.word()),
        ),
        words(
            "POLICY",
            (17, 17),
            14,
            |row, _| Cell::plain(row.service.policy.word()),
            |row| Value::Text(row.service.policy.word()),
        ),
        numbers(
            "HEALTHY",
            8,
            2,
            |row, _| row.healthy(),
            |row| {
                let endpoints = row.service.endpoints;
                Value::Number(Some(approximate(endpoints.total.saturating_sub(endpoints.healthy))))
            },
        ),
        // The worst comes first.
        words("CIRCUIT", (9, 9), 1, |row, _| row.circuit(), |row| Value::Number(Some(-row.severity()))),
        numbers("REQ/S", 6, 3, |row: &Self, _| a_second(row.requests()), |row| Value::Number(row.requests()))
            .when(ServiceRow::sees_requests),
        numbers(
            "CONN/S",
            7,
            4,
            |row, _| a_second(row.rate(|rates| rates.connections)),
            |row| Value::Number(row.rate(|rates| rates.connections)),
        ),
        numbers(
            "ACTIVE",
            7,
            9,
            |row, _| Cell::number(Some(approximate(row.service.active_connections)), short),
            |row| Value::Number(Some(approximate(row.service.active_connections))),
        ),
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
        numbers("P50", 7, 7, |row, _| time(row.takes(|p| p.p50_ms)), |row| Value::Number(row.takes(|p| p.p50_ms))),
        numbers("P99", 7, 6, |row, _| time(row.takes(|p| p.p99_ms)), |row| Value::Number(row.takes(|p| p.p99_ms))),
        numbers(
            "FAIL/S",
            7,
            5,
            |row, _| trouble_a_second(row.rate(|rates| rates.failures)),
            |row| Value::Number(row.rate(|rates| rates.failures)),
        ),
        Column {
            title: "LAST MINUTE",
            least: 12,
            most: CELLS,
            rank: 11,
            kind: Kind::Text,
            cell: |row, width| {
                let cells = if width < CELLS { CELLS / 2 } else { CELLS };
                Cell::plain(row.minute.line(row.now, cells))
            },
            value: |row| Value::Number(row.rates.as_ref().map(|rates| -rates.activity(&row.service))),
            applies: |_| true,
        },
    ];

    fn id(&self) -> String {
        self.service.name.clone()
    }

    fn words(&self) -> String {
        let Service { name, addresses, protocol, policy, .. } = &self.service;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{name} {} {protocol} {policy} {}", addresses.join(" "), self.circuit().text)
    }

    fn details(&self) -> [String; 2] {
        let service = &self.service;
        let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
        let mut first = format!("{}: {}, {}, {addresses}", service.name, service.protocol, service.policy);
        if service.endpoints.draining > 0 {
            first.push_str(&format!(", {} draining", count(service.endpoints.draining)));
        }
        if !service.intercepted {
            let why = service.not_intercepted_reason.as_deref().unwrap_or("no reason given");
            return [first, format!("not intercepted: {why}")];
        }
        let mut second = format!(
            "{}, {} failed, {} sent, {} received",
            several(service.connections_total, "connection"),
            count(service.connect_failures_total),
            bytes(service.sent_bytes_total),
            bytes(service.received_bytes_total),
        );
        let refused = service.connects_refused_total.as_ref();
        for (what, reasons) in [("refused", refused), ("answered by mesh", Some(&service.requests_rejected_total))] {
            if let Some(reasons) = reasons.and_then(by_reason) {
                second.push_str(&format!("; {what} {reasons}"));
            }
        }
        [first, second]
    }
}
