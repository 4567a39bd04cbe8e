//! The border to the kernel: the programs load, attach and translate with nothing but rows written by hand.

use mesh_common::{
    addr::Address,
    endpoint::{EndpointRow, Slot},
    service::{ServiceRow, SlotRange, VipKey, VipRow},
    settings::Settings,
};
use mesh_tests::{bpffs::PinDirectory, cgroup::Cgroup};
use mesh_userspace::kernel::{self, Capacity, Kernel, OBJECT, Options, Pins};
use std::fs::File;

fn load(object: &[u8], pins: &Pins, cgroup: &File) -> Result<Kernel, kernel::KernelError> {
    kernel::load(&Options {
        object,
        pins,
        cgroup,
        capacity: Capacity { services: 4, vips: 4, endpoints: 8, slots: 32 },
        log_level: 0,
        settings: Settings::default(),
    })
}

#[test]
fn every_program_loads_and_attaches_on_this_kernel() {
    let (cgroup, bpffs) = (Cgroup::new().unwrap(), PinDirectory::new().unwrap());
    let file = kernel::open_cgroup(cgroup.path()).unwrap();
    let kernel = load(OBJECT, &Pins::new(bpffs.path()), &file).unwrap();
    for program in kernel.programs() {
        assert_eq!(program.missing, None, "{}", program.name);
    }
    assert_eq!(kernel.notes, [""; 0]);
    let key = VipKey::tcp(Address::v4(u32::from_ne_bytes([240, 0, 0, 1])), 80u16.to_be());
    let row = EndpointRow {
        address: Address::v4(u32::from_ne_bytes([127, 0, 0, 1])),
        port: 8080u16.to_be(),
        used: 1,
        tag: 1,
        service: 0,
        zero: 0,
    };
    let tables = kernel.tables();
    tables.put_endpoint(3, &row);
    tables.put_slots(0, &[Slot::new(3, 1)]);
    let range = SlotRange { base: 0, count: 1 }.word();
    tables.put_service(0, &ServiceRow { views: [range, 0, range], policy: 0, name: 7 });
    tables.put_vip(&key, VipRow::new(&key, 0)).unwrap();
    assert_eq!(tables.vip(&key), Some(0));
    let existing = tables.existing();
    assert_eq!((existing.vips.len(), existing.services.len(), existing.endpoints.len()), (1, 1, 1));
    eprintln!("{:?} {:?}", kernel.maps(), kernel.programs());
}
