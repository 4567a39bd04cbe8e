//! Reading files, and what they make together.

use super::*;
use std::{fs, os::unix::fs::symlink, path::Path};

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("conf.d")).unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

/// What loading `mesh.yaml` of a directory says, without the directory.
fn load_in(directory: &tempfile::TempDir) -> Result<Loaded, String> {
    let errors = |errors: Errors| errors.to_string().replace(&format!("{}/", directory.path().display()), "");
    load(Some(&directory.path().join("mesh.yaml")), &Host::default()).map_err(errors)
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.config.services.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn an_empty_file_means_the_defaults() {
    for text in
        ["", "\n\n", "# nothing\n", "---\n", "null", "~", "{}", "services:\n", "node:\nservices: ~\n", "\u{feff}"]
    {
        let loaded = check(text).unwrap();
        let node = Node { name: "node-a".to_owned(), ..Node::default() };
        assert_eq!(loaded.config, Config { node, ..Config::default() }, "{text:?}");
        assert!(loaded.warnings.is_empty());
    }
}

#[test]
fn a_default_file_that_is_missing_is_a_warning_and_conf_d_is_read_all_the_same() {
    let directory = directory(&[("conf.d/a.yaml", b"services: [{ name: a, addresses: [10.0.0.1:80] }]")]);
    let main = directory.path().join("mesh.yaml");
    let files = Files::read_from(&main, &directory.path().join("conf.d"), false).unwrap();
    let loaded = files.check(&Host::default()).unwrap();
    assert_eq!(names(&loaded), ["a"]);
    assert_eq!(
        loaded.warnings[0].to_string(),
        format!(
            "{}: there is no such file: starting with the defaults and no services; name another one with --config or \
             MESH_CONFIG",
            main.display()
        )
    );
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    assert_eq!(load_in(&directory(&[])).unwrap_err(), "mesh.yaml: there is no such file");
}

#[test]
fn conf_d_applies_in_name_order_whatever_is_hidden_or_named_otherwise() {
    let directory = directory(&[
        ("mesh.yaml", b"services: [{ name: main }]"),
        ("conf.d/20-b.yaml", b"services: [{ name: b }]"),
        ("conf.d/10-a.yaml", b"services: [{ name: a }]"),
        ("conf.d/.hidden.yaml", b"nonsense"),
        ("conf.d/README", b"nonsense"),
        ("conf.d/c.yml", b"nonsense"),
    ]);
    let loaded = load_in(&directory).unwrap();
    assert_eq!(names(&loaded), ["main", "a", "b"]);
    assert!(loaded.warnings.iter().any(|w| w.to_string().ends_with("conf.d/c.yml: not read; name it *.yaml")));
}

#[test]
fn a_mounted_config_map_is_read_through_its_links() {
    let directory = directory(&[]);
    let path = directory.path();
    for (place, name, text) in
        [(path, "mesh.yaml", "node: { name: linked }"), (&path.join("conf.d"), "a.yaml", "services: [{ name: a }]")]
    {
        fs::create_dir(place.join("..2024")).unwrap();
        fs::write(place.join("..2024").join(name), text).unwrap();
        symlink("..2024", place.join("..data")).unwrap();
        symlink(Path::new("..data").join(name), place.join(name)).unwrap();
    }
    let loaded = load_in(&directory).unwrap();
    assert_eq!((loaded.config.node.name.as_str(), names(&loaded)), ("linked", vec!["a"]));
}

#[test]
fn everything_that_cannot_be_read_is_said_at_once() {
    let directory = directory(&[
        ("mesh.yaml", b"node:\n  name: \xff\n"),
        ("conf.d/utf16.yaml", b"\xff\xfen\0"),
        ("conf.d/good.yaml", b"{}"),
    ]);
    fs::create_dir(directory.path().join("conf.d/directory.yaml")).unwrap();
    symlink("nowhere", directory.path().join("conf.d/dangling.yaml")).unwrap();
    nix::unistd::mkfifo(&directory.path().join("conf.d/pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::File::create(directory.path().join("conf.d/long.yaml")).unwrap().set_len((64 << 20) + 1).unwrap();
    assert_eq!(
        load_in(&directory).unwrap_err().lines().collect::<Vec<_>>(),
        [
            "mesh.yaml:2:9: expected UTF-8 text, found other bytes; save it as UTF-8",
            "conf.d/dangling.yaml: there is no such file",
            "conf.d/directory.yaml: expected a file, found a directory",
            "conf.d/long.yaml: expected at most 64 MiB, found more; divide it into several files in conf.d",
            "conf.d/pipe.yaml: expected a file, found a pipe",
            "conf.d/utf16.yaml: expected UTF-8 text, found UTF-16; save it as UTF-8",
        ]
    );
}

#[test]
fn a_directory_in_place_of_the_file_is_an_error() {
    let directory = directory(&[]);
    let errors = load(Some(directory.path()), &Host::default()).unwrap_err();
    assert!(errors.to_string().ends_with(": expected a file, found a directory"), "{errors}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    let loaded = check("\u{feff}node:\r\n  name: a\r\nservices:\r\n- name: b\r\n").unwrap();
    assert_eq!((loaded.config.node.name.as_str(), names(&loaded)), ("a", vec!["b"]));
}

#[test]
fn the_fingerprint_is_another_one_when_a_file_is() {
    let directory = directory(&[("mesh.yaml", b"{}")]);
    let main = directory.path().join("mesh.yaml");
    let fingerprint = || Files::read(Some(&main)).unwrap().fingerprint();
    let first = fingerprint();
    assert_eq!(fingerprint(), first);
    fs::write(directory.path().join("conf.d/a.yaml"), "").unwrap();
    let second = fingerprint();
    assert_ne!(second, first);
    fs::write(&main, "{ }").unwrap();
    assert_ne!(fingerprint(), second);
}

#[test]
fn services_merge_by_name_field_by_field_and_the_later_file_wins() {
    let loaded = check_all(&[
        (
            "mesh.yaml",
            "services:\n\
             - name: a\n  addresses: [10.0.0.1:80]\n  endpoints: [{ address: 10.0.1.1:80, weight: 2 }]\n\
             - name: b\n  addresses: [10.0.0.2:80]\n  load_balancing: { policy: random }\n",
        ),
        (
            "conf.d/1.yaml",
            "services:\n- name: c\n- name: a\n  endpoints: [{ address: 10.0.1.2:80 }]\n  load_balancing:\n",
        ),
        ("conf.d/2.yaml", "services:\n- name: a\n  load_balancing: { policy: random }\n- name: b\n  addresses: []\n"),
    ])
    .unwrap();
    assert_eq!(names(&loaded), ["a", "b", "c"]);
    let services = loaded.config.services();
    assert_eq!(services[0].addresses, ["10.0.0.1:80".parse().unwrap()]);
    assert_eq!(services[0].policy, crate::model::Policy::Random);
    assert_eq!(services[0].endpoints, [crate::model::Endpoint::new("10.0.1.2:80".parse().unwrap())]);
    assert_eq!((services[1].policy, services[1].addresses.len()), (crate::model::Policy::Random, 0));
}

#[test]
fn sections_merge_field_by_field_and_the_later_file_wins() {
    let loaded = check_all(&[
        ("mesh.yaml", "admin: { listen: 127.0.0.1:1, socket: /run/a.sock }\ntelemetry: { log: { format: text } }"),
        ("conf.d/1.yaml", "admin: { listen: 127.0.0.1:2 }\ntelemetry: { log: { level: debug } }"),
    ])
    .unwrap();
    assert_eq!(loaded.config.admin.listen.to_string(), "127.0.0.1:2");
    assert_eq!(loaded.config.admin.socket, Path::new("/run/a.sock"));
    assert_eq!(loaded.config.telemetry.log, Log { format: LogFormat::Text, level: "debug".to_owned() });
}

#[test]
fn a_value_that_a_later_file_replaces_is_checked_all_the_same() {
    let errors = check_all(&[
        ("mesh.yaml", "services: [{ name: a, endpoints: [{ address: nonsense }] }]"),
        ("conf.d/1.yaml", "services: [{ name: a, endpoints: [] }]"),
    ])
    .unwrap_err();
    assert_eq!((errors.mistakes().len(), errors.mistakes()[0].file.as_str()), (1, "mesh.yaml"));
}

#[test]
fn a_mistake_in_a_merged_service_names_the_file_and_the_index_it_has_there() {
    let errors = check_all(&[
        ("mesh.yaml", "services: [{ name: a }, { name: b, addresses: [10.0.0.1:80] }]"),
        ("conf.d/1.yaml", "services:\n- name: c\n- name: x\n- name: b\n  endpoints: [{ address: 10.0.1.1:1 }, { address: 10.0.1.1:1 }]\n"),
        ("conf.d/2.yaml", "services:\n- name: c\n  addresses: [10.0.0.1:80]\n"),
    ])
    .unwrap_err();
    let found: Vec<String> = errors.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "conf.d/1.yaml:5:51: services[2].endpoints[1].address: 10.0.1.1:1 stands twice in this service, first in line 5; keep \
             one, and raise its weight if it was meant to count twice",
            "conf.d/2.yaml:3:15: services[0].addresses[0]: 10.0.0.1:80 already belongs to the service b, mesh.yaml:1:48; an \
             address and port belong to one service",
        ]
    );
}

#[test]
fn a_service_inherits_what_it_does_not_say_itself() {
    let loaded = check_all(&[
        ("mesh.yaml", "services: [{ name: a }, { name: b, load_balancing: { policy: round_robin } }, { name: c, load_balancing: {} }]"),
        ("conf.d/1.yaml", "defaults: { load_balancing: { policy: random } }"),
    ])
    .unwrap();
    let policies: Vec<_> = loaded.config.services().iter().map(|s| s.policy.word()).collect();
    assert_eq!(policies, ["random", "round_robin", "random"]);
}
