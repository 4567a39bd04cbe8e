//! The border to the kernel: the programs load, attach and translate; a program that this kernel refuses is left out
//! or named, whichever it is worth.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use mesh_common::{
    addr::Address,
    endpoint::{EndpointRow, Slot},
    service::{ServiceRow, SlotRange, VipKey, VipRow},
    settings::Settings,
};
use mesh_tests::{bpffs::PinDirectory, cgroup::Cgroup, skip};
use mesh_userspace::kernel::{self, Capacity, Kernel, KernelError, OBJECT, Options, Pins};
use object::{Object, ObjectSection};

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
    let kernel = kernel::load(&Options {
        object,
        pins: Some(&pins),
        capacity: Capacity { services, vips: 4, endpoints: 8, slots: 32 },
        log_level: 0,
        settings: Settings::default(),
    })?;
    kernel.attach(cgroup.path())?;
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
    EndpointRow { address, port: 8080u16.to_be(), used: 1, tag, service: 0, zero: 0 }
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
        let range = SlotRange { base: 0, count: 1 }.word();
        tables.put_service(0, &ServiceRow { views: [range, 0, range], policy: 0, name: 7 });
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
    rename("SERVICE_COUNTS_0", "CURSORS_new");
    assert!(start_with(OBJECT, &pins, &cgroup, 100).unwrap().adopted);
    assert!(!maps.map("CURSORS_new").exists());
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
    assert_eq!(removed.len(), 6 + 11, "{removed:?}");
    assert_eq!(cgroup.attached_programs(), 0);
    assert!(kernel::unload(pins.path()).unwrap().is_empty());
}
