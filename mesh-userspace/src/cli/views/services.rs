//! `mesh services`.

use super::{circuit, endpoints};
use crate::{
    api::{Endpoint, Protocol, Service},
    cli::{
        output::{Look, Style, harmless},
        table::{Field, Table},
        units::{bytes, count},
    },
};
use std::{collections::BTreeMap, fmt::Write};

/// Addresses shown in a row of the table; `mesh services NAME` shows all.
const ADDRESSES: usize = 2;

/// All services.
pub(in crate::cli) fn services(services: &[Service], style: Style) -> String {
    let mut table = Table::new(&[
        "NAME",
        "ADDRESSES",
        "PROTOCOL",
        "POLICY",
        "HEALTHY",
        "CIRCUIT",
        ">ACTIVE",
        ">TOTAL",
        ">REFUSED",
        ">SENT",
        ">RECEIVED",
        "NOTE",
    ]);
    for service in services {
        table.row([
            Field::new(&service.name),
            Field::new(addresses(service)),
            Field::new(service.protocol.word()),
            Field::new(service.policy.word()),
            healthy(service),
            circuit(service.circuit),
            Field::new(count(service.active_connections)),
            Field::new(count(service.connections_total)),
            refused(service),
            Field::new(bytes(service.sent_bytes_total)),
            Field::new(bytes(service.received_bytes_total)),
            Field::look(Look::Warn, notes(service).join("; ")),
        ]);
    }
    table.drop_if_empty("NOTE");
    table.render(style, 0)
}

/// One service and its endpoints.
pub(in crate::cli) fn service(service: &Service, of_it: &[Endpoint], style: Style) -> String {
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        let title = style.paint(Look::Bold, &format!("{title:<13}"));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{title} {value}");
    };
    line("Service", &harmless(&service.name));
    let addresses = service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    line("Addresses", if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") }.as_str());
    line("Protocol", service.protocol.word());
    line("Policy", service.policy.word());
    line("Circuit", service.circuit.word());
    if !service.intercepted {
        let why = service.not_intercepted_reason.as_deref().unwrap_or("no reason given");
        line("Intercepted", &style.paint(Look::Bad, &format!("no: {}", harmless(why))));
    }
    let n = service.endpoints;
    let mut endpoints_line = format!("{} of {} healthy", count(n.healthy), count(n.total));
    for (number, what) in [(n.open, "with an open circuit"), (n.draining, "draining")] {
        if number > 0 {
            let _ = write!(endpoints_line, ", {} {what}", count(number));
        }
    }
    line("Endpoints", &endpoints_line);
    let (total, failed) = (count(service.connections_total), count(service.connect_failures_total));
    line("Connections", &format!("{} active, {total} in total, {failed} failed", count(service.active_connections)));
    let (sent, received) = (bytes(service.sent_bytes_total), bytes(service.received_bytes_total));
    let again = service.retransmits_total.map(|again| format!("; {} segments sent again", count(again)));
    line("Bytes", &format!("{sent} sent, {received} received by clients{}", again.unwrap_or_default()));
    if service.protocol != Protocol::Tcp {
        let (active, total) = (count(service.active_requests), count(service.requests_total));
        let own = by_reason(&service.requests_rejected_total);
        let own = own.map(|own| format!(", answered by mesh itself: {own}")).unwrap_or_default();
        line("Requests", &format!("{active} active, {total} in total{own}"));
    }
    for (title, reasons) in [("Refused", &service.connects_refused_total), ("Passed", &service.connects_passed_total)] {
        if let Some(reasons) = reasons.as_ref().and_then(by_reason) {
            line(title, &reasons);
        }
    }
    if let Some(times) = service.connects_local_trouble_total.filter(|times| *times > 0) {
        let times = count(times);
        line("Local trouble", &format!("{times} connects had no route or no free local port"));
    }
    text.push('\n');
    if of_it.is_empty() {
        text.push_str("It has no endpoints: connections to it are refused.\n");
    } else {
        text.push_str(&endpoints::table(of_it, false, style));
    }
    text
}

fn addresses(service: &Service) -> String {
    let mut shown: Vec<String> = service.addresses.iter().take(ADDRESSES).map(ToString::to_string).collect();
    if service.addresses.len() > ADDRESSES {
        shown.push(format!("+{} more", service.addresses.len() - ADDRESSES));
    }
    shown.join(" ")
}

/// `2/3`: of three, two are not held back.
fn healthy(service: &Service) -> Field {
    let n = service.endpoints;
    let look = match n.healthy {
        healthy if healthy == n.total && n.total > 0 => Look::Good,
        0 => Look::Bad,
        _ => Look::Warn,
    };
    Field::look(look, format!("{}/{}", count(n.healthy), count(n.total)))
}

/// Connects that were refused; nothing where nobody counts them.
fn refused(service: &Service) -> Field {
    let Some(reasons) = &service.connects_refused_total else { return Field::new("") };
    let refused = reasons.values().fold(0u64, |sum, n| sum.saturating_add(*n));
    Field::look(if refused > 0 { Look::Warn } else { Look::Plain }, count(refused))
}

fn notes(service: &Service) -> Vec<String> {
    let mut notes = Vec::new();
    if !service.intercepted {
        let why = service.not_intercepted_reason.as_deref();
        notes.push(why.map_or_else(|| "not intercepted".to_owned(), |why| format!("not intercepted: {why}")));
    }
    if service.endpoints.draining > 0 {
        notes.push(format!("{} draining", count(service.endpoints.draining)));
    }
    notes
}

/// `12 (no_endpoint 10, family_mismatch 2)`, the largest first; `None` if nothing was counted.
pub(in crate::cli) fn by_reason(reasons: &BTreeMap<String, u64>) -> Option<String> {
    let mut counted: Vec<_> = reasons.iter().filter(|(_, n)| **n > 0).collect();
    counted.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    let sum = counted.iter().fold(0u64, |sum, (_, n)| sum.saturating_add(**n));
    let each: Vec<String> = counted.iter().map(|(reason, n)| format!("{} {}", harmless(reason), count(**n))).collect();
    (!each.is_empty()).then(|| format!("{} ({})", count(sum), each.join(", ")))
}
