//! `mesh check`.

use crate::{
    api::Check,
    cli::{
        output::{Look, Style},
        table::{Field, Table},
    },
};

/// One line a finding, and the sum of them.
pub(in crate::cli) fn check(check: &Check, style: Style) -> String {
    let mut table = Table::new(&["RESULT", "CHECK", "WHAT WAS SEEN", "WHAT TO DO"]);
    for finding in &check.findings {
        let (look, result) = match (finding.ok, finding.required) {
            (true, _) => (Look::Good, "ok"),
            (false, true) => (Look::Bad, "FAILED"),
            (false, false) => (Look::Warn, "warning"),
        };
        table.row([
            Field::look(look, result),
            Field::new(&finding.check),
            Field::new(&finding.detail),
            Field::new(finding.remedy.as_deref().unwrap_or_default()),
        ]);
    }
    table.drop_if_empty("WHAT TO DO");
    let failed = check.findings.iter().filter(|f| !f.ok && f.required).count();
    let sum = match failed {
        0 => style.paint(Look::Good, "the daemon can start here and intercept connections"),
        n => {
            let sum = format!("the daemon cannot start here, or not intercept connections: {n} failed");
            style.paint(Look::Bad, &sum)
        }
    };
    format!("{}\n{sum}\n", table.render(style, 0))
}
