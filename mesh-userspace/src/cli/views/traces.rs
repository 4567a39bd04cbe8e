//! `mesh traces`.

use crate::{
    api::{Span, Trace, TraceSummary},
    cli::{
        output::{Look, Style, cut, harmless},
        table::{Field, Table},
        units::milliseconds,
    },
};
use serde_json::Value;
use std::fmt::Write;

/// More characters of a path are too many for a table.
const PATH: usize = 60;

/// Requests whose traces were kept.
pub(in crate::cli) fn traces(traces: &[TraceSummary], style: Style) -> String {
    let titles =
        ["TRACE", "START", "SERVICE", "ENDPOINT", "METHOD", "PATH", ">STATUS", ">DURATION", ">TRIES", "REASON"];
    let mut table = Table::new(&titles);
    for trace in traces {
        let status = trace.status.map(|status| status.to_string()).unwrap_or_default();
        let look = if trace.status.is_none_or(|status| status >= 500) { Look::Bad } else { Look::Plain };
        table.row([
            Field::new(&trace.trace_id),
            Field::new(trace.start.to_string()),
            Field::new(trace.service.as_deref().unwrap_or_default()),
            Field::new(trace.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default()),
            Field::new(cut(&trace.method, 16)),
            Field::new(cut(&trace.path, PATH)),
            Field::look(look, status),
            Field::new(milliseconds(trace.duration_ms)),
            Field::look(if trace.attempts > 1 { Look::Warn } else { Look::Plain }, trace.attempts.to_string()),
            Field::new(trace.reason.as_deref().unwrap_or_default()),
        ]);
    }
    table.drop_if_empty("REASON");
    table.render(style, 0)
}

/// One trace on a terminal of so many columns: what took how long, and what there is to know of each part.
pub(in crate::cli) fn trace(trace: &Trace, columns: usize, style: Style) -> String {
    let columns = columns.max(NARROWEST);
    let ordered = ordered(&trace.spans);
    let whole = trace.spans.iter().map(|span| span.offset_ms + span.duration_ms).fold(0.0, f64::max);
    let mut text = String::new();
    let mut line = |title: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} {value}", style.paint(Look::Bold, &format!("{title:<8}")));
    };
    line("Trace", &harmless(&trace.trace_id));
    if let Some(first) = trace.spans.first() {
        line("Start", &first.start.to_string());
    }
    line("Duration", &milliseconds(whole));
    text.push('\n');
    waterfall(&ordered, whole, columns, style, &mut text);
    for (_, span) in &ordered {
        text.push('\n');
        details(span, columns, style, &mut text);
    }
    text
}

/// The fewest columns that are made use of.
const NARROWEST: usize = 60;
/// Levels that are told apart by their indentation.
const DEEPEST: usize = 6;

/// A span with its depth.
type Placed<'a> = (usize, &'a Span);

/// Spans as a tree is read: each followed by what is part of it. Whatever is part of something that is not here is a root.
fn ordered(spans: &[Span]) -> Vec<Placed<'_>> {
    let mut ordered = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    let is_root = |span: &Span| spans.iter().all(|other| span.parent_id.as_ref() != Some(&other.span_id));
    let roots = (0..spans.len()).filter(|at| is_root(&spans[*at]));
    // All of them once more, for what would be part of itself.
    for root in roots.chain(0..spans.len()).collect::<Vec<_>>() {
        let mut open = vec![(0, root)];
        while let Some((depth, at)) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            ordered.push((depth, &spans[at]));
            let parts =
                (0..spans.len()).rev().filter(|part| spans[*part].parent_id.as_ref() == Some(&spans[at].span_id));
            open.extend(parts.map(|part| (depth + 1, part)));
        }
    }
    ordered
}

fn waterfall(spans: &[Placed<'_>], whole: f64, columns: usize, style: Style, text: &mut String) {
    let labels: Vec<String> = spans.iter().map(label).collect();
    let numbers: Vec<[String; 2]> =
        spans.iter().map(|(_, span)| [span.offset_ms, span.duration_ms].map(milliseconds)).collect();
    let length = |text: &String| text.chars().count();
    let widths = [0, 1].map(|column| numbers.iter().map(|row| length(&row[column])).max().unwrap_or(0).max(5));
    let numbers_take = widths[0] + widths[1] + 4;
    let label_takes = labels.iter().map(length).max().unwrap_or(0).min((columns - numbers_take) / 2);
    let bar_takes = columns - label_takes - numbers_take - 2;
    for ((label, (_, span)), [offset, duration]) in labels.iter().zip(spans).zip(numbers) {
        let label = cut(label, label_takes);
        let missing = " ".repeat(label_takes - length(&label));
        let look = if span.error.is_some() { Look::Bad } else { Look::Plain };
        let bar = bar(span, whole, bar_takes);
        let rest = " ".repeat(bar_takes - length(&bar));
        let _ = writeln!(
            text,
            "{}{missing}  {}{rest}  {offset:>o$}  {duration:>d$}",
            style.paint(look, &label),
            style.paint(if look == Look::Bad { Look::Bad } else { Look::Good }, &bar),
            o = widths[0],
            d = widths[1],
        );
    }
}

fn label((depth, span): &Placed<'_>) -> String {
    let indentation = "  ".repeat((*depth).min(DEEPEST));
    let endpoint = span.attributes.get("mesh.endpoint").and_then(Value::as_str);
    let endpoint = endpoint.map(|endpoint| format!(" {endpoint}")).unwrap_or_default();
    let failed = if span.error.is_some() { " !" } else { "" };
    harmless(&format!("{indentation}{}{endpoint}{failed}", span.name))
}

/// Where a span lies in the whole, as blanks and blocks.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a width, brought into range")]
fn bar(span: &Span, whole: f64, width: usize) -> String {
    let place = |ms: f64| if whole > 0.0 { (ms / whole * width as f64).round().max(0.0) as usize } else { 0 };
    let start = place(span.offset_ms).min(width.saturating_sub(1));
    let end = place(span.offset_ms + span.duration_ms).min(width);
    let blocks = if end > start { "█".repeat(end - start) } else { "▏".to_owned() };
    format!("{}{blocks}", " ".repeat(start))
}

fn details(span: &Span, columns: usize, style: Style, text: &mut String) {
    let title = cut(&format!("{} {}", span.name, span.span_id), columns);
    let _ = writeln!(text, "{}", style.paint(Look::Bold, &title));
    let widest = span.attributes.keys().map(|key| key.chars().count()).max().unwrap_or(0).min(columns / 2);
    for (key, value) in &span.attributes {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (key, room) = (cut(key, widest), columns.saturating_sub(widest + 4));
        let _ = writeln!(text, "  {key:<widest$}  {}", cut(&value, room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use proptest::prelude::*;

    const PLAIN: Style = Style { color: false };

    #[test]
    fn a_trace_is_shown_as_what_took_how_long_and_why() {
        let text = trace(&sample::trace(), 80, PLAIN);
        assert_eq!(
            text,
            "\
Trace    4bf92f3577b34da6a3ce929d0e0e4736
Start    2026-01-31T12:00:00.000Z
Duration 40 ms

GET checkout               ███████████████████████████████████████   0 ms  40 ms
  pick 10.0.1.5:8080       ▏                                         0 ms   0 ms
  attempt 10.0.1.5:8080 !  ██████████                                0 ms  10 ms
  pick 10.0.1.6:8080                 ▏                              10 ms   0 ms
  attempt 10.0.1.6:8080                         ██████████████████  22 ms  18 ms
"
            .to_owned()
                + &text[text.match_indices("\n\n").nth(1).unwrap().0 + 1..]
        );
        assert!(text.contains("\nGET checkout 00f067aa0ba902b7\n"), "{text}");
        assert!(text.contains("\n  http.response.status_code  200\n"), "{text}");
    }

    #[test]
    fn what_a_client_sent_cannot_write_to_the_terminal_nor_fill_it() {
        let mut evil = sample::trace();
        let path = format!("/\u{1b}[2J\r\n{}", "x".repeat(5000));
        for span in &mut evil.spans {
            span.name = path.clone();
            span.attributes.insert("url.path".to_owned(), path.clone().into());
        }
        for columns in [0, 60, 80, 200] {
            let text = trace(&evil, columns, PLAIN);
            assert!(text.lines().all(|line| line.chars().count() <= columns.max(NARROWEST)), "{columns}:\n{text}");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        }
        let mut rows = sample::traces();
        rows[0].path.clone_from(&path);
        let text = traces(&rows, PLAIN);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.lines().all(|line| line.len() < 300), "{text}");
    }

    #[test]
    fn spans_that_are_part_of_themselves_are_shown_once() {
        let mut looped = sample::trace();
        looped.spans[0].parent_id = Some(looped.spans[1].span_id.clone());
        assert_eq!(ordered(&looped.spans).len(), looped.spans.len());
        looped.spans.clear();
        assert!(trace(&looped, 80, PLAIN).contains("Duration 0 ms"));
    }

    proptest! {
        #[test]
        fn every_bar_lies_within_the_whole(offset in 0.0..1e9, duration in 0.0..1e9, longer in 0.0..1e9, width in 1..200_usize) {
            let mut span = sample::trace().spans.remove(0);
            (span.offset_ms, span.duration_ms) = (offset, duration);
            let shown = bar(&span, offset + duration + longer, width).chars().count();
            prop_assert!((1..=width).contains(&shown), "{}", shown);
        }
    }
}
