//! What do the words on the command line ask for?

use super::{PLAIN, action, change, parse, show, usage};
use crate::{
    api::{ConnectionOrder, Connections, Logs, Policy, Registration, Request, sample},
    cli::{
        args::Format,
        command::{Action, Command, parse_with},
        views,
    },
};
use std::{ffi::OsString, path::PathBuf, time::Duration};

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
