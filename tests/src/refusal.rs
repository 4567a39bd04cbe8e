//! A kernel that refuses what it is asked, or does not show what it has, as a test decides; the product knows nothing of
//! it.
//!
//! The process that is started gets a seccomp filter that holds its calls of `bpf(2)` until a thread of the test has looked
//! at them: seccomp_unotify(2). It lets them go on, or they end with `EPERM`.

use crate::kernel;
use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_IOCTL_NOTIF_ID_VALID, SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    seccomp_data, seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog,
};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    mem::{offset_of, zeroed},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::{fs::FileExt, net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{self, Command},
    sync::Arc,
    thread,
};

/// A call of `bpf(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `BPF_MAP_CREATE` of a map with this name.
    Map(String),
    /// `BPF_PROG_LOAD` of a program with this name and type (`BPF_PROG_TYPE_*`).
    Program(String, u32),
    /// `BPF_LINK_CREATE` at this place (of `enum bpf_attach_type`).
    Link(u32),
    /// Another command (of `enum bpf_cmd`).
    Other(u32),
}

/// Says whether a call is refused.
type Judge = dyn Fn(&Call) -> bool + Send + Sync;

/// Has the kernel ask `refused` about each call of the process that `command` starts, and of those that it starts in
/// turn. To be called for each start.
///
/// # Panics
/// Where there are no sockets to be had.
pub fn refuse(command: &mut Command, refused: &Arc<Judge>) {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets can be made");
    let filter = filter();
    let install = move || {
        let listener = listen(&filter)?;
        // It is closed by exec: the test takes a duplicate before.
        there.write_all(&process::id().to_ne_bytes())?;
        there.write_all(&listener.to_ne_bytes())?;
        there.read_exact(&mut [0])
    };
    // SAFETY: between fork and exec only plain system calls are made, on what was made before.
    unsafe { command.pre_exec(install) };
    let refused = Arc::clone(refused);
    thread::spawn(move || {
        let take = |mut here: UnixStream| {
            let (mut pid, mut listener) = ([0; 4], [0; 4]);
            here.read_exact(&mut pid)?;
            here.read_exact(&mut listener)?;
            let listener = kernel::take_fd(u32::from_ne_bytes(pid), RawFd::from_ne_bytes(listener))?;
            here.write_all(&[0])?;
            answer(&listener, &*refused)
        };
        match take(here) {
            // A command that was not started asks nothing.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                eprintln!("calls of bpf(2) are not answered any more: {error}");
            }
            _ => {}
        }
    });
}

/// Holds each call of `bpf(2)`, by its number on this architecture: no other code is run here.
fn filter() -> [sock_filter; 4] {
    let of = |code: u32, (jt, jf): (u8, u8), k: u32| sock_filter { code: code as u16, jt, jf, k };
    let end = |action: u32| of(BPF_RET | BPF_K, (0, 0), action);
    [
        of(BPF_LD | BPF_W | BPF_ABS, (0, 0), offset_of!(seccomp_data, nr) as u32),
        of(BPF_JMP | BPF_JEQ | BPF_K, (0, 1), libc::SYS_bpf as u32),
        end(SECCOMP_RET_USER_NOTIF),
        end(SECCOMP_RET_ALLOW),
    ]
}

/// Puts the filter on the calling process. Returns what its calls are heard with.
fn listen(filter: &[sock_filter]) -> io::Result<RawFd> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the program, which lives over the call.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(listener as RawFd) }
}

/// Answers until no process is left that could ask.
fn answer(listener: &OwnedFd, refused: &Judge) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            polled => polled?,
        };
        if !fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN)) {
            return Ok(());
        }
        // SAFETY: plain numbers, for which zero is a value; the kernel wants them so.
        let mut held: seccomp_notif = unsafe { zeroed() };
        if !control(listener, SECCOMP_IOCTL_NOTIF_RECV, &mut held)? {
            continue;
        }
        let refuse = call(&held).as_ref().is_some_and(refused);
        // Whatever was read was another process's, if this one has ended meanwhile.
        if !control(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &mut held.id)? {
            continue;
        }
        let mut answer = seccomp_notif_resp {
            id: held.id,
            val: 0,
            error: if refuse { -libc::EPERM } else { 0 },
            flags: if refuse { 0 } else { SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
        };
        control(listener, SECCOMP_IOCTL_NOTIF_SEND, &mut answer)?;
    }
}

/// Whether it was done; not so where the caller is gone.
fn control<T>(listener: &OwnedFd, request: libc::Ioctl, argument: &mut T) -> io::Result<bool> {
    // SAFETY: each of these requests takes a structure of the type that it is called with here.
    match unsafe { libc::ioctl(listener.as_raw_fd(), request, std::ptr::from_mut(argument)) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            interrupted if interrupted.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// What is asked for, out of the memory of who asks.
fn call(held: &seccomp_notif) -> Option<Call> {
    const MAP_CREATE: u32 = 0;
    const PROG_LOAD: u32 = 5;
    const LINK_CREATE: u32 = 28;
    let [command, attr, size, ..] = held.data.args;
    // `union bpf_attr` of include/uapi/linux/bpf.h; what is not given is zero.
    let mut bytes = [0; 128];
    let given = bytes.get_mut(..usize::try_from(size).ok()?.min(128))?;
    File::open(format!("/proc/{}/mem", held.pid)).ok()?.read_exact_at(given, attr).ok()?;
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let name = |at: usize| {
        let name = bytes[at..at + 16].split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    Some(match u32::try_from(command).ok()? {
        MAP_CREATE => Call::Map(name(28)),
        PROG_LOAD => Call::Program(name(48), word(0)),
        LINK_CREATE => Call::Link(word(8)),
        other => Call::Other(other),
    })
}

/// Hides fields from the process that `command` starts: its kernel's BTF shows none of these names. Without any, there is
/// no BTF at all. `place` is a directory of the test's own.
///
/// # Panics
/// Where this kernel shows no BTF.
pub fn hide(command: &mut Command, fields: &[&str], place: &Path) {
    const BTF: &str = "/sys/kernel/btf";
    if !fields.is_empty() {
        let mut btf = fs::read(format!("{BTF}/vmlinux")).expect("the kernel shows its BTF");
        for field in fields {
            let name = [&[0], field.as_bytes(), &[0]].concat();
            let at = btf.windows(name.len()).position(|bytes| bytes == name);
            // Another name of the same length, which nobody asks for.
            btf[at.unwrap_or_else(|| panic!("no {field} in the BTF")) + 1] = b'X';
        }
        fs::write(place.join("vmlinux"), btf).expect("a test's directory can be written");
    }
    let place = place.to_owned();
    let hide = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some(&place), BTF, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    };
    // SAFETY: between fork and exec only plain system calls are made, in which short paths take no memory.
    unsafe { command.pre_exec(hide) };
}
