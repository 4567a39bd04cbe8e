//! The ground under a running daemon goes: its cgroup, its pins, the file system that they are in.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, Value, World, eventually, holds, json, kernel, poll, service, world};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";

fn web() -> Value {
    json!([service("web", &[VIP], &[E1])])
}

fn pin(mesh: &Daemon, name: &str) -> PathBuf {
    mesh.pins().into_iter().find(|p| p.ends_with(name)).unwrap_or_else(|| panic!("{name} is not pinned"))
}

#[track_caller]
fn says(mesh: &Daemon, words: &[&str]) {
    let status = mesh.json(&["status"]);
    let warnings = status["warnings"].to_string();
    for word in words {
        assert!(warnings.contains(word), "{word}: {status:#}");
    }
}

#[test]
fn a_cgroup_that_is_made_again_under_the_daemon_is_attached_to_again() {
    let mut world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    world.remove_cgroup();
    mesh.wait_for("/ready", 503);
    assert!(mesh.http("GET", "/ready").body.contains("their cgroup is gone"));
    says(&mesh, &["their cgroup is gone"]);
    assert_eq!(mesh.json(&["status"])["interception_ok"], false);
    world.renew_cgroup();
    let made = Instant::now();
    let again = poll::within(Duration::from_secs(10), || world.ask(VIP));
    assert_eq!(again.unwrap(), "B1");
    assert!(made.elapsed() < Duration::from_secs(2), "{:?}", made.elapsed());
    mesh.wait_for("/ready", 200);
    holds("probed anew", || mesh.json(&["status"])["interception_ok"].clone(), |ok| *ok == true);
    assert_eq!(mesh.endpoint("web", E1)["picked_total"], 2, "the counters go on");
    // It is this daemon's again.
    let mut second = world.setup(web()).beside_another().idle();
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains(&mesh.pid().to_string()), "{}", second.log());
    // The pins hold the new links: the next daemon goes on with them.
    mesh.kill();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(mesh.endpoint("web", E1)["picked_total"], 4);
}

#[test]
fn programs_that_were_unloaded_by_force_stay_away() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    mesh.unload(&["--force"]).done();
    mesh.wait_for("/ready", 503);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(mesh.left_behind(), (Vec::new(), 0), "nothing is attached or pinned again");
    says(&mesh, &["somebody took them off the cgroup", "restart the daemon"]);
    let told = mesh.json(&["explain", VIP]);
    assert_eq!((&told["decision"], &told["reason"]), (&json!("passed"), &json!("not_intercepted")), "{told:#}");
    assert!(world.dial(VIP).is_err());
    mesh.terminate();
    mesh.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn pins_that_are_removed_under_the_daemon_are_made_again() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    let before = mesh.pins();
    for pin in &before {
        fs::remove_file(pin).unwrap();
    }
    assert_eq!(world.ask(VIP).unwrap(), "B1", "the daemon's descriptors keep them at work");
    holds("pinned again", || mesh.pins(), |pins| *pins == before);
    holds("said", || mesh.log(), |log| log.contains("pinned again"));
    mesh.kill();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.start();
    assert_eq!(mesh.endpoint("web", E1)["picked_total"], 3, "with what they counted");
}

/// A bpf file system of this test's own.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(directory)
    }

    fn unmount(&self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The daemon's own mount, and whatever of ours is left.
        for path in [self.0.path().join("mesh"), self.0.path().to_owned()] {
            while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

#[test]
fn a_bpf_file_system_that_is_unmounted_under_the_daemon_is_mounted_again() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let own = Mount::new();
    let bpffs = own.0.path().join("mesh");
    let mut mesh = world.setup(web()).with(|c| c["dataplane"]["bpffs"] = json!(bpffs)).start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert!(bpffs.exists());
    own.unmount();
    assert_eq!(world.ask(VIP).unwrap(), "B1", "the daemon's descriptors keep everything at work");
    eventually("pinned again", || match mesh.log().contains("pinned again") {
        true => Ok(()),
        false => Err(mesh.log()),
    });
    assert!(mesh.log().contains("the bpf file system is gone: mounted one"), "{}", mesh.log());
    mesh.kill();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.start();
    assert_eq!(mesh.endpoint("web", E1)["picked_total"], 3);
    mesh.terminate();
    mesh.unload(&[]).done();
    assert_eq!(world.cgroup().attached_programs(), 0);
}

/// Starts the daemon again on pins that were tampered with: it works, and says what it found.
#[track_caller]
fn starts_over(world: &World, mesh: &mut Daemon, words: &[&str]) {
    mesh.start();
    says(mesh, words);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    holds("the probe", || mesh.json(&["status"])["interception_ok"].clone(), |ok| *ok == true);
}

#[test]
fn a_foreign_map_under_a_pin_s_name_is_not_used() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    let vips = pin(&mesh, "VIPS");
    mesh.terminate();
    fs::remove_file(&vips).unwrap();
    kernel::pin_foreign_map(&vips).unwrap();
    starts_over(&world, &mut mesh, &["not adopted", "map VIPS: its type is 2, not 1"]);
}

#[test]
fn a_map_that_is_missing_among_the_pins_means_new_tables() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    let slots = pin(&mesh, "SLOTS");
    mesh.terminate();
    fs::remove_file(&slots).unwrap();
    starts_over(&world, &mut mesh, &["not adopted", "map SLOTS: it is missing"]);
}

#[test]
fn a_link_of_another_program_under_a_pin_s_name_is_left_to_its_owner() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.setup(web()).beside_another().start();
    let path = pin(&mesh, "mesh_connect4");
    mesh.terminate();
    let stranger = kernel::stranger(world.cgroup().path(), "somebody_s").unwrap();
    fs::remove_file(&path).unwrap();
    kernel::pin(&stranger, &path).unwrap();
    starts_over(&world, &mut mesh, &["mesh_connect4", "the link of another program", "somebody_s"]);
    let others = mesh.json(&["status"])["other_programs"].clone();
    assert_eq!(others[0]["name"], "somebody_s", "it is where it was: {others:#}");
}

#[test]
fn a_map_under_a_link_s_name_is_put_aside() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    let path = pin(&mesh, "mesh_sock_ops");
    mesh.terminate();
    fs::remove_file(&path).unwrap();
    kernel::pin_foreign_map(Path::new(&path)).unwrap();
    starts_over(&world, &mut mesh, &["mesh_sock_ops", "no link of a program"]);
}
