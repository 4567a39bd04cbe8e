//! From looks and keys to what stands on the screen.

use super::{
    keys::Key,
    latencies::Latency,
    sample::{Endpoints, Sample, Scope, Taken},
    state::{Effect, State, View},
    view,
};
use crate::{
    api::{CircuitState, Percentiles, Service, Source, Status, Time, sample},
    cli::output::Style,
};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Modifier};
use std::time::{Duration, Instant};
use unicode_width::UnicodeWidthStr;

const PLAIN: Style = Style { color: false };

/// A state, and how looks come to it.
struct Top {
    state: State,
    start: Instant,
}

impl Top {
    fn new() -> Self {
        let start = Instant::now();
        Self { state: State::new(start, Duration::from_secs(1)), start }
    }

    /// A look after so many seconds.
    fn look(&mut self, seconds: u64, change: impl FnOnce(&mut Sample)) {
        let at = self.start + Duration::from_secs(seconds);
        let mut sample = Sample {
            whole: Some((sample::status(), Taken { at, rows: sample::services() })),
            endpoints: Some(Taken { at, rows: sample::endpoints() }),
            connections: self.state.wanted().connections.map(|_| Ok(Taken { at, rows: sample::connections() })),
        };
        status(&mut sample).config.error = None;
        status(&mut sample).warnings.clear();
        change(&mut sample);
        self.state.answered(sample, sample::noon().after(Duration::from_secs(seconds)));
    }

    /// Two looks, and what happened in the second between them.
    fn busy() -> Self {
        let mut top = Self::new();
        top.look(0, |_| {});
        top.look(1, busier);
        top
    }

    fn press(&mut self, keys: &[Key]) {
        for key in keys {
            assert_eq!(self.state.press(*key), Effect::Show, "{key:?}");
        }
    }

    fn write(&mut self, text: &str) {
        text.chars().for_each(|character| self.press(&[Key::Char(character)]));
    }

    fn draw(&mut self, width: u16, height: u16, style: Style) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let state = &mut self.state;
        terminal.draw(|frame| view::render(state, style, frame.area(), frame.buffer_mut())).unwrap();
        terminal.backend().buffer().clone()
    }

    fn screen(&mut self, width: u16, height: u16) -> Vec<String> {
        lines(&self.draw(width, height, PLAIN))
    }
}

fn status(sample: &mut Sample) -> &mut Status {
    &mut sample.whole.as_mut().unwrap().0
}

fn services(sample: &mut Sample) -> &mut Vec<Service> {
    &mut sample.whole.as_mut().unwrap().1.rows
}

fn busier(sample: &mut Sample) {
    let checkout = &mut services(sample)[0];
    checkout.requests_total += 120;
    checkout.connections_total += 3;
    checkout.sent_bytes_total += 1536;
    checkout.received_bytes_total += 20 << 20;
    let endpoint = &mut sample.endpoints.as_mut().unwrap().rows[0];
    endpoint.responses_total += 120;
    endpoint.connections_total += 3;
    endpoint.sent_bytes_total += 1536;
    if let Some(Ok(connections)) = &mut sample.connections {
        connections.rows[0].received_bytes += 2048;
    }
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let row = |y: u16| {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += u16::try_from(symbol.width().max(1)).unwrap();
        }
        line.trim_end().to_owned()
    };
    (0..buffer.area.height).map(row).collect()
}

/// The line that begins so.
fn line<'a>(lines: &'a [String], begin: &str) -> &'a str {
    lines.iter().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin:?}: {lines:#?}"))
}

/// The words of a line, however far apart.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn services_on_a_small_terminal() {
    let screen = Top::busy().screen(80, 24);
    assert_eq!(screen[0], "node-a  mesh 0.1.0  ebpf  up 3h 12m  interception works  bypass off    12:00:01Z");
    assert_eq!(screen[1], "3 connections  req/s 120  conn/s 3  sent 1.5 KiB/s  recv 20 MiB/s  2 services");
    assert_eq!(screen[2], " 1 Services  2 Endpoints  3 Connections                   2  by NAME ▲  every 1s");
    assert_eq!(screen[3], "NAME▲        HEALTHY CIRCUIT    REQ/S  CONN/S   RECV/S     P50     P99  FAIL/S");
    assert_eq!(screen[4], "checkout         2/2 closed       120       3   20 MiB       -       -       0");
    assert_eq!(screen[5], "search           0/0 closed         -       0      0 B       -       -       0");
    assert_eq!(screen[21], "checkout: http, round_robin, 10.96.0.10:80 [fd00::10]:80 10.96.0.11:443, 1 drain");
    assert_eq!(screen[22], "1,207 connections, 7 failed, 3 KiB sent, 40 MiB received; refused 7 (family_mism");
    assert_eq!(screen[23], "? help  q quit  / filter  < > sort  r reverse  Enter open  Esc back  Space pause");
}

#[test]
fn services_on_a_large_terminal_have_all_their_columns() {
    let screen = Top::busy().screen(200, 50);
    let titles =
        "NAME▲ VIP PROTOCOL POLICY HEALTHY CIRCUIT REQ/S CONN/S ACTIVE SENT/S RECV/S P50 P99 FAIL/S LAST MINUTE";
    assert_eq!(words(line(&screen, "NAME")), titles);
    let row = "checkout 10.96.0.10:80 +2 http round_robin 2/2 closed 120 3 3 1.5 KiB 20 MiB - - 0 █";
    assert_eq!(words(line(&screen, "checkout ")), row);
    let row = "search 10.96.0.20:9200 tcp random 0/0 closed - 0 0 0 B 0 B - - 0 ▁";
    assert_eq!(words(line(&screen, "search ")), row);
}

#[test]
fn endpoints_of_a_service_and_their_connections() {
    let mut top = Top::busy();
    top.press(&[Key::Enter]);
    let screen = top.screen(80, 24);
    assert_eq!(
        screen[2..6].iter().map(|line| words(line)).collect::<Vec<_>>(),
        [
            "1 Services 2 Endpoints of checkout 3 Connections 2 by SERVICE ▲ every 1s",
            "ENDPOINT HEALTH CIRCUIT REQ/S CONN/S RECV/S LATENCY FAIL/S",
            "10.0.1.5:8080 healthy closed 120 3 0 B 1.25 ms 0",
            "[fd00:1::5]:8080 draining closed 0 0 0 B - 0",
        ]
    );
    assert_eq!(screen[21], "10.0.1.5:8080 of checkout: weight 2, zone eu-west-1a, region eu-west, healthy, c");
    assert_eq!(screen[22], "1,207 connections, 3 KiB sent, 20 MiB received, 12 segments sent again; failed 7");
    top.press(&[Key::Enter]);
    let scope = Scope { service: Some("checkout".to_owned()), endpoint: Some("10.0.1.5:8080".parse().unwrap()) };
    assert_eq!(top.state.wanted().connections, Some(scope));
    top.look(2, |_| {});
    top.look(3, busier);
    let screen = top.screen(80, 24);
    assert_eq!(
        screen[2..6].iter().map(|line| words(line)).collect::<Vec<_>>(),
        [
            "1 Services 2 Endpoints 3 Connections to 10.0.1.5:8080 by RECV/S ▼ every 1s",
            "PROCESS CGROUP STATE SENT/S RECV/S▼ RTT RETR AGE",
            "curl[4711] /shop/frontend established 0 B 2 KiB 250 µs 2 1m 1s",
            "- - syn_sent 0 B 0 B - 0 120 ms",
        ]
    );
    assert_eq!(screen[21], "curl[4711], cgroup /shop/frontend, netns 4026531840");
    assert!(screen[22].starts_with("10.0.9.1:40000 → 10.96.0.10:80 → 10.0.1.5:8080 (direct, established), 1.5 KiB"));
    top.press(&[Key::Escape]);
    assert_eq!((top.state.view, top.state.scope.endpoint), (View::Endpoints, None));
    top.press(&[Key::Escape]);
    assert_eq!((top.state.view, &top.state.scope), (View::Services, &Scope::default()));
}

#[test]
fn an_open_circuit_stands_out_with_colours_and_without() {
    let mut top = Top::new();
    top.look(0, |sample| {
        services(sample)[0].endpoints.open = 1;
        services(sample)[1].circuit = CircuitState::Open;
    });
    for style in [PLAIN, Style { color: true }] {
        let buffer = top.draw(80, 24, style);
        let screen = lines(&buffer);
        assert!(line(&screen, "checkout").contains(" 1 OPEN "), "{screen:#?}");
        let row = screen.iter().position(|line| line.starts_with("search")).unwrap();
        let at = screen[row].find("OPEN").unwrap();
        let cell = &buffer[(u16::try_from(at).unwrap(), u16::try_from(row).unwrap())];
        assert!(cell.modifier.contains(Modifier::REVERSED | Modifier::BOLD), "{cell:?}");
    }
    let no_colors = |buffer: &Buffer| buffer.content.iter().all(|cell| cell.fg == cell.bg);
    assert!(no_colors(&top.draw(80, 24, PLAIN)) && !no_colors(&top.draw(80, 24, Style { color: true })));
}

#[test]
fn a_daemon_that_does_not_answer_is_said_and_the_last_values_are_greyed() {
    let mut top = Top::busy();
    let at = |seconds| sample::noon().after(Duration::from_secs(seconds));
    top.state.failed("no daemon at /run/x: nobody listens".to_owned(), at(5));
    top.state.failed("no daemon at /run/x: nobody listens".to_owned(), at(19));
    let buffer = top.draw(80, 24, PLAIN);
    let screen = lines(&buffer);
    assert_eq!(screen[2], "NO ANSWER since 12:00:05Z (14s), trying again: no daemon at /run/x: nobody liste");
    let dim = |row: u16| buffer[(0, row)].modifier.contains(Modifier::DIM);
    assert!(line(&screen, "checkout").contains("120"), "{screen:#?}");
    assert!(dim(0) && dim(5) && !dim(2));
    top.look(20, |_| {});
    assert!(!top.screen(80, 24).iter().any(|line| line.contains("NO ANSWER")));
}

#[test]
fn what_is_wrong_with_the_node_is_said_in_two_lines_at_most() {
    let mut top = Top::new();
    top.look(0, |sample| {
        status(sample).bypass = true;
        status(sample).interception_ok = Some(false);
        status(sample).sources.push(Source {
            name: "etcd".to_owned(),
            synced: false,
            last_update: None,
            error: Some("connection refused".to_owned()),
            stale_since: None,
        });
        status(sample).warnings = (0..9).map(|n| format!("warning {n}")).collect();
    });
    let screen = top.screen(80, 24);
    assert!(screen[0].contains("interception BROKEN  bypass ON"), "{screen:#?}");
    assert_eq!(screen[2], "source etcd has not synced: connection refused");
    assert!(screen[3].starts_with("warning 0") && screen[3].ends_with("+8 more: mesh status"), "{screen:#?}");
    assert!(top.screen(80, 50).iter().filter(|line| line.starts_with("warning")).count() > 3);
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    const HOSTILE: &str = "\x1b[2J\x1b]0;owned\x07\r\n\u{202e}e\u{301}\u{200b}日本\u{9b}1m\u{fe0f}";
    let mut top = Top::new();
    top.press(&[Key::Char('3')]);
    let hostile = |sample: &mut Sample| {
        status(sample).node = HOSTILE.to_owned();
        status(sample).warnings = vec![HOSTILE.to_owned()];
        for service in services(sample) {
            service.name = HOSTILE.to_owned();
            service.intercepted = false;
            service.not_intercepted_reason = Some(HOSTILE.to_owned());
        }
        for endpoint in &mut sample.endpoints.as_mut().unwrap().rows {
            endpoint.service = HOSTILE.to_owned();
            endpoint.zone = Some(HOSTILE.to_owned());
            endpoint.connect_failures = [(HOSTILE.to_owned(), 3)].into();
        }
        let Some(Ok(connections)) = &mut sample.connections else { return };
        for connection in &mut connections.rows {
            connection.service = Some(HOSTILE.to_owned());
            connection.state = HOSTILE.to_owned();
            connection.client.command = Some(HOSTILE.to_owned());
            connection.client.cgroup = Some(HOSTILE.to_owned());
        }
    };
    top.look(0, hostile);
    let harmless = |top: &mut Top| {
        for width in [41, 80, 200] {
            for cell in top.draw(width, 40, PLAIN).content() {
                let symbol = cell.symbol();
                assert!(!symbol.chars().any(char::is_control) && symbol.chars().count() == 1, "{symbol:?}");
            }
        }
    };
    harmless(&mut top);
    for view in ['1', '2'] {
        top.press(&[Key::Char(view)]);
        harmless(&mut top);
    }
    top.press(&[Key::Char('1'), Key::Enter]);
    harmless(&mut top);
    top.write("/\u{202e}\u{301}\u{1b}");
    harmless(&mut top);
    top.state.failed(HOSTILE.to_owned(), sample::noon());
    harmless(&mut top);
}

#[test]
fn wide_characters_do_not_shift_columns() {
    let mut top = Top::new();
    top.look(0, |sample| services(sample)[0].name = "日本語のサービスの名前".to_owned());
    let screen = top.screen(80, 24);
    let at = |begin: &str, what: &str| {
        let line = line(&screen, begin);
        line[..line.find(what).unwrap()].width()
    };
    assert_eq!(at("日本", "closed"), at("search", "closed"), "{screen:#?}");
}

#[test]
fn a_screen_that_is_too_small_says_so() {
    let mut top = Top::busy();
    assert_eq!(top.screen(30, 5)[..2], ["30x5 is too small: mesh top", "needs 40x10"]);
    assert!(line(&top.screen(40, 10), "checkout").contains("2/2"));
}

#[test]
fn a_filter_is_typed_kept_and_taken_back() {
    let mut top = Top::busy();
    top.write("/tcp");
    assert!(top.state.is_typing());
    let screen = top.screen(80, 24);
    assert!(screen[4].starts_with("search") && screen[2].contains("1 of 2"), "{screen:#?}");
    assert!(screen[23].starts_with("/tcp_"), "{screen:#?}");
    top.press(&[Key::Enter]);
    assert!(top.screen(80, 24)[23].starts_with("/tcp  ? help"));
    top.write("/x");
    assert_eq!(top.screen(80, 24)[4], "none of 2 services has: tcpx");
    top.press(&[Key::Escape]);
    assert_eq!(top.state.list().filtered(), "tcp", "as it was before");
    top.write("/q?1");
    top.press(&[Key::Backspace, Key::Erase]);
    top.write("q");
    assert_eq!(top.state.list().filtered(), "q", "these are letters now");
    top.press(&[Key::Enter, Key::Escape]);
    assert_eq!((top.state.list().filtered(), top.state.view), ("", View::Services));
}

#[test]
fn little_is_asked_of_a_daemon_with_many_endpoints() {
    let mut top = Top::new();
    assert_eq!(top.state.wanted().endpoints, Endpoints::None, "it is not known yet how many there are");
    top.look(0, |_| {});
    assert_eq!(top.state.wanted().endpoints, Endpoints::All);
    top.look(1, |sample| status(sample).endpoints = 100_000);
    assert_eq!((top.state.wanted().endpoints, top.state.wanted().connections), (Endpoints::None, None));
    top.press(&[Key::Enter]);
    assert_eq!(top.state.wanted().endpoints, Endpoints::Of("checkout".to_owned()));
    top.press(&[Key::Char('3')]);
    assert_eq!(top.state.wanted().endpoints, Endpoints::None);
}

#[test]
fn the_second_look_comes_soon_and_so_does_one_at_a_daemon_that_is_away() {
    let mut top = Top::new();
    top.state.interval = Duration::from_secs(60);
    assert_eq!(top.state.pause(), Duration::from_secs(1));
    top.look(0, |_| {});
    top.look(1, |_| {});
    assert_eq!(top.state.pause(), Duration::from_secs(60));
    top.press(&[Key::Enter]);
    assert_eq!(top.state.pause(), Duration::from_secs(1), "something else is looked at");
    top.look(2, |_| {});
    top.look(3, |_| {});
    top.state.failed("gone".to_owned(), sample::noon());
    assert_eq!(top.state.pause(), Duration::from_secs(1));
}

#[test]
fn the_interval_has_steps() {
    let mut top = Top::new();
    let mut press = |key: char| {
        top.press(&[Key::Char(key)]);
        top.state.interval.as_secs()
    };
    assert_eq!(['-', '+', '+', '+', '-', '+'].map(&mut press), [1, 2, 5, 10, 5, 10]);
    assert_eq!(['+', '+', '+', '+', '-'].map(&mut press), [30, 60, 60, 60, 30]);
}

#[test]
fn connections_that_cannot_be_listed_say_why() {
    let mut top = Top::new();
    top.press(&[Key::Char('3')]);
    assert_eq!(top.screen(80, 24)[4], "waiting for the daemon");
    top.look(0, |sample| sample.connections = Some(Err("there is no kernel".to_owned())));
    assert_eq!(top.screen(80, 24)[4], "there is no kernel");
    top.look(1, |_| {});
    assert!(line(&top.screen(80, 24), "curl[4711]").contains("10.0.1.5:8080"));
}

#[test]
fn help_names_every_key_and_goes_with_the_next_one() {
    let mut top = Top::busy();
    top.press(&[Key::Char('?')]);
    let screen = top.screen(80, 24);
    for key in ["Tab", "Enter", "Esc", "PgUp", "Space", "Ctrl-C"] {
        assert!(screen.iter().any(|line| line.contains(key)), "{key}: {screen:#?}");
    }
    top.press(&[Key::Char('q')]);
    assert!(!top.state.help);
    assert_eq!(top.state.press(Key::Char('q')), Effect::Quit);
}

#[test]
fn how_long_is_said_of_requests_and_where_there_are_none_of_connects() {
    let mut top = Top::new();
    top.look(0, |_| {});
    let percentiles = |p50_ms, p99_ms| Some(Percentiles { p50_ms, p90_ms: p99_ms, p99_ms });
    let latency = Latency { requests: percentiles(1.25, 80.0), connects: percentiles(0.25, 2.0) };
    for name in ["checkout", "search"] {
        top.state.latencies.insert(name.to_owned(), latency);
    }
    top.look(1, |_| {});
    let screen = top.screen(80, 24);
    for (begin, end) in [("NAME", "P50 P99 FAIL/S"), ("checkout", "1.25 ms 80 ms 0"), ("search", "0.25 ms 2 ms 0")] {
        assert!(words(line(&screen, begin)).ends_with(end), "{screen:#?}");
    }
}

#[test]
fn answers_that_say_that_an_endpoint_failed_are_failures_of_it_and_of_its_service() {
    let mut top = Top::new();
    top.look(0, |_| {});
    top.look(1, |sample| {
        let checkout = &mut services(sample)[0];
        checkout.responses_5xx_total += 7;
        checkout.requests_rejected_total.insert("redirect".to_owned(), 1000);
        sample.endpoints.as_mut().unwrap().rows[0].responses_5xx_total += 7;
    });
    let failures =
        |screen: &[String], begin: &str| line(screen, begin).split_whitespace().next_back().map(str::to_owned);
    assert_eq!(failures(&top.screen(80, 24), "checkout"), Some("7".to_owned()));
    top.press(&[Key::Enter]);
    assert_eq!(failures(&top.screen(80, 24), "10.0.1.5:8080"), Some("7".to_owned()));
}

fn key() -> impl Strategy<Value = Key> {
    const KEYS: [Key; 17] = [
        Key::Enter,
        Key::Escape,
        Key::Backspace,
        Key::Erase,
        Key::Tab,
        Key::BackTab,
        Key::Up,
        Key::Down,
        Key::Left,
        Key::Right,
        Key::PageUp,
        Key::PageDown,
        Key::Home,
        Key::End,
        Key::Interrupt,
        Key::Redraw,
        Key::Suspend,
    ];
    prop_oneof![
        proptest::sample::select(KEYS.as_slice()),
        proptest::sample::select("123qr/<>? +-pgGjk".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        any::<char>().prop_map(Key::Char),
    ]
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Press(Key),
    Look { services: usize, endpoints: usize, connections: usize },
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => key().prop_map(Step::Press),
        2 => (0usize..3, 0usize..3, 0usize..3)
            .prop_map(|(services, endpoints, connections)| Step::Look { services, endpoints, connections }),
        1 => Just(Step::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_that_happens_is_a_panic_at_any_size(
        steps in prop::collection::vec((step(), (1u16..220, 1u16..60)), 1..24),
    ) {
        let mut top = Top::new();
        for (second, (step, (width, height))) in (0..).zip(steps) {
            match step {
                Step::Press(key) => _ = top.state.press(key),
                Step::Look { services: some, endpoints, connections } => top.look(second, |sample| {
                    services(sample).truncate(some);
                    sample.endpoints.as_mut().unwrap().rows.truncate(endpoints);
                    if let Some(Ok(taken)) = &mut sample.connections {
                        taken.rows.truncate(connections);
                    }
                }),
                Step::Fail => top.state.failed("gone".to_owned(), Time::now()),
            }
            let _ = top.draw(width, height, PLAIN);
        }
        let _ = (top.draw(1, 1, PLAIN), top.draw(80, 24, PLAIN));
    }
}
