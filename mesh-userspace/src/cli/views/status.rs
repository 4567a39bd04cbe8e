//! `mesh status`.

use crate::{
    api::{Mode, OtherProgram, Program, ProxyStatus, Source, Status, Time},
    cli::{
        output::{Look, Style, harmless},
        table::{Field, Table},
        units::{bytes, count, duration, nanoseconds, percent},
    },
};
use std::{fmt::Write, time::Duration};

/// The daemon as a whole, at `now`.
pub(in crate::cli) fn status(status: &Status, now: Time, style: Style) -> String {
    let mut text = head(status, now, style);
    let mut section = |title: &str, table: &Table| {
        // Writing to a String does not fail.
        let _ = write!(text, "\n{}\n{}", style.paint(Look::Bold, title), table.render(style, 2));
    };
    if !status.programs.is_empty() {
        section("Programs", &programs(&status.programs));
    }
    if !status.other_programs.is_empty() {
        section("Programs of others", &others(&status.other_programs));
    }
    if !status.maps.is_empty() {
        section("Maps", &maps(status));
    }
    if !status.sources.is_empty() {
        section("Sources", &sources(&status.sources, now));
    }
    if !status.warnings.is_empty() {
        let _ = write!(text, "\n{}\n", style.paint(Look::Bold, "Warnings"));
        for warning in &status.warnings {
            let _ = writeln!(text, "  {}", style.paint(Look::Warn, &harmless(warning)));
        }
    }
    text
}

fn head(status: &Status, now: Time, style: Style) -> String {
    let mut text = String::new();
    let mut line = |title: &str, look: Look, value: &str| {
        let title = style.paint(Look::Bold, &format!("{title:<13}"));
        let _ = writeln!(text, "{title} {}", style.paint(look, value));
    };
    line("Node", Look::Plain, &harmless(&status.node));
    line("Version", Look::Plain, &harmless(&status.version));
    let uptime = duration(Duration::from_secs(status.uptime_s));
    let pid = status.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    line("Uptime", Look::Plain, &format!("{uptime}{pid}"));
    line("Mode", if status.mode == Mode::Ebpf { Look::Plain } else { Look::Warn }, status.mode.word());
    if status.bypass {
        line("Bypass", Look::Bad, "on: every connection passes untouched");
    } else {
        line("Bypass", Look::Plain, "off");
    }
    let (look, works) = match status.interception_ok {
        Some(true) => (Look::Good, "works"),
        Some(false) => (Look::Bad, "does NOT work: connections to services are not translated"),
        None => (Look::Faint, "not probed"),
    };
    line("Interception", look, works);
    if let Some(proxy) = &status.proxy {
        let (look, text) = proxy_line(proxy);
        line("Proxy", look, &text);
    }
    for (title, value) in [("Cgroup", &status.cgroup), ("Pinned in", &status.bpffs)] {
        if let Some(value) = value {
            line(title, Look::Plain, &harmless(value));
        }
    }
    let path = status.config.path.as_deref().map_or_else(|| "none, defaults only".to_owned(), harmless);
    let loaded = match status.config.loaded_at {
        Some(at) => format!(", loaded {} ago ({at})", duration(at.age(now))),
        None => String::new(),
    };
    line("Configuration", Look::Plain, &format!("{path}{loaded}"));
    if let Some(error) = &status.config.error {
        for (at, error) in error.lines().enumerate() {
            let lead = if at == 0 { "last load refused, the one before stays: " } else { "  " };
            line("", Look::Bad, &format!("{lead}{}", harmless(error)));
        }
    }
    line("Services", Look::Plain, &count(status.services));
    line("Endpoints", Look::Plain, &count(status.endpoints));
    line("Connections", Look::Plain, &format!("{} open", count(status.connections)));
    if let Some(memory) = status.memory {
        let each = [(memory.resident_bytes, "resident"), (memory.kernel_bytes, "in the kernel")];
        let known: Vec<String> =
            each.iter().filter_map(|(value, what)| value.map(|value| format!("{} {what}", bytes(value)))).collect();
        if !known.is_empty() {
            line("Memory", Look::Plain, &known.join(", "));
        }
    }
    text
}

/// Where requests are served, and by whom.
fn proxy_line(proxy: &ProxyStatus) -> (Look, String) {
    let place = match (&proxy.http, &proxy.http_error) {
        (Some(address), _) => format!("requests at {address}"),
        (None, Some(why)) => format!("NOT at proxy.http: {}", harmless(why)),
        (None, None) => "no explicit proxy".to_owned(),
    };
    let plural = if proxy.workers == 1 { "" } else { "s" };
    let workers = if proxy.workers_ok { "" } else { ", NOT all alive" };
    let text = format!(
        "{place}; {} worker{plural}{workers}, {} connections of clients",
        count(proxy.workers),
        count(proxy.connections)
    );
    (if proxy.workers_ok && proxy.http_error.is_none() { Look::Plain } else { Look::Bad }, text)
}

fn programs(programs: &[Program]) -> Table {
    let mut table = Table::new(&["NAME", "HOOK", "ATTACHED", ">RUNS", ">MEAN", "WHY NOT"]);
    for program in programs {
        table.row([
            Field::new(&program.name),
            Field::new(&program.hook),
            if program.attached { Field::look(Look::Good, "yes") } else { Field::look(Look::Bad, "no") },
            Field::new(program.runs.map(count).unwrap_or_default()),
            Field::new(program.mean_ns.map(nanoseconds).unwrap_or_default()),
            Field::new(program.missing_reason.as_deref().unwrap_or_default()),
        ]);
    }
    for column in ["RUNS", "MEAN", "WHY NOT"] {
        table.drop_if_empty(column);
    }
    table
}

fn others(programs: &[OtherProgram]) -> Table {
    let mut table = Table::new(&["NAME", "HOOK", ">ID", "RUNS"]);
    for program in programs {
        table.row([
            Field::new(&program.name),
            Field::new(&program.hook),
            Field::new(program.id.to_string()),
            Field::new(if program.runs_first { "before ours" } else { "after ours" }),
        ]);
    }
    table
}

fn maps(status: &Status) -> Table {
    let mut table = Table::new(&["NAME", ">ENTRIES", ">CAPACITY", ">USED", ">MEMORY"]);
    for map in &status.maps {
        #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
        let used = map.entries.filter(|_| map.capacity > 0).map(|entries| entries as f64 / map.capacity as f64);
        // A table of one entry is full from the start and never grows.
        let look = if map.capacity > 1 && used.is_some_and(|used| used >= 0.9) { Look::Warn } else { Look::Plain };
        table.row([
            Field::new(&map.name),
            Field::new(map.entries.map(count).unwrap_or_default()),
            Field::new(count(map.capacity)),
            Field::look(look, used.map(percent).unwrap_or_default()),
            Field::new(map.bytes.map(bytes).unwrap_or_default()),
        ]);
    }
    table
}

fn sources(sources: &[Source], now: Time) -> Table {
    let mut table = Table::new(&["NAME", "SYNCED", "UPDATED", "ERROR"]);
    for source in sources {
        let updated = source.last_update.map(|at| format!("{} ago", duration(at.age(now))));
        table.row([
            Field::new(&source.name),
            if source.synced { Field::look(Look::Good, "yes") } else { Field::look(Look::Bad, "no") },
            Field::new(updated.unwrap_or_else(|| "never".to_owned())),
            Field::look(Look::Bad, source.error.as_deref().unwrap_or_default()),
        ]);
    }
    table.drop_if_empty("ERROR");
    table
}
