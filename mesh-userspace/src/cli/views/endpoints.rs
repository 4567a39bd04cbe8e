//! `mesh endpoints`.

use super::{circuit, draining, health};
use crate::{
    api::Endpoint,
    cli::{
        output::{Look, Style},
        table::{Field, Table},
        units::{bytes, count, milliseconds},
    },
};

/// Endpoints, each with its service.
pub(in crate::cli) fn endpoints(endpoints: &[Endpoint], style: Style) -> String {
    table(endpoints, true, style)
}

/// Endpoints; the service is left out where it is said already.
pub(super) fn table(endpoints: &[Endpoint], with_service: bool, style: Style) -> String {
    let mut titles = vec![
        "ADDRESS",
        ">WEIGHT",
        "ZONE",
        "HEALTH",
        "CIRCUIT",
        "DRAINING",
        ">ACTIVE",
        ">REQUESTS",
        ">TOTAL",
        ">FAILURES",
        ">SENT",
        ">RECEIVED",
        ">RETRANSMITS",
        ">CONNECT",
        ">LATENCY",
    ];
    if with_service {
        titles.insert(0, "SERVICE");
    }
    let mut table = Table::new(&titles);
    for endpoint in endpoints {
        let failures = endpoint.connect_failures_total;
        let fields = [
            Field::new(endpoint.address.to_string()),
            Field::look(if endpoint.weight == 0 { Look::Warn } else { Look::Plain }, endpoint.weight.to_string()),
            Field::new(endpoint.zone.as_deref().unwrap_or_default()),
            health(endpoint.health),
            circuit(endpoint.circuit),
            draining(endpoint.draining),
            Field::new(count(endpoint.active_connections)),
            Field::new(count(endpoint.active_requests)),
            Field::new(count(endpoint.connections_total)),
            Field::look(if failures > 0 { Look::Warn } else { Look::Plain }, count(failures)),
            Field::new(bytes(endpoint.sent_bytes_total)),
            Field::new(bytes(endpoint.received_bytes_total)),
            Field::new(endpoint.retransmits_total.map(count).unwrap_or_default()),
            Field::new(endpoint.connect_ms.map(milliseconds).unwrap_or_default()),
            Field::new(endpoint.latency_ewma_ms.map(milliseconds).unwrap_or_default()),
        ];
        table.row(with_service.then(|| Field::new(&endpoint.service)).into_iter().chain(fields));
    }
    table.render(style, 0)
}
