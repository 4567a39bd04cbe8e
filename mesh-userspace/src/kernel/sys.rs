//! `bpf(2)` where aya has no door: pins and links of cgroup programs that are replaced in place.
//!
//! Attribute structures spell out their padding: the kernel refuses non-zero bytes behind the fields it knows.

use bytemuck::Pod;
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

// enum bpf_cmd of include/uapi/linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const MAP_TAKE: libc::c_int = 21;
const ITER_CREATE: libc::c_int = 33;
const LINK_DETACH: libc::c_int = 34;

/// `enum bpf_attach_type`: the hooks we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    Iterator = 28,
    Getpeername4 = 29,
    Getpeername6 = 30,
    SockRelease = 34,
}

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    /// Of the verifier's log to the index of an interface: none of it is used.
    rest: [u32; 11],
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
    path_fd: i32,
    zero: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 6],
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
#[derive(Default)]
struct IterCreateAttr {
    link: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_link_info`, as far as cgroup links fill it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    /// The program's id.
    pub(super) program: u32,
    zero: u32,
    /// The cgroup's id (its inode); 0 once the cgroup is gone.
    pub(super) cgroup: u64,
    /// Its [`AttachType`].
    pub(super) attach_type: u32,
    zero2: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgQueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    zero: u32,
    rest: [u64; 4],
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    rest: [u64; 7],
    name: [u8; 16],
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a plain structure of the given size, valid for the call; pointers in it outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// As [`bpf`], where the kernel writes its answer into the structure.
fn bpf_mut<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: as in `bpf`, and nobody else holds `attr`.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn new_fd(answer: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn path_attr(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// A new map. Sizes are in bytes; the kernel keeps 15 characters of the name.
pub(super) fn map_create(kind: u32, key: u32, value: u32, entries: u32, flags: u32, name: &str) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr { kind, key, value, entries, flags, ..MapCreateAttr::default() };
    for (to, from) in attr.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bpf(MAP_CREATE, &attr).and_then(new_fd)
}

/// Whether this process may load a program of the kind that intercepts connects: loads one that lets everything pass.
pub(super) fn can_load() -> io::Result<()> {
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
    const CGROUP_SOCK_ADDR: u32 = 18;
    // r0 = 1; exit
    let code: [u64; 2] = [0x1_0000_00b7, 0x95];
    let attr = ProgLoadAttr {
        kind: CGROUP_SOCK_ADDR,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        attach_type: AttachType::Connect4 as u32,
        ..ProgLoadAttr::default()
    };
    bpf(PROG_LOAD, &attr).and_then(new_fd).map(drop)
}

fn element<K: Pod>(map: &OwnedFd, key: &K) -> ElementAttr {
    ElementAttr { map: raw(map.as_fd()), key: std::ptr::from_ref(key) as u64, ..ElementAttr::default() }
}

/// Writes an entry whose key and value have the sizes of the map's.
pub(super) fn map_update<K: Pod, V: Pod>(map: &OwnedFd, key: &K, value: &V) -> io::Result<()> {
    let attr = ElementAttr { value: std::ptr::from_ref(value) as u64, ..element(map, key) };
    bpf(MAP_UPDATE, &attr).map(drop)
}

/// Removes an entry whose key has the size of the map's.
pub(super) fn map_delete<K: Pod>(map: &OwnedFd, key: &K) -> io::Result<()> {
    bpf(MAP_DELETE, &element(map, key)).map(drop)
}

/// Removes an entry whose key and value have the sizes of the map's, and returns its value.
pub(super) fn map_take<K: Pod, V: Pod>(map: &OwnedFd, key: &K) -> io::Result<V> {
    let mut value = V::zeroed();
    let attr = ElementAttr { value: std::ptr::from_mut(&mut value) as u64, ..element(map, key) };
    bpf(MAP_TAKE, &attr)?;
    Ok(value)
}

/// Opens a pinned object.
pub(super) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let name = path_attr(path)?;
    bpf(OBJ_GET, &ObjAttr { path: name.as_ptr() as u64, ..ObjAttr::default() }).and_then(new_fd)
}

/// Pins an object.
pub(super) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = path_attr(path)?;
    bpf(OBJ_PIN, &ObjAttr { path: name.as_ptr() as u64, fd: raw(fd), ..ObjAttr::default() }).map(drop)
}

/// Attaches a program to a cgroup. A cgroup link always allows others beside it.
pub(super) fn link_create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, at: AttachType) -> io::Result<OwnedFd> {
    let attr = LinkCreateAttr {
        program: raw(program),
        target: raw(cgroup),
        attach_type: at as u32,
        ..LinkCreateAttr::default()
    };
    bpf(LINK_CREATE, &attr).and_then(new_fd)
}

/// Makes a program one that is run over something whenever an iterator of its link is read.
pub(super) fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attr =
        LinkCreateAttr { program: raw(program), attach_type: AttachType::Iterator as u32, ..LinkCreateAttr::default() };
    bpf(LINK_CREATE, &attr).and_then(new_fd)
}

/// A new iterator: for sockets, over the network namespace that the calling thread is in.
pub(super) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    bpf(ITER_CREATE, &IterCreateAttr { link: raw(link), ..IterCreateAttr::default() }).and_then(new_fd)
}

/// Puts another program under a link: connections never see a moment without one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_UPDATE, &LinkUpdateAttr { link: raw(link), program: raw(program), ..LinkUpdateAttr::default() }).map(drop)
}

/// Takes the program of a link off its cgroup at once. Dropping the last reference would do so a little later.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &LinkDetachAttr { link: raw(link) }).map(drop)
}

/// What a link is attached to.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let attr = InfoAttr {
        fd: raw(link),
        length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info)
}

/// The id of a map: two descriptors are of the same map if it is the same.
pub(super) fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    // The head of `struct bpf_map_info`: type, id.
    let mut info = [0_u32; 2];
    let attr = InfoAttr {
        fd: raw(map),
        length: u32::try_from(size_of_val(&info)).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info[1])
}

/// Whether a descriptor is that of a link, and not of a map or a program.
pub(super) fn is_link(fd: BorrowedFd<'_>) -> bool {
    let shown = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    shown.is_ok_and(|text| text.lines().any(|line| line.starts_with("link_type:")))
}

/// The programs that run at a hook of a cgroup, by their numbers: in the order in which they run there, inherited ones
/// included (`effective`), or those that are attached to this very cgroup.
pub(super) fn programs_at(cgroup: BorrowedFd<'_>, at: AttachType, effective: bool) -> io::Result<Vec<u32>> {
    /// `BPF_F_QUERY_EFFECTIVE`
    const EFFECTIVE: u32 = 1;
    // 64 programs can be attached to one cgroup, and those of its parents count too.
    let mut ids = vec![0_u32; 1024];
    let mut attr = ProgQueryAttr {
        target: raw(cgroup),
        attach_type: at as u32,
        query_flags: if effective { EFFECTIVE } else { 0 },
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        ..ProgQueryAttr::default()
    };
    bpf_mut(PROG_QUERY, &mut attr)?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

/// The name of the program with this number, of which the kernel keeps 15 characters; empty: it has none.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let fd = bpf(PROG_GET_FD_BY_ID, &IdAttr { id, ..IdAttr::default() }).and_then(new_fd)?;
    let mut info = ProgramInfo::default();
    let attr = InfoAttr {
        fd: raw(fd.as_fd()),
        length: u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    let name = info.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
