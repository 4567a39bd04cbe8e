//! Runtime changes written down.

use super::*;
use crate::model;
use std::{fs, os::unix::fs::PermissionsExt};

fn endpoint(text: &str) -> model::Endpoint {
    model::Endpoint::new(text.parse().unwrap())
}

#[test]
fn changes_add_up_and_apply_over_the_other_files() {
    let mut one = endpoint("10.0.1.1:80");
    one.weight = 5;
    let mut two = endpoint("[fd00::1]:80");
    two.draining = true;
    two.zone = "yes".to_owned();
    let text = persisted(None, "a", Change::Policy(model::Policy::Random)).unwrap();
    let text = persisted(Some(&text), "b", Change::Policy(model::Policy::Random)).unwrap();
    let text = persisted(Some(&text), "a", Change::Endpoints(vec![one.clone(), two.clone()])).unwrap();
    let text = persisted(Some(&text), "b", Change::Policy(model::Policy::RoundRobin)).unwrap();
    let main = "services: [{ name: a, addresses: [10.0.0.1:80], endpoints: [{ address: 10.9.9.9:1 }] }, { name: b }]";
    let services = check_all(&[("mesh.yaml", main), ("conf.d/99-runtime.yaml", &text)]).unwrap().config.services();
    assert_eq!(services[0].addresses, ["10.0.0.1:80".parse().unwrap()]);
    assert_eq!(services[0].policy, model::Policy::Random);
    assert_eq!(services[0].endpoints, [one, two]);
    assert_eq!(services[1].policy, model::Policy::RoundRobin);
}

#[test]
fn the_file_says_what_it_is_and_only_what_changed() {
    let text = persisted(None, "a", Change::Endpoints(vec![endpoint("10.0.1.1:80")])).unwrap();
    assert_eq!(
        text,
        "# Written by mesh for changes made with --persist; it wins over the other files.\n\
         # To change it by hand, move what is here into another file and remove this one.\n\
         services:\n- name: a\n  endpoints:\n  - address: 10.0.1.1:80\n    weight: 1\n"
    );
}

#[test]
fn thresholds_of_circuits_add_up_and_leave_the_others_alone() {
    let seconds = std::time::Duration::from_secs;
    let breaker = |failure_threshold, reset_timeout, max_reset_timeout| Change::Breaker {
        failure_threshold,
        reset_timeout,
        max_reset_timeout,
    };
    let text = persisted(None, "a", breaker(Some(2), None, None)).unwrap();
    assert!(text.ends_with("services:\n- name: a\n  circuit_breaker:\n    failure_threshold: 2\n"), "{text}");
    let text = persisted(Some(&text), "a", breaker(None, Some(seconds(600)), Some(seconds(600)))).unwrap();
    let text = persisted(Some(&text), "a", Change::Policy(model::Policy::Maglev)).unwrap();
    let main = "services: [{ name: a, circuit_breaker: { max_open_percent: 7 }, load_balancing: { affinity: 1s } }]";
    let services = check_all(&[("mesh.yaml", main), ("conf.d/99-runtime.yaml", &text)]).unwrap().config.services();
    let expected = model::Breaker {
        failure_threshold: 2,
        reset_timeout: seconds(600),
        max_reset_timeout: seconds(600),
        max_open_percent: 7,
        ..model::Breaker::default()
    };
    assert_eq!(services[0].settings.breaker, expected);
    assert_eq!((services[0].policy, services[0].settings.affinity), (model::Policy::Maglev, seconds(1)));
}

#[test]
fn a_file_made_by_hand_is_left_alone() {
    let ours = persisted(None, "a", Change::Policy(model::Policy::Random)).unwrap();
    for text in [
        "services: [{ name: a }]".to_owned(),
        "node: { name: a }\n".to_owned(),
        format!("{ours}# a remark\n"),
        ours.replace("policy", "  policy"),
        format!("{ours}- name: b\n  addresses: [10.0.0.1:80]\n"),
        "# nothing but a remark\n".to_owned(),
    ] {
        let refused = persisted(Some(&text), "a", Change::Policy(model::Policy::Random));
        assert!(matches!(refused, Err(PersistError::HandMade)), "{text}: {refused:?}");
    }
    let refused = persisted(Some("services: ["), "a", Change::Policy(model::Policy::Random)).unwrap_err().to_string();
    assert!(refused.starts_with("the file there has mistakes: 99-runtime.yaml:1:11: not YAML"), "{refused}");
    // An empty file holds nothing that could be lost.
    assert_eq!(persisted(Some("\n"), "a", Change::Policy(model::Policy::Random)).unwrap(), ours);
}

#[test]
fn a_change_to_a_service_that_is_gone_does_not_bring_it_back() {
    let text = persisted(None, "gone", Change::Policy(model::Policy::Random)).unwrap();
    let loaded = check_all(&[("mesh.yaml", "services: [{ name: a }]"), ("conf.d/99-runtime.yaml", &text)]).unwrap();
    assert_eq!(loaded.config.services().len(), 1);
    let found: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        found[1],
        "conf.d/99-runtime.yaml:4:9: services[0].name: the service gone stands in no other file: left out"
    );
}

#[test]
fn the_file_is_replaced_as_a_whole_and_readable_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let conf_d = directory.path().join("conf.d");
    let path = persist(&conf_d, "a", Change::Policy(model::Policy::Random)).unwrap();
    persist(&conf_d, "b", Change::Policy(model::Policy::Random)).unwrap();
    assert_eq!(path, conf_d.join("99-runtime.yaml"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(&conf_d).unwrap().count(), 1);
    fs::write(directory.path().join("mesh.yaml"), "services: [{ name: a }, { name: b }]").unwrap();
    let loaded = load(Some(&directory.path().join("mesh.yaml")), &Host::default()).unwrap();
    assert!(loaded.config.services().iter().all(|s| s.policy == model::Policy::Random));
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let conf_d = directory.path().join("conf.d");
    fs::write(&conf_d, "a file").unwrap();
    let refused = persist(&conf_d, "a", Change::Policy(model::Policy::Random)).unwrap_err();
    assert!(refused.to_string().contains("conf.d/99-runtime.yaml cannot be written"), "{refused}");

    fs::remove_file(&conf_d).unwrap();
    fs::create_dir(&conf_d).unwrap();
    std::os::unix::fs::symlink("/nowhere", conf_d.join("99-runtime.yaml")).unwrap();
    let refused = persist(&conf_d, "a", Change::Policy(model::Policy::Random)).unwrap_err();
    assert!(refused.to_string().ends_with("is a symbolic link: something else keeps this file"), "{refused}");
}
