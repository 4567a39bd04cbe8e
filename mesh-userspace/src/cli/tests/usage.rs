//! What is wrong usage, and what is said of it? What help is there?

use super::{parse, usage};

#[test]
fn the_arguments_are_consistent() {
    use clap::CommandFactory;
    crate::cli::args::Arguments::command().debug_assert();
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
fn help_and_version_are_no_failure() {
    for line in ["mesh --help", "mesh -h", "mesh --version", "mesh endpoints --help", "mesh help lb set"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
    }
    assert_eq!(parse("mesh --version").unwrap_err().to_string(), format!("mesh {}\n", env!("CARGO_PKG_VERSION")));
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
        let script = crate::cli::execute::completions(*shell);
        for word in ["undrain", "admin-socket", "traces", "log-level"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
