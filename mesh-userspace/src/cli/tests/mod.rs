//! From the words typed to the text printed.

use super::{
    args::{Color, Format},
    command::{Action, Command, parse_with},
    execute::{Screen, Shown},
    output::Style,
    rates::{Rated, Rates},
    views,
};
use crate::api::{
    Circuit, Connection, ConnectionOrder, Connections, Endpoint, Logs, Policy, Registration, Request, Service, Status,
    Time, fake::Served, sample,
};
use std::{ffi::OsString, path::PathBuf, time::Duration};

const PLAIN: Style = Style { color: false };

fn parse(line: &str) -> Result<Command, clap::Error> {
    parse_with(line.split(' '), |_| None)
}

/// What is refused as wrong usage, and how.
fn usage(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

fn action(line: &str) -> Action {
    match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")) {
        Command::Client(client) => client.action,
        other => panic!("{line}: {other:?}"),
    }
}

fn change(line: &str) -> Request {
    match action(line) {
        Action::Change(request) => request,
        other => panic!("{line}: {other:?}"),
    }
}

fn show(line: &str) -> (Request, Format, bool) {
    match action(line) {
        Action::Show { request, format, watch } => (request, format, watch),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_arguments_are_consistent() {
    use clap::CommandFactory;
    super::args::Arguments::command().debug_assert();
}

#[test]
fn commands_that_need_no_daemon() {
    let run = |config: Option<&str>, takeover| Command::Run { config: config.map(PathBuf::from), takeover };
    assert_eq!(parse("mesh run").unwrap(), run(None, false));
    assert_eq!(parse("mesh run --config a.yaml").unwrap(), run(Some("a.yaml"), false));
    assert_eq!(parse("mesh run --takeover").unwrap(), run(None, true));
    let file = PathBuf::from("a.yaml");
    assert_eq!(parse("mesh config validate a.yaml").unwrap(), Command::ConfigValidate { file });
    assert_eq!(parse("mesh config schema").unwrap(), Command::ConfigSchema);
    assert_eq!(parse("mesh unload --force").unwrap(), Command::Unload { config: None, force: true });
}

#[test]
fn the_environment_names_configuration_and_socket() {
    let environment = |value: &'static str| move |_: &str| Some(OsString::from(value));
    let run = |value| parse_with(["mesh", "run"], environment(value)).unwrap();
    let named = |config: Option<&str>| Command::Run { config: config.map(PathBuf::from), takeover: false };
    assert_eq!(run("/e.yaml"), named(Some("/e.yaml")));
    assert_eq!(run(""), named(None), "empty is not set");
    let typed = parse_with(["mesh", "run", "--config", "/t.yaml"], environment("/e.yaml")).unwrap();
    assert_eq!(typed, named(Some("/t.yaml")));

    let socket = |line: &str, value| match parse_with(line.split(' '), environment(value)).unwrap() {
        Command::Client(client) => client.socket,
        other => panic!("{other:?}"),
    };
    assert_eq!(socket("mesh status", ""), PathBuf::from("/run/mesh/admin.sock"));
    assert_eq!(socket("mesh status", "/e"), PathBuf::from("/e"));
    assert_eq!(socket("mesh --admin-socket /t status", "/e"), PathBuf::from("/t"));
    assert_eq!(socket("mesh config reload --admin-socket /t", "/e"), PathBuf::from("/t"));
}

#[test]
fn naming_a_daemon_does_no_harm_to_a_command_that_talks_to_none() {
    assert_eq!(parse("mesh --admin-socket /t config schema").unwrap(), Command::ConfigSchema);
}

#[test]
fn listings() {
    assert_eq!(show("mesh status"), (Request::Status, Format::Table, false));
    assert_eq!(show("mesh services"), (Request::Services { name: None }, Format::Table, false));
    let one = Request::Services { name: Some("checkout".to_owned()) };
    assert_eq!(show("mesh services checkout --watch -o json"), (one, Format::Json, true));
    assert_eq!(show("mesh endpoints -o yaml"), (Request::Endpoints { service: None }, Format::Yaml, false));
    let of_one = |name: &str| Request::Endpoints { service: Some(name.to_owned()) };
    assert_eq!(show("mesh endpoints checkout"), (of_one("checkout"), Format::Table, false));
    assert_eq!(show("mesh endpoints -- drain"), (of_one("drain"), Format::Table, false), "a service of that name");
    assert_eq!(show("mesh config dump"), (Request::ConfigDump, Format::Yaml, false));
    let all = |wanted| Request::Connections(wanted);
    assert_eq!(show("mesh connections"), (all(Connections::default()), Format::Table, false));
    let wanted = Connections {
        service: Some("checkout".to_owned()),
        endpoint: Some("[fd00::1]:80".parse().unwrap()),
        sort: Some(ConnectionOrder::Rtt),
        limit: Some(3),
    };
    let line = "mesh connections --service checkout --endpoint [fd00::1]:80 --sort rtt --limit 3 --watch -o json";
    assert_eq!(show(line), (all(wanted), Format::Json, true));
    let circuits = |service: Option<&str>| Request::Circuits { service: service.map(str::to_owned) };
    assert_eq!(show("mesh circuit"), (circuits(None), Format::Table, false));
    assert_eq!(show("mesh circuit -o json"), (circuits(None), Format::Json, false));
    assert_eq!(show("mesh circuit list -o yaml"), (circuits(None), Format::Yaml, false));
    assert_eq!(show("mesh circuit list checkout"), (circuits(Some("checkout")), Format::Table, false));
    assert_eq!(action("mesh top"), Action::Top(Duration::from_secs(1)));
    assert_eq!(action("mesh top --interval 1m30s"), Action::Top(Duration::from_secs(90)));
    let (request, ..) = show("mesh explain [fd00::1]:80 --host h --path /p --zone z");
    let expected = Request::Explain {
        address: "[fd00::1]:80".parse().unwrap(),
        host: Some("h".to_owned()),
        path: Some("/p".to_owned()),
        zone: Some("z".to_owned()),
    };
    assert_eq!(request, expected);
}

#[test]
fn changes() {
    let (service, address) = ("checkout".to_owned(), "10.0.1.5:8080".parse().unwrap());
    assert_eq!(
        change("mesh endpoints drain checkout 10.0.1.5:8080"),
        Request::EndpointDrain { service: service.clone(), address, persist: false }
    );
    assert_eq!(
        change("mesh endpoints undrain checkout 10.0.1.5:8080 --persist"),
        Request::EndpointUndrain { service: service.clone(), address, persist: true }
    );
    assert_eq!(
        change("mesh endpoints weight checkout 10.0.1.5:8080 65535"),
        Request::EndpointWeight { service: service.clone(), address, weight: 65_535, persist: false }
    );
    for policy in Policy::ALL {
        assert_eq!(
            change(&format!("mesh lb set checkout {policy} --persist")),
            Request::LbSet { service: service.clone(), policy: *policy, persist: true }
        );
    }
    let (one, all) = (Some(address), None);
    assert_eq!(
        change("mesh circuit trip checkout 10.0.1.5:8080"),
        Request::CircuitTrip { service: service.clone(), address: one }
    );
    assert_eq!(change("mesh circuit trip checkout"), Request::CircuitTrip { service: service.clone(), address: all });
    assert_eq!(
        change("mesh circuit reset checkout 10.0.1.5:8080"),
        Request::CircuitReset { service: service.clone(), address: one }
    );
    assert_eq!(
        change("mesh circuit set checkout --failure-threshold 0"),
        Request::CircuitSet {
            service: service.clone(),
            failure_threshold: Some(0),
            reset_timeout: None,
            persist: false
        }
    );
    assert_eq!(
        change("mesh circuit set checkout --reset-timeout 1m30s --failure-threshold 3 --persist"),
        Request::CircuitSet {
            service: service.clone(),
            failure_threshold: Some(3),
            reset_timeout: Some(Duration::from_secs(90)),
            persist: true
        }
    );
    assert_eq!(change("mesh bypass on"), Request::Bypass { on: true });
    assert_eq!(change("mesh bypass off"), Request::Bypass { on: false });
    assert_eq!(change("mesh config reload"), Request::ConfigReload);
}

#[test]
fn wrong_usage_says_what_was_expected() {
    for (line, expected) in [
        ("mesh explain 10.0.0.1", "the port is missing: 10.0.0.1:80"),
        ("mesh explain fd00::1:2", "the port is missing: [fd00::1:2]:80"),
        ("mesh explain ::ffff:10.0.0.1:80", "stands in brackets: [::ffff:10.0.0.1]:80"),
        ("mesh explain localhost:80", "names are not looked up"),
        ("mesh explain 10.0.0.1:70000", "expected ip:port"),
        ("mesh endpoints weight a 10.0.0.1:80 65536", "expected a whole number from 0 to 65535"),
        ("mesh endpoints weight a 10.0.0.1:80 -1", "expected a whole number from 0 to 65535"),
        ("mesh endpoints weight a 10.0.0.1:80 1.5", "expected a whole number from 0 to 65535"),
        ("mesh endpoints weight a 10.0.0.1:80", "<N>"),
        ("mesh endpoints drain a", "<ADDRESS>"),
        ("mesh lb set a fastest", "peak_ewma"),
        ("mesh services -o xml", "[possible values: table, json, yaml]"),
        ("mesh services a b", "unexpected argument 'b'"),
        ("mesh connections --sort size", "[possible values: sent, received, age, rtt]"),
        ("mesh connections --limit 0", "0 is not in 1..="),
        ("mesh connections --limit all", "invalid digit"),
        ("mesh connections --endpoint 10.0.0.1", "the port is missing"),
        ("mesh top --interval 999ms", "expected a duration from 1s to 1h"),
        ("mesh top --interval 2", "expected a duration from 1s to 1h"),
        ("mesh top checkout", "unexpected argument 'checkout'"),
        ("mesh circuit set a", "--failure-threshold <N>"),
        ("mesh circuit set a --persist", "--reset-timeout <D>"),
        ("mesh circuit set a --failure-threshold 1001", "1001 is not in 0..=1000"),
        ("mesh circuit set a --reset-timeout 5", "expected a duration from 100ms to 24h"),
        ("mesh circuit set a --reset-timeout 99ms", "expected a duration from 100ms to 24h"),
        ("mesh circuit trip", "<SERVICE>"),
        ("mesh circuit trip a 10.0.0.1", "the port is missing"),
        ("mesh circuit trip a 10.0.0.1:80 --persist", "unexpected argument '--persist'"),
        ("mesh circuit open a", "unrecognized subcommand 'open'"),
        ("mesh bypass", "Usage: mesh bypass"),
        ("mesh bypass maybe", "unrecognized subcommand 'maybe'"),
        ("mesh config validate", "<FILE>"),
        ("mesh completions tcsh", "[possible values: bash"),
        ("mesh servces", "services"),
        ("mesh", "Usage: mesh"),
    ] {
        let message = usage(line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn an_instance_is_called_by_its_address_unless_it_has_a_name() {
    let registration = |id: &str, address: &str| Registration {
        service: "web".to_owned(),
        id: id.to_owned(),
        address: address.parse().unwrap(),
        weight: 1,
        zone: String::new(),
        metadata: [].into(),
        ttl: None,
    };
    let plain = registration("10.0.0.1:80", "10.0.0.1:80");
    assert_eq!(change("mesh register web 10.0.0.1:80"), Request::Register(plain.clone()));
    assert_eq!(change("mesh register web [::ffff:10.0.0.1]:80"), Request::Register(plain.clone()));
    assert_eq!(action("mesh register web 10.0.0.1:80 --keep"), Action::Keep(plain));
    let line = "mesh register web [fd00::1]:80 --id a --weight 0 --zone z --ttl 1m30s --metadata v=1=2 --metadata e=";
    let metadata = [("v".to_owned(), "1=2".to_owned()), ("e".to_owned(), String::new())].into();
    let (zone, ttl) = ("z".to_owned(), Some("90000ms".to_owned()));
    let all = Registration { weight: 0, zone, metadata, ttl, ..registration("a", "[fd00::1]:80") };
    assert_eq!(change(line), Request::Register(all));
    let deregister = |id: &str| Request::Deregister { service: "web".to_owned(), id: id.to_owned() };
    for address in ["[fd00::1]:80", "[::ffff:10.0.0.1]:80"] {
        let service = "web".to_owned();
        let shown = address.replace("[::ffff:10.0.0.1]", "10.0.0.1").parse().unwrap();
        assert_eq!(action(&format!("mesh deregister web {address}")), Action::Deregister { service, address: shown });
    }
    assert_eq!(change("mesh deregister web 10.0.0.1:80 --id a"), deregister("a"));
    for (line, expected) in [
        ("mesh register web", "<ADDRESS>"),
        ("mesh register web web:80", "names are not looked up"),
        ("mesh register web 10.0.0.1:80 --ttl 0s", "expected a duration from 1s to 24h"),
        ("mesh register web 10.0.0.1:80 --ttl 10years", "expected a duration from 1s to 24h"),
        ("mesh register web 10.0.0.1:80 --ttl 60", "expected a duration from 1s to 24h"),
        ("mesh register web 10.0.0.1:80 --weight 65536", "from 0 to 65535"),
        ("mesh register web 10.0.0.1:80 --metadata v", "expected KEY=VALUE"),
        ("mesh register web 10.0.0.1:80 --metadata =v", "expected KEY=VALUE"),
    ] {
        let message = usage(line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn help_and_version_are_no_failure() {
    for line in ["mesh --help", "mesh -h", "mesh --version", "mesh endpoints --help", "mesh help lb set"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
    }
    assert_eq!(parse("mesh --version").unwrap_err().to_string(), format!("mesh {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn lines_of_the_log_are_asked_for_with_every_filter() {
    let line = "mesh logs --service web --endpoint 10.0.0.1:80 --status 5xx,404 --method get --path /api/* \
                --duration >100ms --trace 0af7 --since 5m --limit 3 -o json";
    let wanted = Logs {
        service: Some("web".to_owned()),
        endpoint: "10.0.0.1:80".parse().ok(),
        status: "500-599,404".parse().ok(),
        method: "GET".parse().ok(),
        path: "/api/*".parse().ok(),
        duration: ">100ms".parse().ok(),
        trace: "0af7".parse().ok(),
        since: "5m".parse().ok(),
        limit: Some(3),
    };
    assert_eq!(show(line), (Request::Logs(Box::new(wanted)), Format::Json, false));
    let all = Box::new(Logs::default());
    assert_eq!(show("mesh logs"), (Request::Logs(all.clone()), Format::Table, false));
    assert_eq!(action("mesh logs -f"), Action::Follow { wanted: all, format: Format::Table });
    for (line, expected) in [
        ("mesh logs --status 6", "expected a status such as 503, a class such as 5xx"),
        ("mesh logs --duration 100ms", "expected a bound such as '>100ms'"),
        ("mesh logs --since yesterday", "expected how long ago, such as 5m, or a time such as"),
        ("mesh logs --method G(T", "expected a method such as GET"),
        ("mesh logs --trace xyz", "expected the id of a trace"),
        ("mesh logs --limit 0", "0 is not in"),
    ] {
        assert!(usage(line).contains(expected), "{line}: {}", usage(line));
    }
}

#[test]
fn levels_of_the_log_are_shown_or_changed() {
    assert_eq!(show("mesh log-level -o yaml"), (Request::LogLevels, Format::Yaml, false));
    assert_eq!(change("mesh log-level proxy=debug"), Request::SetLogLevel { directive: "proxy=debug".to_owned() });
    assert_eq!(
        views::log_levels(&sample::log_levels(), PLAIN),
        "MODULE                 LEVEL\nmesh_userspace::proxy  debug\nall others             info\n"
    );
}

#[test]
fn a_bug_report_needs_no_daemon() {
    let command = parse("mesh bugreport --output /tmp/a.tar.gz --admin-socket /run/b.sock").unwrap();
    let (config, output) = (None, Some(PathBuf::from("/tmp/a.tar.gz")));
    assert_eq!(command, Command::Bugreport { config, socket: "/run/b.sock".into(), output });
}

#[test]
fn lines_of_the_log_as_a_table_and_one_by_one() {
    let lines = sample::logs();
    assert_eq!(
        views::logs(&lines, PLAIN),
        "\
TIME                      SERVICE   ENDPOINT       CLIENT           STATUS  DURATION    SENT  RECEIVED  REASON          WHAT
2026-01-31T12:00:00.000Z  checkout  10.0.1.5:8080  10.0.9.1:40000      503   12.5 ms     0 B   1.5 KiB  upstream_reset  GET /cart?\\u{1b}[2J
2026-01-31T12:00:00.000Z  checkout  10.0.1.5:8080  [fd00::9]:40000       -     1m 1s  20 MiB   1.5 KiB  -               connection evil\\u{7}[4711]
"
    );
    let first = views::log(&lines[0], true, PLAIN);
    let second = views::log(&lines[1], false, PLAIN);
    assert_eq!((first.lines().count(), second.lines().count()), (2, 1));
    let column = |text: &str, word: &str| text.lines().last().unwrap().find(word).unwrap();
    assert_eq!(column(&first, "10.0.1.5"), column(&second, "10.0.1.5"), "{first}{second}");
    assert_eq!(column(&first, "GET"), column(&second, "connection"), "{first}{second}");
}

#[test]
fn what_is_registered_in_etcd_needs_no_daemon() {
    let line = "mesh register shop 10.0.0.1:80 --etcd http://a:2379,http://b:2379 --ttl 5s --zone z --keep";
    let Ok(Command::EtcdRegister(what)) = parse(line) else { panic!("{line}") };
    assert_eq!((what.ttl, what.zone.as_str(), what.keep), (Some(Duration::from_secs(5)), "z", true));
    assert_eq!(what.etcd.endpoints, ["http://a:2379", "http://b:2379"]);
    assert_eq!((what.etcd.prefix.as_str(), what.id, what.weight), ("/mesh/services", None, None));
    assert!(matches!(parse("mesh deregister shop 10.0.0.1:80 --etcd http://a:2379"), Ok(Command::EtcdDeregister(_))));
    for line in [
        "mesh register shop 10.0.0.1:80 --etcd http://a:2379 --ttl 0s",
        "mesh register shop 10.0.0.1:80 --etcd http://a:2379 --ttl 3650d",
        "mesh register shop 10.0.0.1:80 --etcd http://a:2379 --etcd-user u",
        "mesh register shop 10.0.0.1:80 --etcd http://a:2379 --etcd-cert c",
        "mesh register shop 10.0.0.1:80 --etcd-ca c",
        "mesh register shop 10.0.0.1 --etcd http://a:2379",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn help_offers_what_there_is() {
    let help = parse("mesh --help").unwrap_err().to_string();
    for name in [
        "run",
        "config",
        "status",
        "services",
        "endpoints",
        "connections",
        "logs",
        "log-level",
        "bugreport",
        "top",
        "explain",
        "traces",
        "lb",
        "circuit",
        "register",
        "deregister",
        "bypass",
        "unload",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
}

#[test]
fn completions_offer_what_there_is_in_every_shell() {
    for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
        let script = super::execute::completions(*shell);
        for word in ["undrain", "admin-socket", "traces", "log-level"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn services_as_a_table() {
    assert_eq!(
        views::services(&sample::services(), PLAIN),
        "\
NAME      ADDRESSES                            PROTOCOL  POLICY       HEALTHY  CIRCUIT  ACTIVE  TOTAL  REFUSED     SENT  RECEIVED  NOTE
checkout  10.96.0.10:80 [fd00::10]:80 +1 more  http      round_robin  2/2      closed        3  1,204        7  1.5 KiB    20 MiB  1 draining
search    10.96.0.20:9200                      tcp       random       0/0      closed        0      0        0      0 B       0 B  1 draining
"
        .replace("0 B       0 B  1 draining", "0 B       0 B  -")
    );
}

#[test]
fn a_service_that_is_not_intercepted_says_why() {
    let mut services = vec![Service {
        intercepted: false,
        not_intercepted_reason: Some("mode is userspace".to_owned()),
        ..sample::services().remove(1)
    }];
    let table = views::services(&services, PLAIN);
    assert!(table.ends_with("not intercepted: mode is userspace\n"), "{table}");
    services[0].intercepted = true;
    assert!(!views::services(&services, PLAIN).contains("NOTE"));
}

#[test]
fn a_service_with_its_endpoints() {
    assert_eq!(
        views::service(&sample::services()[0], &sample::endpoints(), PLAIN),
        "\
Service       checkout
Addresses     10.96.0.10:80, [fd00::10]:80, 10.96.0.11:443
Protocol      http
Policy        round_robin
Circuit       closed
Endpoints     2 of 2 healthy, 1 draining
Connections   3 active, 1,204 in total, 7 failed
Bytes         1.5 KiB sent, 20 MiB received by clients; 12 segments sent again
Requests      2 active, 31,006 in total, answered by mesh itself: 13 (rate_limited 9, no_endpoint 4)
Refused       7 (family_mismatch 5, no_endpoint 2)
Local trouble 1 connects had no route or no free local port

ADDRESS           WEIGHT  ZONE        HEALTH   CIRCUIT  DRAINING  ACTIVE  REQUESTS  TOTAL  FAILURES     SENT  RECEIVED  RETRANSMITS  CONNECT  LATENCY
10.0.1.5:8080          2  eu-west-1a  healthy  closed   no             3         0  1,204         7  1.5 KiB    20 MiB           12  0.25 ms  1.25 ms
[fd00:1::5]:8080       0  -           unknown  closed   yes            0         0      0         0      0 B       0 B            0        -        -
"
    );
    assert!(
        views::service(&sample::services()[1], &[], PLAIN)
            .ends_with("\nIt has no endpoints: connections to it are refused.\n")
    );
}

#[test]
fn what_nobody_counts_is_no_zero() {
    let uncounted = Service {
        retransmits_total: None,
        connects_local_trouble_total: None,
        connects_refused_total: None,
        connects_passed_total: None,
        ..sample::services().remove(0)
    };
    let endpoint = Endpoint { retransmits_total: None, picked_total: None, ..sample::endpoints().remove(0) };
    let text = views::service(&uncounted, &[endpoint], PLAIN);
    assert!(text.contains("\nBytes         1.5 KiB sent, 20 MiB received by clients\n"), "{text}");
    assert!(!text.contains("\nRefused") && !text.contains("\nLocal trouble"), "{text}");
    assert!(text.contains("20 MiB            -  0.25 ms"), "{text}");
    let table = views::services(&[uncounted], PLAIN);
    assert!(table.contains("  1,204        -  1.5 KiB"), "{table}");
}

#[test]
fn endpoints_as_a_table() {
    let table = views::endpoints(&sample::endpoints(), PLAIN);
    let first: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(first, ["SERVICE", "checkout", "checkout"]);
}

#[test]
fn connections_as_a_table() {
    let mut connections: Vec<Rated> = sample::connections().into_iter().map(Rated::from).collect();
    assert_eq!(
        views::connections(&connections, PLAIN),
        "\
SERVICE   ENDPOINT          CLIENT          PROCESS     CGROUP               NETNS  DIALLED        STATE           SENT  RECEIVED     RTT  RETRANSMITS     AGE
checkout  10.0.1.5:8080     10.0.9.1:40000  curl[4711]  /shop/frontend  4026531840  10.96.0.10:80  established  1.5 KiB    20 MiB  250 µs            2   1m 1s
-         [fd00:1::5]:8080  -               -           -               4026531840  [fd00::10]:80  syn_sent         0 B       0 B       -            0  120 ms
"
    );
    for rated in &mut connections {
        rated.rates = Some(Rates { sent: Some(1536.0), received: None });
    }
    let table = views::connections(&connections, PLAIN);
    assert!(table.lines().all(|line| line.split_whitespace().count() >= 15), "{table}");
    assert!(table.contains("SENT/S  RECEIVED/S") && table.contains("1.5 KiB/s           -"), "{table}");
}

#[test]
fn circuits_as_a_table() {
    assert_eq!(
        views::circuits(&sample::circuits(), sample::noon(), PLAIN),
        "\
SERVICE   ENDPOINT          STATE   FAILURES  OPENINGS  RETRY      FORCED
checkout  10.0.1.5:8080     closed         2         0  -          no
checkout  10.0.1.6:8080     open           5         3  in 1m 30s  no
checkout  [fd00:1::5]:8080  open           0         0  -          yes
"
    );
    let later = Time::from(sample::noon().system_time() + Duration::from_secs(90));
    assert!(views::circuits(&sample::circuits(), later, PLAIN).contains("  now  "));
}

#[test]
fn an_explanation_for_people() {
    assert_eq!(
        views::explanation(&sample::explanation(), PLAIN),
        "\
Address   10.96.0.10:80
Service   checkout
Policy    round_robin
Decision  forwarded
          The connection goes to one of 1 endpoints, each in turn.

ADDRESS           WEIGHT  SHARE  HEALTH   CIRCUIT  DRAINING  CANDIDATE  REASON
10.0.1.5:8080          2  100 %  healthy  closed   no        yes        takes connections
[fd00:1::5]:8080       0    0 %  unknown  closed   yes       no         draining
"
    );
}

#[test]
fn an_explanation_of_a_request_names_the_services_that_its_route_leads_to() {
    let mut explanation = sample::explanation();
    explanation.route = Some("2: path_prefix /v2".to_owned());
    explanation.explanation = "goes elsewhere\nby route 2: path_prefix /v2".to_owned();
    explanation.endpoints.truncate(1);
    explanation.endpoints[0].service = Some("checkout-v2".to_owned());
    assert_eq!(
        views::explanation(&explanation, PLAIN),
        "\
Address   10.96.0.10:80
Service   checkout
Route     2: path_prefix /v2
Policy    round_robin
Decision  forwarded
          goes elsewhere
          by route 2: path_prefix /v2

SERVICE      ADDRESS        WEIGHT  SHARE  HEALTH   CIRCUIT  DRAINING  CANDIDATE  REASON
checkout-v2  10.0.1.5:8080       2  100 %  healthy  closed   no        yes        takes connections
"
    );
}

#[test]
fn status_for_people() {
    let now = Time::from(sample::noon().system_time() + Duration::from_secs(3 * 3600 + 12 * 60));
    assert_eq!(
        views::status(&sample::status(), now, PLAIN),
        "\
Node          node-a
Version       0.1.0
Uptime        3h 12m (pid 4312)
Mode          ebpf
Bypass        off
Interception  works
Proxy         requests at 127.0.0.1:3000; 2 workers, 12 connections of clients
Cgroup        /sys/fs/cgroup
Pinned in     /sys/fs/bpf/mesh
Configuration /etc/mesh/mesh.yaml, loaded 3h 12m ago (2026-01-31T12:00:00.000Z)
              last load refused, the one before stays: services[0].name: \"A\" is no name
                services[1].addresses[0]: port 0
Services      2
Endpoints     2
Connections   3 open
Memory        12 MiB resident, 8 MiB in the kernel

Programs
  NAME               HOOK                 ATTACHED  WHY NOT
  mesh_connect4      cgroup/connect4      yes       -
  mesh_getpeername4  cgroup/getpeername4  no        this kernel has no such hook

Maps
  NAME       ENTRIES   CAPACITY    USED  MEMORY
  ENDPOINTS       12     65,536  0.02 %   6 MiB
  SLOTS            -  1,048,576       -       -

Sources
  NAME    SYNCED  UPDATED
  config  yes     3h 12m ago

Warnings
  service search: 127.0.0.1:80 is a loopback address
"
    );
}

#[test]
fn trouble_is_said_loudly() {
    let status = Status { bypass: true, interception_ok: Some(false), ..sample::status() };
    let text = views::status(&status, sample::noon(), Style { color: true });
    assert!(text.contains("\x1b[31mon: every connection passes untouched\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[31mdoes NOT work"), "{text:?}");
}

/// What `line` prints when asked of a daemon.
async fn printed(served: &Served, line: &str) -> String {
    let (request, format, _) = show(line);
    let screen = Screen::new(served.client(), request, format, PLAIN);
    let shown = screen.ask().await.unwrap();
    screen.text(&shown).unwrap()
}

#[tokio::test]
async fn json_is_what_the_daemon_said() {
    let served = Served::start().await;
    let text = printed(&served, "mesh services checkout -o json").await;
    assert!(text.starts_with("[\n  {\n    \"name\": \"checkout\",\n    \"addresses\": [\n"), "{text}");
    let back: Vec<Service> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, sample::services()[..1]);
    let status: Status = serde_json::from_str(&printed(&served, "mesh status -o json").await).unwrap();
    assert_eq!(status, sample::status());
    let text = printed(&served, "mesh connections --limit 1 -o json").await;
    let back: Vec<Connection> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, sample::connections()[..1]);
    assert!(!text.contains("per_s"), "rates are of a watch: {text}");
    let back: Vec<Circuit> = serde_json::from_str(&printed(&served, "mesh circuit -o json").await).unwrap();
    assert_eq!(back, sample::circuits());
    for line in ["endpoints checkout", "explain 10.0.0.1:80", "config dump"] {
        let text = printed(&served, &format!("mesh {line} -o json")).await;
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}

#[tokio::test]
async fn yaml_is_the_same_in_other_clothes() {
    let served = Served::start().await;
    let back: Vec<Service> = serde_saphyr::from_str(&printed(&served, "mesh services -o yaml").await).unwrap();
    assert_eq!(back, sample::services());
    let back: Status = serde_saphyr::from_str(&printed(&served, "mesh status -o yaml").await).unwrap();
    assert_eq!(back, sample::status());
    assert_eq!(
        printed(&served, "mesh config dump").await,
        "\
node:
  name: node-a
  zone: \"\"
admin:
  listen: 127.0.0.1:9901
  socket: /run/mesh/admin.sock
services:
- name: checkout
  addresses:
  - 10.96.0.10:80
  - \"[fd00::10]:80\"
  endpoints: []
"
    );
}

#[tokio::test]
async fn one_service_is_shown_with_its_endpoints() {
    let served = Served::start().await;
    let text = printed(&served, "mesh services checkout").await;
    assert!(text.contains("\nPolicy        round_robin\n") && text.contains("\n10.0.1.5:8080 "), "{text}");
}

#[tokio::test]
async fn an_empty_listing_says_so_beside_the_output() {
    let served = Served::start().await;
    let screen = |format| Screen::new(served.client(), Request::Services { name: None }, format, PLAIN);
    let nothing = Shown::Services(vec![]);
    assert_eq!(screen(Format::Table).text(&nothing).unwrap(), "");
    assert_eq!(screen(Format::Table).empty(&nothing), Some("no services"));
    assert_eq!(screen(Format::Json).text(&nothing).unwrap(), "[]\n");
    assert_eq!(screen(Format::Yaml).text(&nothing).unwrap(), "[]\n");
    assert_eq!(screen(Format::Json).empty(&nothing), None);
}

#[test]
fn colour_is_as_it_was_asked_for() {
    assert!(Style::for_stdout(Color::Always).color);
    assert!(!Style::for_stdout(Color::Never).color);
}
