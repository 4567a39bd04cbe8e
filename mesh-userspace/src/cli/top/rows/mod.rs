//! What is shown of services, endpoints and connections.

mod connections;
mod endpoints;
mod services;

pub(super) use connections::ConnectionRow;
pub(super) use endpoints::{EndpointRates, EndpointRow};
pub(super) use services::{ServiceRates, ServiceRow};

use super::column::{Cell, Column, Kind, Value};
use crate::{
    api::{CircuitState, EndpointHealth},
    cli::{
        output::Look,
        units::{amount, count, milliseconds, short},
    },
};

/// A column of numbers that are so many a second, or so many.
const fn numbers<R>(
    title: &'static str,
    width: usize,
    rank: u8,
    cell: fn(&R, usize) -> Cell,
    value: fn(&R) -> Value<'_>,
) -> Column<R> {
    Column { title, least: width, most: width, rank, kind: Kind::Number, cell, value, applies: |_| true }
}

/// A column of words.
const fn words<R>(
    title: &'static str,
    (least, most): (usize, usize),
    rank: u8,
    cell: fn(&R, usize) -> Cell,
    value: fn(&R) -> Value<'_>,
) -> Column<R> {
    Column { title, least, most, rank, kind: Kind::Text, cell, value, applies: |_| true }
}

fn a_second(rate: Option<f64>) -> Cell {
    Cell::number(rate, short)
}

fn bytes_a_second(rate: Option<f64>) -> Cell {
    Cell::number(rate, amount)
}

/// What ought not to happen at all.
fn trouble_a_second(rate: Option<f64>) -> Cell {
    match rate {
        Some(rate) if rate > 0.0 => Cell::new(Look::Warn, short(rate)),
        rate => a_second(rate),
    }
}

fn time(ms: Option<f64>) -> Cell {
    Cell::number(ms, milliseconds)
}

/// A circuit. One that is not closed stands out by its letters too, where there are no colours.
fn circuit(state: CircuitState) -> Cell {
    match state {
        CircuitState::Closed => Cell::plain(state.word()),
        CircuitState::HalfOpen => Cell::new(Look::Warn, "HALF-OPEN"),
        CircuitState::Open => Cell::new(Look::Bad, "OPEN"),
    }
}

fn health(health: EndpointHealth) -> Cell {
    let look = match health {
        EndpointHealth::Healthy => Look::Good,
        EndpointHealth::Unhealthy => Look::Bad,
        EndpointHealth::Unknown => Look::Plain,
    };
    Cell::new(look, health.word())
}

/// `1 connection`, `2 connections`.
pub(super) fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}
