//! The border to the kernel: the programs load, attach and translate; a program that this kernel refuses is left out
//! or named, whichever it is worth.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use mesh_common::{
    addr::Address,
    connection::tcp,
    endpoint::{EndpointRow, Slot},
    names,
    service::{Policy, ServiceRow, Shown, SlotRange, VipKey, VipRow},
    settings::{Settings, flags},
};
use mesh_tests::{World, bpffs::PinDirectory, cgroup::Cgroup, holds, skip, world};
use mesh_userspace::kernel::{self, Capacity, Kernel, KernelError, OBJECT, Options, Pins};
use object::{Object, ObjectSection};
use std::io::{Read, Write};

/// A cgroup, a pin directory, and the reason to skip where they cannot be had.
fn place() -> Option<(Cgroup, PinDirectory)> {
    if let Err(why) = skip::requirements() {
        skip::record(module_path!(), &why);
        return None;
    }
    Some((Cgroup::new().unwrap(), PinDirectory::new().unwrap()))
}

fn start(object: &[u8], pins: &PinDirectory, cgroup: &Cgroup) -> Result<Kernel, KernelError> {
    start_with(object, pins, cgroup, 4)
}

fn start_with(object: &[u8], pins: &PinDirectory, cgroup: &Cgroup, services: u32) -> Result<Kernel, KernelError> {
    let pins = Pins::new(pins.path());
    let mut kernel = kernel::load(&Options {
        object,
        pins: Some(&pins),
        capacity: Capacity { services, vips: 4, endpoints: 8, slots: 32 },
        log_level: 0,
        settings: Settings::default(),
    })?;
    let notes = kernel.attach(cgroup.path())?;
    kernel.notes.extend(notes);
    Ok(kernel)
}

/// The object with one program that no verifier accepts: it ends before it has a result.
fn broken(section: &str) -> Vec<u8> {
    let (offset, _) = object::File::parse(OBJECT).unwrap().section_by_name(section).unwrap().file_range().unwrap();
    let mut bytes = OBJECT.to_vec();
    let at = usize::try_from(offset).unwrap();
    bytes[at..at + 8].copy_from_slice(&[0x95, 0, 0, 0, 0, 0, 0, 0]); // exit
    bytes
}

fn endpoint(tag: u32) -> EndpointRow {
    let address = Address::v4(u32::from_ne_bytes([127, 0, 0, 1]));
    EndpointRow { address, port: 8080u16.to_be(), used: 1, tag, service: 0, weight: 1, marks: 0 }
}

#[test]
fn every_program_loads_and_attaches_on_this_kernel() {
    let Some((cgroup, pins)) = place() else { return };
    let kernel = start(OBJECT, &pins, &cgroup).unwrap();
    for program in kernel.programs() {
        assert_eq!(program.missing, None, "{}", program.name);
    }
    assert_eq!(kernel.notes, [""; 0]);
    assert!(kernel.maps().iter().all(|map| map.bytes > 0), "{:?}", kernel.maps());
}

#[test]
fn an_optional_program_that_the_kernel_refuses_is_left_out_and_named() {
    let Some((cgroup, pins)) = place() else { return };
    let kernel = start(&broken("cgroup/getpeername4"), &pins, &cgroup).unwrap();
    let missing: Vec<_> = kernel.programs().into_iter().filter_map(|p| Some((p.name, p.missing?))).collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].0, "mesh_peername4");
    assert!(missing[0].1.contains("The verifier says: unreachable insn 1"), "{missing:?}");
    assert_eq!(kernel.attached(), 5);
}

#[test]
fn a_required_program_that_the_kernel_refuses_is_an_error_that_leaves_nothing_behind() {
    let Some((cgroup, pins)) = place() else { return };
    let error = start(&broken("cgroup/connect4"), &pins, &cgroup).unwrap_err();
    assert!(matches!(error, KernelError::Required { program: "mesh_connect4", .. }), "{error}");
    assert_eq!(pins.pins(), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(cgroup.attached_programs(), 0);
}

#[test]
fn an_object_that_is_none_is_an_error() {
    let Some((cgroup, pins)) = place() else { return };
    for object in [&b"not an object"[..], &OBJECT[..OBJECT.len() / 2], &[]] {
        assert!(matches!(start(object, &pins, &cgroup), Err(KernelError::Object(_))));
    }
}

#[test]
fn tables_keep_their_rows_over_a_restart_and_grow_when_more_is_wanted() {
    let Some((cgroup, pins)) = place() else { return };
    let key = VipKey::tcp(Address::v4(u32::from_ne_bytes([240, 0, 0, 1])), 80u16.to_be());
    {
        let first = start(OBJECT, &pins, &cgroup).unwrap();
        assert!(!first.adopted);
        let tables = first.tables();
        tables.put_endpoint(3, &endpoint(9));
        tables.put_slots(0, &[Slot::new(3, 9)]);
        let shown = Shown { range: SlotRange { base: 0, count: 1 }, policy: Policy::RoundRobin }.word();
        tables.put_service(0, &ServiceRow { views: [[shown, 0, shown]; 3], name: 7, ..ServiceRow::default() });
        tables.put_vip(&key, VipRow::new(&key, 0)).unwrap();
    }
    let second = start(OBJECT, &pins, &cgroup).unwrap();
    assert!(second.adopted);
    assert_eq!(second.tables().vip(&key), Some(0));
    let existing = second.tables().existing();
    assert_eq!(existing.endpoints, [(3, endpoint(9))]);
    assert_eq!((existing.services.len(), existing.highest_tag), (1, 9));
    assert_eq!(cgroup.attached_programs(), 6, "replaced, not added");
    drop(second);
    let larger = start_with(OBJECT, &pins, &cgroup, 100).unwrap();
    assert!(larger.adopted);
    assert_eq!((larger.tables().capacity().0, larger.notes.as_slice()), (100, [].as_slice()));
    assert_eq!(larger.tables().vip(&key), Some(0));
    assert_eq!(larger.tables().existing().endpoints, [(3, endpoint(9))]);
    assert_eq!(cgroup.attached_programs(), 6);
}

#[test]
fn a_daemon_that_died_while_tables_grew_is_followed_by_one_that_finds_all_of_them() {
    let Some((cgroup, pins)) = place() else { return };
    let first = start(OBJECT, &pins, &cgroup).unwrap();
    first.tables().put_endpoint(3, &endpoint(9));
    drop(first);
    let maps = Pins::new(pins.path());
    let rename = |from: &str, to: &str| std::fs::rename(maps.map(from), maps.map(to)).unwrap();
    // It was about to put a larger table of counters in the place of the one that it had set aside.
    drop(start_with(OBJECT, &pins, &cgroup, 100).unwrap());
    rename("SERVICE_COUNTS", "SERVICE_COUNTS_new");
    let second = start_with(OBJECT, &pins, &cgroup, 100).unwrap();
    assert!(second.adopted, "{:?}", second.notes);
    assert_eq!(second.tables().existing().endpoints, [(3, endpoint(9))]);
    drop(second);
    // It had made a larger table, and not yet put it anywhere.
    rename("SERVICE_COUNTS_0", "SERVICE_STATES_new");
    assert!(start_with(OBJECT, &pins, &cgroup, 100).unwrap().adopted);
    assert!(!maps.map("SERVICE_STATES_new").exists());
}

/// One VIP, 240.0.0.1:80, with the one endpoint 10.1.0.1:8080.
fn one_service(kernel: &Kernel) {
    let (tables, key) = (kernel.tables(), VipKey::tcp(Address::v4(u32::from_ne_bytes([240, 0, 0, 1])), 80u16.to_be()));
    let address = Address::v4(u32::from_ne_bytes([10, 1, 0, 1]));
    tables.put_endpoint(3, &EndpointRow { address, ..endpoint(9) });
    tables.put_slots(0, &[Slot::new(3, 9)]);
    let shown = Shown { range: SlotRange { base: 0, count: 1 }, policy: Policy::RoundRobin }.word();
    tables.put_service(0, &ServiceRow { views: [[shown, 0, shown]; 3], name: 7, ..ServiceRow::default() });
    tables.put_vip(&key, VipRow::new(&key, 0)).unwrap();
}

/// What each live connection carried, by the kernel's own telling.
fn look(kernel: &Kernel, world: &World) -> Vec<(u64, u64, u32)> {
    let mut seen = Vec::new();
    let namespaces = kernel::namespaces(world.cgroup().path());
    let problems = kernel.live().unwrap().read(&namespaces, &mut |c| seen.push(c)).unwrap();
    assert_eq!(problems, [""; 0]);
    seen.iter().map(|c| (c.live.traffic.sent, c.live.traffic.received, c.live.state)).collect()
}

#[test]
fn live_connections_are_seen_with_and_without_the_iterator() {
    let Some((_, pins)) = place() else { return };
    let world = world!();
    let _echo = world.echo("10.1.0.1:8080");
    for (object, counts) in [(OBJECT.to_vec(), true), (broken("iter/tcp"), false)] {
        let kernel = start(&object, &pins, world.cgroup()).unwrap();
        one_service(&kernel);
        assert_eq!(kernel.live().unwrap().counts(), counts, "{:?}", kernel.notes);
        let missing: Vec<_> = kernel.programs().into_iter().filter(|p| p.missing.is_some()).map(|p| p.name).collect();
        assert_eq!(missing, if counts { &[][..] } else { &["mesh_live"] });
        let mut open = world.dial("240.0.0.1:80").unwrap();
        open.write_all(&[7; 5000]).unwrap();
        open.read_exact(&mut [0; 5000]).unwrap();
        holds("both directions", || look(&kernel, &world), |seen| seen == &[(5000, 5000, tcp::ESTABLISHED)]);
        let folded = kernel.tables().endpoint_counts(3);
        assert_eq!((folded.sent, folded.received), if counts { (5000, 5000) } else { (0, 0) });
        open.shutdown(std::net::Shutdown::Both).unwrap();
        drop(open);
        holds("closed", || look(&kernel, &world), Vec::is_empty);
        let folded = kernel.tables().endpoint_counts(3);
        assert_eq!((folded.sent, folded.received, folded.active()), (5000, 5000, 0));
    }
}

#[test]
fn a_set_of_another_layout_serves_its_connections_to_their_end_and_is_removed_then() {
    let Some((_, pins)) = place() else { return };
    let world = world!();
    let _echo = world.echo("10.1.0.1:8080");
    let begin = || {
        let kernel = start(OBJECT, &pins, world.cgroup()).unwrap();
        one_service(&kernel);
        kernel
    };
    let first = begin();
    let open = world.dial("240.0.0.1:80").unwrap();
    first.tables().set_flag(flags::BYPASS, true);
    drop(first);
    let here = Pins::new(pins.path());
    let retire = || kernel::retire(&here, || kernel::namespaces(world.cgroup().path())).unwrap();
    let ours = here.map("any").parent().unwrap().parent().unwrap().to_owned();
    std::fs::rename(&ours, ours.with_file_name("v1")).unwrap();
    let second = begin();
    assert!(!second.adopted);
    assert!(second.notes[0].contains("v1 is of another layout"), "{:?}", second.notes);
    assert_ne!(second.tables().settings().flags & flags::BYPASS, 0, "the kill switch stays on");
    second.tables().set_flag(flags::BYPASS, false);
    assert_eq!(world.cgroup().attached_programs(), 6 + 4, "all but the connect hooks of the other");
    assert_eq!(retire(), [""; 0].map(std::path::PathBuf::from));
    let peer = |socket: &socket2::Socket| socket.peer_addr().unwrap().as_socket().unwrap().to_string();
    assert_eq!(peer(&open), "240.0.0.1:80");
    assert_eq!(peer(&world.dial("240.0.0.1:80").unwrap()), "240.0.0.1:80");
    assert_eq!(second.tables().endpoint_counts(3).opened, 1);
    drop(open);
    holds("nobody needs it any more", retire, |retired| retired == &[ours.with_file_name("v1")]);
    assert_eq!(world.cgroup().attached_programs(), 6);
}

#[test]
fn a_pinned_map_that_is_not_ours_is_not_trusted() {
    let Some((cgroup, pins)) = place() else { return };
    drop(start(OBJECT, &pins, &cgroup).unwrap());
    let maps = Pins::new(pins.path());
    // Somebody swaps two tables.
    std::fs::rename(maps.map("SLOTS"), maps.map("spare")).unwrap();
    std::fs::rename(maps.map("ENDPOINTS"), maps.map("SLOTS")).unwrap();
    std::fs::rename(maps.map("spare"), maps.map("ENDPOINTS")).unwrap();
    let kernel = start(OBJECT, &pins, &cgroup).unwrap();
    assert!(!kernel.adopted);
    assert!(kernel.notes[0].contains("map SLOTS: its value size is 32, not 8"), "{:?}", kernel.notes);
}

#[test]
fn unloading_removes_every_pin_and_detaches_every_program() {
    let Some((cgroup, pins)) = place() else { return };
    drop(start(OBJECT, &pins, &cgroup).unwrap());
    let removed = kernel::unload(pins.path()).unwrap();
    assert_eq!(removed.len(), 6 + names::MAPS.len() + 1, "{removed:?}");
    assert_eq!(cgroup.attached_programs(), 0);
    assert!(kernel::unload(pins.path()).unwrap().is_empty());
}
