//! `mesh explain`.

use super::{circuit, draining, health};
use crate::{
    api::{Decision, Explanation},
    cli::{
        output::{Look, Style, harmless, harmless_lines},
        table::{Field, Table},
        units::percent,
    },
};
use std::fmt::Write;

/// What a connection would meet: the decision, then every endpoint.
pub(in crate::cli) fn explanation(explanation: &Explanation, style: Style) -> String {
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        let title = style.paint(Look::Bold, &format!("{title:<9}"));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{title} {value}");
    };
    line("Address", &explanation.address.to_string());
    line("Service", &explanation.service.as_deref().map_or_else(|| "- (of no service)".to_owned(), harmless));
    if let Some(route) = &explanation.route {
        line("Route", &harmless(route));
    }
    if let Some(policy) = explanation.policy {
        line("Policy", policy.word());
    }
    let look = match explanation.decision {
        Decision::Forwarded | Decision::Answered => Look::Good,
        Decision::Refused => Look::Bad,
        Decision::Passed => Look::Warn,
    };
    let mut decision = explanation.decision.word().to_owned();
    if let Some(reason) = &explanation.reason {
        let _ = write!(decision, " ({})", harmless(reason));
    }
    line("Decision", &style.paint(look, &decision));
    if !explanation.explanation.is_empty() {
        harmless_lines(&explanation.explanation).lines().for_each(|text| line("", text));
    }
    if explanation.endpoints.is_empty() {
        return text;
    }
    text.push('\n');
    let mut table = Table::new(&[
        "SERVICE",
        "ADDRESS",
        ">WEIGHT",
        ">SHARE",
        "TIER",
        "HEALTH",
        "CIRCUIT",
        "DRAINING",
        "CANDIDATE",
        "REASON",
    ]);
    let elsewhere = explanation.endpoints.iter().any(|endpoint| endpoint.service != explanation.service);
    for endpoint in &explanation.endpoints {
        // Said above where it is the only one.
        let service = endpoint.service.as_ref().filter(|_| elsewhere);
        table.row([
            Field::new(service.map(String::as_str).unwrap_or_default()),
            Field::new(endpoint.address.to_string()),
            Field::new(endpoint.weight.to_string()),
            Field::new(percent(endpoint.share)),
            Field::new(endpoint.tier.as_deref().unwrap_or_default()),
            health(endpoint.health),
            circuit(endpoint.circuit),
            draining(endpoint.draining),
            if endpoint.candidate { Field::look(Look::Good, "yes") } else { Field::look(Look::Bad, "no") },
            Field::new(&endpoint.reason),
        ]);
    }
    for column in ["SERVICE", "TIER"] {
        table.drop_if_empty(column);
    }
    text.push_str(&table.render(style, 0));
    text
}
