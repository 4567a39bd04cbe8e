//! Answers as people read them.

mod check;
mod circuits;
mod connections;
mod endpoints;
mod explain;
mod logs;
mod services;
mod status;
mod traces;

pub(super) use check::check;
pub(super) use circuits::circuits;
pub(super) use connections::{age, connections, process};
pub(super) use endpoints::endpoints;
pub(super) use explain::explanation;
pub(super) use logs::{log, log_levels, logs};
pub(super) use services::{by_reason, service, services};
pub(super) use status::status;
pub(super) use traces::{trace, traces};

use super::{output::Look, table::Field};
use crate::api::{CircuitState, EndpointHealth};

fn circuit(state: CircuitState) -> Field {
    let look = match state {
        CircuitState::Closed => Look::Plain,
        CircuitState::HalfOpen => Look::Warn,
        CircuitState::Open => Look::Bad,
    };
    Field::look(look, state.word())
}

fn health(health: EndpointHealth) -> Field {
    let look = match health {
        EndpointHealth::Healthy => Look::Good,
        EndpointHealth::Unhealthy => Look::Bad,
        EndpointHealth::Unknown => Look::Plain,
    };
    Field::look(look, health.word())
}

fn draining(draining: bool) -> Field {
    if draining { Field::look(Look::Warn, "yes") } else { Field::new("no") }
}
