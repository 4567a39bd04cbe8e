//! `mesh circuit`.

use super::circuit;
use crate::{
    api::{Circuit, Time},
    cli::{
        output::{Look, Style},
        table::{Field, Table},
        units::{count, duration},
    },
};

/// Circuits, each with its service and endpoint; `now` is what times are told from.
pub(in crate::cli) fn circuits(circuits: &[Circuit], now: Time, style: Style) -> String {
    let mut table = Table::new(&["SERVICE", "ENDPOINT", "STATE", ">FAILURES", ">OPENINGS", "RETRY", "FORCED"]);
    for row in circuits {
        let failures = row.consecutive_failures;
        table.row([
            Field::new(&row.service),
            Field::new(row.endpoint.to_string()),
            circuit(row.state),
            Field::look(if failures > 0 { Look::Warn } else { Look::Plain }, count(failures)),
            Field::new(count(row.openings)),
            Field::new(row.retry_at.map(|at| retry(at, now)).unwrap_or_default()),
            if row.forced { Field::look(Look::Warn, "yes") } else { Field::new("no") },
        ]);
    }
    table.render(style, 0)
}

fn retry(at: Time, now: Time) -> String {
    if at <= now { "now".to_owned() } else { format!("in {}", duration(now.age(at))) }
}
