//! What is left alone by configuration: `dataplane.bypass`, by cgroup and by address.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Cgroup, Daemon, Hammer, World, hammer::Tally, holds, json, service, world};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const OTHER_VIP: &str = "10.97.0.10:80";
const E1: &str = "10.1.0.1:8080";

/// A world where the VIPs exist for real.
fn real_vips(world: &World) -> [Backend; 3] {
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    world.netns().ip("address add fd00::10/128 dev lo nodad");
    [world.backend("REAL", VIP), world.backend("REAL", VIP6), world.backend("B1", E1)]
}

/// Who answers a process of `cgroup`.
fn ask_in(world: &World, cgroup: &Cgroup, address: &str) -> String {
    let said = world.connect_program_in(cgroup, address).done();
    said.trim().rsplit(' ').next().unwrap().to_owned()
}

fn passed(mesh: &Daemon, service: &str) -> f64 {
    mesh.metrics().count("mesh_connects_passed_total", &[("service", service), ("reason", "bypass")])
}

#[test]
fn vips_in_ranges_that_are_left_alone_pass() {
    let world = world!();
    let _backends = real_vips(&world);
    let services = json!([service("web", &[VIP, VIP6], &[E1]), service("other", &[OTHER_VIP], &[E1])]);
    let setup = world.setup(services);
    let ranges = json!(["10.96.0.0/16", "fd00::/120"]);
    let mut mesh = setup.with(|config| config["dataplane"]["bypass"] = json!({ "cidrs": ranges })).start();
    for (n, vip) in [VIP, VIP6, "[::ffff:10.96.0.10]:80"].into_iter().enumerate() {
        assert_eq!(world.ask(vip).unwrap(), "REAL");
        assert_eq!(passed(&mesh, "web"), (n + 1) as f64);
    }
    assert_eq!(world.ask(OTHER_VIP).unwrap(), "B1");
    assert_eq!(passed(&mesh, "other"), 0.0);
    for vip in [VIP, VIP6] {
        let explained = mesh.json(&["explain", vip]);
        assert_eq!((&explained["decision"], &explained["reason"]), (&json!("passed"), &json!("bypass")));
        assert!(explained["explanation"].as_str().unwrap().contains("dataplane.bypass.cidrs"), "{explained:#}");
    }
    assert_eq!(mesh.json(&["explain", OTHER_VIP])["decision"], "forwarded");
    assert_eq!(mesh.service("web")["intercepted"], false);
    assert_eq!(mesh.service("other")["intercepted"], true);
    assert_eq!(mesh.endpoint("web", E1)["connections_total"], 0);
    // Another configuration at the next start is what holds.
    mesh.terminate();
    assert_eq!(world.ask(VIP).unwrap(), "REAL", "also while it is away");
    mesh.configure(|config| config["dataplane"]["bypass"]["cidrs"] = json!(["10.97.0.0/16"]));
    mesh.start();
    assert_eq!((world.ask(VIP).unwrap(), world.ask(VIP6).unwrap()), ("B1".into(), "B1".into()));
    assert_eq!(world.dial(OTHER_VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!((passed(&mesh, "web"), passed(&mesh, "other")), (4.0, 1.0));
}

#[test]
fn processes_of_cgroups_that_are_left_alone_pass() {
    let world = world!();
    let _backends = real_vips(&world);
    let apps = world.cgroup().below("apps");
    let (deep, beside) = (apps.below("deep"), world.cgroup().below("apps-beside"));
    let deeper = deep.below("deeper");
    let setup = world.setup(json!([service("web", &[VIP, VIP6], &[E1])]));
    // One below the cgroup2 root, one by its whole path that is not there yet.
    let relative = apps.path().strip_prefix(mesh_tests::cgroup::mount_point().unwrap()).unwrap().to_owned();
    let later = world.cgroup().path().join("later");
    let cgroups = json!([relative, later]);
    let mut mesh = setup.with(|config| config["dataplane"]["bypass"] = json!({ "cgroups": cgroups })).start();
    let mut left_alone = 0;
    for cgroup in [&apps, &deep, &deeper] {
        for vip in [VIP, VIP6] {
            assert_eq!(ask_in(&world, cgroup, vip), "REAL", "{}", cgroup.path().display());
            left_alone += 1;
        }
    }
    for cgroup in [world.cgroup(), &beside] {
        assert_eq!(ask_in(&world, cgroup, VIP), "B1", "{}", cgroup.path().display());
    }
    assert_eq!(passed(&mesh, "web"), f64::from(left_alone));
    // Made later, and made again: another cgroup under the same name.
    for _ in 0..2 {
        let later = world.cgroup().below("later");
        let inner = later.below("inner");
        holds("left alone once it is there", || ask_in(&world, &inner, VIP), |who| who == "REAL");
        assert_eq!(ask_in(&world, &later, VIP), "REAL");
        assert_eq!(ask_in(&world, world.cgroup(), VIP), "B1");
    }
    mesh.kill();
    assert_eq!((ask_in(&world, &deeper, VIP), ask_in(&world, &beside, VIP)), ("REAL".into(), "B1".into()));
    // Nothing is left alone any more.
    mesh.configure(|config| config["dataplane"]["bypass"]["cgroups"] = json!([]));
    mesh.start();
    assert_eq!(ask_in(&world, &apps, VIP), "B1");
}

#[test]
fn cgroups_that_are_left_alone_are_so_over_restarts_and_crashes() {
    let world = world!();
    let _backends = real_vips(&world);
    let apps = world.cgroup().below("apps");
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let cgroups = json!([apps.path()]);
    let mut mesh = setup.with(|config| config["dataplane"]["bypass"] = json!({ "cgroups": cgroups })).start();
    let (inside, outside) = (Hammer::start(&apps, world.netns(), &[VIP]), world.hammer(&[VIP]));
    for _ in 0..3 {
        mesh.kill();
        mesh.start();
        mesh.terminate();
        mesh.start();
    }
    let flawless = |hammer: Hammer| -> Tally {
        let tally = hammer.stop();
        tally.assert_flawless();
        tally
    };
    let (inside, outside) = (flawless(inside), flawless(outside));
    assert_eq!((inside.answered(VIP), outside.answered(VIP)), (vec!["REAL"], vec!["B1"]));
    assert_eq!(passed(&mesh, "web"), inside.connects as f64, "each was counted");
    holds("connections", || mesh.endpoint("web", E1)["connections_total"].clone(), |n| *n == outside.connects);
}
