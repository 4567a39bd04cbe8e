//! The state as it stands on a screen.

use super::{
    column::{self, Cell, Kind, Row, Shown},
    header::{self, Part},
    keys,
    list::{Browse, List},
    paint::{paint, reversed},
    sample::MOST_CONNECTIONS,
    state::{State, View},
    text,
};
use crate::cli::{
    output::{Look, Style, harmless},
    units::{count, duration},
};
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Rect},
    style::{Color, Modifier, Style as Paint},
    text::{Line, Span},
    widgets::{Block, Cell as TableCell, Clear, Paragraph, Row as TableRow, Table, Widget, Wrap},
};

/// Less than this says nothing.
const LEAST: (u16, u16) = (40, 10);
/// From so many rows on there is room for what is less important.
const TALL: u16 = 16;

/// Where everything is.
struct Places {
    head: Rect,
    notices: Rect,
    tabs: Rect,
    table: Rect,
    details: Rect,
    keys: Rect,
}

impl Places {
    fn new(area: Rect, notices: usize) -> Self {
        let most = if area.height >= 2 * TALL { 6 } else { 2 };
        let notices = u16::try_from(notices).unwrap_or(most).min(most);
        let details = if area.height >= TALL { 2 } else { 0 };
        let mut top = area.top();
        let mut take = |rows: u16| {
            let rows = rows.min(area.bottom() - top);
            top += rows;
            Rect { y: top - rows, height: rows, ..area }
        };
        let (head, notices, tabs) = (take(2), take(notices), take(1));
        let left = area.height.saturating_sub(head.height + notices.height + tabs.height);
        Self {
            head,
            notices,
            tabs,
            table: take(left.saturating_sub(details + 1)),
            details: take(details),
            keys: take(1),
        }
    }
}

/// Draws `state` on `area`. How many rows there are room for is told to the list first.
pub(super) fn render(state: &mut State, style: Style, area: Rect, buffer: &mut Buffer) {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{}x{} is too small: mesh top needs {}x{}", area.width, area.height, LEAST.0, LEAST.1);
        Paragraph::new(text).wrap(Wrap { trim: true }).render(area, buffer);
        return;
    }
    let notices = header::notices(state);
    let places = Places::new(area, notices.len());
    state.list_mut().fit(usize::from(places.table.height.saturating_sub(1)));
    render_head(state, style, places.head, buffer);
    render_notices(&notices, style, places.notices, buffer);
    render_tabs(state, style, places.tabs, buffer);
    match state.view {
        View::Services => render_list(&state.services, state, style, &places, buffer),
        View::Endpoints => render_list(&state.endpoints, state, style, &places, buffer),
        View::Connections => render_list(&state.connections, state, style, &places, buffer),
    }
    if state.failure.is_some() {
        // What was true before may not be any more.
        for place in [places.head, places.table, places.details] {
            buffer.set_style(place, Paint::new().fg(Color::Reset).add_modifier(Modifier::DIM));
        }
    }
    render_keys(state, style, places.keys, buffer);
    if state.help {
        render_help(style, area, buffer);
    }
}

/// Everything that is written goes through here: nothing in it can do anything to the terminal.
fn span(part: &Part, style: Style) -> Span<'static> {
    Span::styled(harmless(&part.1), paint(part.0, style))
}

fn line(parts: &[Part], style: Style) -> Line<'static> {
    let mut spans = Vec::new();
    for part in parts {
        if !spans.is_empty() {
            spans.push(Span::raw("  "));
        }
        spans.push(span(part, style));
    }
    Line::from(spans)
}

/// As many of `parts` as have room, but one at least.
fn fitting(mut parts: Vec<Part>, style: Style, width: u16) -> Line<'static> {
    while parts.len() > 1 && line(&parts, style).width() > usize::from(width) {
        parts.pop();
    }
    line(&parts, style)
}

/// `left`, and `right` at the other end, which goes first.
fn render_ends(left: &[Part], right: &[Part], style: Style, area: Rect, buffer: &mut Buffer) {
    let right = line(right, style);
    let taken = u16::try_from(right.width()).unwrap_or(u16::MAX).min(area.width);
    line(left, style).render(Rect { width: area.width.saturating_sub(taken.saturating_add(1)), ..area }, buffer);
    right.render(Rect { x: area.right() - taken, width: taken, ..area }, buffer);
}

fn render_head(state: &State, style: Style, area: Rect, buffer: &mut Buffer) {
    let Some(status) = &state.status else { return };
    let answered = state.answered.map(|at| (Look::Plain, header::clock(at)));
    let [first, second] = [0, 1].map(|row| Rect { y: area.y + row, height: 1, ..area });
    render_ends(&header::daemon(status), answered.as_slice(), style, first, buffer);
    fitting(header::totals(state, status), style, second.width).render(second, buffer);
}

fn render_notices(notices: &[Part], style: Style, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.height);
    for (row, (at, notice)) in area.rows().zip(notices.iter().enumerate()) {
        line(std::slice::from_ref(notice), style).render(row, buffer);
        let more = notices.len() - room;
        if at + 1 == room && more > 0 {
            let more = line(&[(Look::Bold, format!(" +{} more: mesh status", count(more as u64)))], style);
            let width = u16::try_from(more.width()).unwrap_or(u16::MAX).min(row.width);
            more.render(Rect { x: row.right() - width, width, ..row }, buffer);
        }
    }
}

fn render_tabs(state: &State, style: Style, area: Rect, buffer: &mut Buffer) {
    let mut spans = Vec::new();
    for (number, view) in View::ALL.into_iter().enumerate() {
        let name = match view {
            View::Services => "Services",
            View::Endpoints => "Endpoints",
            View::Connections => "Connections",
        };
        let scope = match (&state.scope.service, state.scope.endpoint) {
            _ if view != state.view => String::new(),
            (_, Some(endpoint)) => format!(" to {endpoint}"),
            (Some(service), None) => format!(" of {}", text::cut_end(&harmless(service), 24)),
            (None, None) => String::new(),
        };
        let paint = if view == state.view { reversed().add_modifier(Modifier::BOLD) } else { Paint::new() };
        spans.push(Span::styled(format!(" {} {name}{scope} ", number + 1), paint));
    }
    let (shown, all) = state.list().counts();
    let (title, descends) = state.list().order();
    let mut right = vec![
        (
            Look::Plain,
            if shown == all { count(all as u64) } else { format!("{} of {}", count(shown as u64), count(all as u64)) },
        ),
        (Look::Plain, format!("by {title} {}", if descends { '▼' } else { '▲' })),
        (Look::Plain, format!("every {}", duration(state.interval))),
    ];
    if state.paused {
        right.push((Look::Bad, "PAUSED".to_owned()));
    }
    let left = Line::from(spans);
    let room = area.width.saturating_sub(u16::try_from(left.width()).unwrap_or(u16::MAX).saturating_add(1));
    left.render(area, buffer);
    // What is least new goes first.
    while right.len() > 1 && line(&right, style).width() > usize::from(room) {
        right.remove(0);
    }
    let right = line(&right, style);
    if let Ok(width) = u16::try_from(right.width())
        && width <= room
    {
        right.render(Rect { x: area.right() - width, width, ..area }, buffer);
    }
}

fn render_list<R: Row>(list: &List<R>, state: &State, style: Style, places: &Places, buffer: &mut Buffer) {
    let (rows, selected) = list.on_screen();
    let wants = |at: usize| {
        // What is the same for all of them is said above.
        let said = match R::COLUMNS[at].title {
            "SERVICE" => state.scope.service.is_some(),
            "ENDPOINT" => state.scope.endpoint.is_some(),
            _ => false,
        };
        list.wants(at).filter(|_| !said)
    };
    let columns = column::fit(R::COLUMNS, usize::from(places.table.width), list.sorted(), wants);
    let cells = rows.iter().map(|row| {
        TableRow::new(columns.iter().map(|Shown { column, width }| {
            let column = &R::COLUMNS[*column];
            table_cell(column::cut((column.cell)(row, *width), column.kind, *width), column.kind, style)
        }))
    });
    let (_, descends) = list.order();
    let titles = columns.iter().map(|shown| {
        let column = &R::COLUMNS[shown.column];
        let mark = match (shown.column == list.sorted(), descends) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        table_cell(Cell { text: format!("{}{mark}", column.title), look: Look::Bold }, column.kind, style)
    });
    let widths = columns.iter().map(|shown| Constraint::Length(u16::try_from(shown.width).unwrap_or(u16::MAX)));
    let table = Table::new(cells, widths).header(TableRow::new(titles)).column_spacing(column::GAP as u16);
    Widget::render(table, places.table, buffer);
    if let Some(row) = selected.and_then(|at| places.table.rows().nth(at + 1)) {
        buffer.set_style(row, reversed());
    }
    if rows.is_empty()
        && let Some(row) = places.table.rows().nth(1)
    {
        line(&[nothing(state, list.counts())], style).render(row, buffer);
    }
    if let Some(row) = list.selected() {
        for (place, text) in places.details.rows().zip(row.details()) {
            line(&[(Look::Plain, text)], style).render(place, buffer);
        }
    }
}

fn table_cell(cell: Cell, kind: Kind, style: Style) -> TableCell<'static> {
    let line = Line::from(Span::styled(cell.text, paint(cell.look, style)));
    TableCell::from(if kind == Kind::Number { line.right_aligned() } else { line })
}

/// Why a list is empty.
fn nothing(state: &State, (_, all): (usize, usize)) -> Part {
    let what = match state.view {
        View::Services => "services",
        View::Endpoints => "endpoints",
        View::Connections => "connections",
    };
    match &state.no_connections {
        Some(why) if state.view == View::Connections => (Look::Warn, why.clone()),
        _ if all > 0 => (Look::Faint, format!("none of {} {what} has: {}", count(all as u64), state.list().filtered())),
        _ if state.is_waiting() => (Look::Faint, "waiting for the daemon".to_owned()),
        _ => (Look::Faint, format!("no {what}")),
    }
}

fn render_keys(state: &State, style: Style, area: Rect, buffer: &mut Buffer) {
    let filter = state.list().filtered();
    if state.is_typing() {
        let typed = (Look::Bold, format!("/{filter}_"));
        let keys = (Look::Faint, "Enter keeps it, Esc takes it back".to_owned());
        return render_ends(&[typed], &[keys], style, area, buffer);
    }
    let mut parts = Vec::new();
    if state.view == View::Connections && state.list().counts().1 >= MOST_CONNECTIONS as usize {
        parts.push((Look::Warn, format!("the {} that received most", count(MOST_CONNECTIONS.into()))));
    }
    if !filter.is_empty() {
        parts.push((Look::Bold, format!("/{filter}")));
    }
    parts.extend(keys::SHORT.map(|key| (Look::Plain, key.to_owned())));
    fitting(parts, style, area.width).render(area, buffer);
}

fn render_help(style: Style, area: Rect, buffer: &mut Buffer) {
    let lines = keys::HELP.map(|(keys, what)| {
        let keys = Span::styled(format!(" {keys:<13}"), paint(Look::Bold, style));
        Line::from(vec![keys, Span::raw(format!("{what} "))])
    });
    let width = lines.iter().map(Line::width).max().unwrap_or_default();
    let size = (u16::try_from(width + 2).unwrap_or(u16::MAX), u16::try_from(lines.len() + 2).unwrap_or(u16::MAX));
    let (width, height) = (size.0.min(area.width), size.1.min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    Paragraph::new(lines.to_vec()).block(Block::bordered().title(" mesh top: keys ")).render(place, buffer);
}
