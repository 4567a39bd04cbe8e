//! `mesh logs` and `mesh log-level`.

use crate::{
    api::{LogLevels, LogLine},
    cli::{
        output::{Look, Style},
        table::{Field, Table},
        units::{bytes, duration, milliseconds},
    },
};
use std::time::Duration;

/// The columns with their least widths, which lines that come one by one have in common.
const COLUMNS: [(&str, usize); 10] = [
    ("TIME", 24),
    ("SERVICE", 12),
    ("ENDPOINT", 19),
    ("CLIENT", 19),
    (">STATUS", 6),
    (">DURATION", 8),
    (">SENT", 8),
    (">RECEIVED", 8),
    ("REASON", 14),
    ("WHAT", 0),
];

/// Lines of the log, the newest last.
pub(in crate::cli) fn logs(lines: &[LogLine], style: Style) -> String {
    let mut table = Table::new(&COLUMNS.map(|(title, _)| title));
    lines.iter().for_each(|line| table.row(fields(line)));
    table.render(style, 0)
}

/// A line that came; with `titles`, below the titles of the columns.
pub(in crate::cli) fn log(line: &LogLine, titles: bool, style: Style) -> String {
    let mut table = Table::new(&COLUMNS.map(|(title, _)| title)).at_least(&COLUMNS.map(|(_, width)| width));
    table.row(fields(line));
    let text = table.render(style, 0);
    match text.split_once('\n') {
        Some((_, row)) if !titles => row.to_owned(),
        _ => text,
    }
}

fn fields(line: &LogLine) -> [Field; 10] {
    let look = match line.status {
        Some(500..) => Look::Bad,
        Some(400..) => Look::Warn,
        _ => Look::Plain,
    };
    [
        Field::new(line.time.to_string()),
        Field::new(line.service.as_deref().unwrap_or_default()),
        Field::new(line.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default()),
        Field::new(line.client.map(|client| client.to_string()).unwrap_or_default()),
        Field::look(look, line.status.map(|status| status.to_string()).unwrap_or_default()),
        Field::new(took(line.duration_ms)),
        Field::new(bytes(line.sent_bytes)),
        Field::new(bytes(line.received_bytes)),
        Field::look(Look::Warn, line.reason.as_deref().unwrap_or_default()),
        Field::new(what(line)),
    ]
}

/// `GET /path` of a request, `connection curl[4711]` of a connection, `connection curl[4711] to 10.96.0.10:80, 17 times` of
/// connects that were refused.
fn what(line: &LogLine) -> String {
    if let (Some(method), Some(path)) = (&line.method, &line.path) {
        return format!("{method} {path}");
    }
    let connection = line.connection.as_ref();
    let command = connection.and_then(|c| c.command.as_deref()).unwrap_or_default();
    let pid = connection.and_then(|c| c.pid).map(|pid| format!("[{pid}]")).unwrap_or_default();
    let place = connection.and_then(|c| c.pod.as_deref()).map(|pod| format!(" in {pod}")).unwrap_or_default();
    let refused = connection.and_then(|c| Some((c.original_destination, c.refusals?)));
    let refused = match refused {
        Some((dialled, 0 | 1)) => format!(" to {dialled}"),
        Some((dialled, times)) => format!(" to {dialled}, {times} times"),
        None => String::new(),
    };
    format!("{} {command}{pid}{place}{refused}", line.kind).trim_end().to_owned()
}

fn took(ms: f64) -> String {
    if ms < 60_000.0 {
        return milliseconds(ms);
    }
    Duration::try_from_secs_f64(ms / 1000.0).map(duration).unwrap_or_default()
}

/// How much which module logs.
pub(in crate::cli) fn log_levels(levels: &LogLevels, style: Style) -> String {
    let mut table = Table::new(&["MODULE", "LEVEL"]);
    for module in &levels.modules {
        table.row([Field::new(&module.module), Field::new(&module.level)]);
    }
    let others = if levels.modules.is_empty() { "all" } else { "all others" };
    table.row([Field::new(others), Field::new(&levels.level)]);
    table.render(style, 0)
}
