//! What the harness asks the kernel, and does to it, with raw system calls.
//!
//! On purpose not through the product's own library: these answers judge it.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// More attach types than any kernel has; the ones it does not know answer `EINVAL`.
const ATTACH_TYPES: u32 = 80;

/// The head of `union bpf_attr`, as words; the kernel takes a short one as followed by zeros, and a long
/// one if it ends in zeros.
type Attr = [u32; 32];

fn bpf(command: libc::c_long, attr: &mut Attr) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for reads and writes of the size given, and lives over the call. What callers point to
    // in it does too.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether this process may use BPF: makes a map of one entry and throws it away.
///
/// # Errors
/// What the kernel answered.
pub fn bpf_works() -> io::Result<()> {
    let mut attr: Attr = [0; 32];
    // map_type, key_size, value_size, max_entries
    attr[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 8, 1]);
    owned(bpf(BPF_MAP_CREATE, &mut attr)?).map(drop)
}

/// How many programs are attached to the cgroup at `path` itself, of whatever kind.
///
/// # Errors
/// Where the directory cannot be opened.
pub fn attached_programs(path: &Path) -> io::Result<u32> {
    let cgroup = File::open(path)?;
    let fd = u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    let count = |attach_type| {
        let mut attr: Attr = [0; 32];
        // target_fd, attach_type, query_flags, attach_flags, prog_ids (2 words), prog_cnt
        attr[..2].copy_from_slice(&[fd, attach_type]);
        match bpf(BPF_PROG_QUERY, &mut attr) {
            Ok(_) => attr[6],
            Err(_) => 0,
        }
    };
    Ok((0..ATTACH_TYPES).map(count).sum())
}

/// A program of somebody else, attached to the `connect4` hook of a cgroup: it lets everything pass. It is gone with the
/// descriptor, which is its link's.
///
/// # Errors
/// What the kernel answered.
pub fn stranger(cgroup: &Path, name: &str) -> io::Result<OwnedFd> {
    const CGROUP_SOCK_ADDR: u32 = 18;
    const CONNECT4: u32 = 10;
    // r0 = 1; exit
    let code: [u64; 2] = [0x1_0000_00b7, 0x95];
    let license = c"GPL";
    let mut attr: Attr = [0; 32];
    // prog_type, insn_cnt, insns (2 words), license (2 words), ..., prog_name at byte 48, expected_attach_type
    attr[..2].copy_from_slice(&[CGROUP_SOCK_ADDR, 2]);
    attr[2..4].copy_from_slice(&words(code.as_ptr() as u64));
    attr[4..6].copy_from_slice(&words(license.as_ptr() as u64));
    for (at, byte) in name.bytes().take(15).enumerate() {
        attr[12 + at / 4] |= u32::from(byte) << (8 * (at % 4));
    }
    attr[17] = CONNECT4;
    let program = owned(bpf(BPF_PROG_LOAD, &mut attr)?)?;
    let cgroup = File::open(cgroup)?;
    let mut attr: Attr = [0; 32];
    // prog_fd, target_fd, attach_type
    attr[..3].copy_from_slice(&[number(&program)?, number(&cgroup)?, CONNECT4]);
    owned(bpf(BPF_LINK_CREATE, &mut attr)?)
}

/// A map of one entry that nobody here would make, pinned.
///
/// # Errors
/// What the kernel answered.
pub fn pin_foreign_map(path: &Path) -> io::Result<()> {
    let mut attr: Attr = [0; 32];
    attr[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 8, 1]);
    pin(&owned(bpf(BPF_MAP_CREATE, &mut attr)?)?, path)
}

/// Pins an object.
///
/// # Errors
/// What the kernel answered.
pub fn pin(object: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr: Attr = [0; 32];
    // pathname (2 words), bpf_fd
    attr[..2].copy_from_slice(&words(path.as_ptr() as u64));
    attr[2] = number(object)?;
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Writes the first bytes of row 0 of a pinned array of rows as long as `row`.
///
/// # Errors
/// What the kernel answered.
pub fn write_row(path: &Path, row: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr: Attr = [0; 32];
    attr[..2].copy_from_slice(&words(path.as_ptr() as u64));
    let map = owned(bpf(BPF_OBJ_GET, &mut attr)?)?;
    let key = 0_u32;
    let mut attr: Attr = [0; 32];
    // map_fd, nothing, key (2 words), value (2 words), flags
    attr[0] = number(&map)?;
    attr[2..4].copy_from_slice(&words(&raw const key as u64));
    attr[4..6].copy_from_slice(&words(row.as_ptr() as u64));
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// A pointer as two words.
const fn words(pointer: u64) -> [u32; 2] {
    [pointer as u32, (pointer >> 32) as u32]
}

fn number(fd: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// Takes a duplicate of descriptor `fd` of process `pid`.
///
/// # Errors
/// What the kernel answered.
pub fn take_fd(pid: u32, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers go in, and a new descriptor that nobody else owns comes out.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
