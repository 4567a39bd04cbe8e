//! What is said about mistakes: the table in `mistakes.txt`.

use super::*;

const TABLE: &str = include_str!("mistakes.txt");

#[test]
fn every_mistake_is_reported_with_its_place_and_what_to_do() {
    let (_, table) = TABLE.split_once('\n').unwrap();
    let mut different = String::new();
    let cases: Vec<_> = table.split_terminator("\n====\n").collect();
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        let (file, expected) = case.split_once("\n----\n").unwrap();
        let found = match check(file) {
            Ok(loaded) => format!("accepted: {loaded:?}"),
            Err(errors) => errors.to_string(),
        };
        if found != expected {
            different.push_str(&format!("{file}\n---- expected\n{expected}\n---- found\n{found}\n\n"));
        }
    }
    assert!(different.is_empty(), "\n{different}");
}

#[test]
fn the_example_of_the_contract_is_accepted() {
    let loaded = check(include_str!("contract.yaml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.services.len(), 1);
}

#[test]
fn a_value_that_asks_for_nothing_is_accepted() {
    let off = include_str!("off.yaml");
    let loaded = check(off).unwrap();
    assert_eq!(loaded.config.services.len(), 1);
}

#[test]
fn mistakes_of_all_files_are_reported_at_once_in_the_order_of_files_and_lines() {
    let errors = check_all(&[
        ("mesh.yaml", "services:\n  - {name: a, addresses: [10.0.0.1:80]}\n  - {nme: b}\nnode: {x: 1}\n"),
        ("conf.d/a.yaml", "services: [\n"),
        ("conf.d/b.yaml", "services:\n  - name: c\n    addresses: [10.0.0.1:80, 10.0.0.1]\n"),
    ])
    .unwrap_err();
    let found: Vec<String> = errors.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "mesh.yaml:3:5: services[1]: the key name is missing",
            "mesh.yaml:3:6: services[1].nme: unknown field; did you mean name?",
            "mesh.yaml:4:8: node.x: unknown field; expected one of name, region, state_dir, zone",
            "conf.d/a.yaml:1:11: not YAML: unclosed bracket '['",
            "conf.d/b.yaml:3:17: services[0].addresses[0]: 10.0.0.1:80 already belongs to the service a, mesh.yaml:2:27; an address \
             and port belong to one service",
            "conf.d/b.yaml:3:30: services[0].addresses[1]: expected ADDRESS:PORT such as 10.96.0.10:80, found \"10.0.0.1\"; add \
             the port: 10.0.0.1:PORT",
        ]
    );
}

#[test]
fn a_mistake_repeated_many_times_is_counted_and_not_kept() {
    let errors = check(&format!("services: [{}]", "1,".repeat(100_000))).unwrap_err();
    assert_eq!(errors.mistakes().len() + errors.omitted(), 100_000);
    assert!(errors.mistakes().len() <= 10_000);
    assert!(errors.to_string().ends_with("\nand 90000 more"));
}
