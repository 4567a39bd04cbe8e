//! Inside the virtual machine: this program is init. It prepares the system as tests expect it, has the tests run by a
//! child, and switches the machine off.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::plan::Test;
use super::protocol::Line;
use super::runner::{self, Job, Surroundings};

/// Where daemon, helper program and tests lie, as cargo lays them out.
pub(super) const HOME: &str = "/mesh";
/// What to run, one test a line.
pub(super) const PLAN: &str = "/mesh/plan";
/// Where lines for the host go. The kernel's own messages have another port.
const PORT: &str = "/dev/ttyS0";

/// Where a test binary lies.
pub(super) fn binary(name: &str) -> PathBuf {
    Path::new(HOME).join("deps").join(name)
}

/// Where the modules of a kernel lie, named so that they sort in the order to load.
pub(super) fn modules(release: &str) -> PathBuf {
    Path::new("/modules").join(release)
}

pub(super) fn write_plan(tests: &[Test]) -> String {
    tests.iter().map(|test| format!("{} {}\n", test.binary, test.name)).collect()
}

fn read_plan(text: &str) -> Vec<Test> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(binary, name)| Test { binary: binary.to_owned(), name: name.to_owned() }).collect()
}

/// What the guest's two processes do: process 1 first, and then its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    Init,
    Tests,
}

/// Does it. As process 1, never returns.
pub(crate) fn run(role: Role) -> Result<(), String> {
    match role {
        Role::Tests => tests(),
        // Who starts this by hand would have their own system mounted upon and switched off.
        Role::Init if std::process::id() != 1 => Err("this is for process 1 of a virtual machine".into()),
        Role::Init => init(),
    }
}

fn init() -> ! {
    let done = prepare().and_then(|()| {
        say(&Line::Up { release: release() });
        supervise()
    });
    if let Err(why) = done {
        say(&Line::Broken { why });
    }
    // SAFETY: both only take numbers. If the second fails, init ends, and that ends the kernel too.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    std::process::exit(1)
}

/// Mounts what tests look for, loads modules, and sets what a distribution sets.
fn prepare() -> Result<(), String> {
    // The order counts: some lie within others.
    let mounts = [
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        // As systemd mounts it: with `nsdelegate`.
        ("cgroup2", "/sys/fs/cgroup"),
        ("bpf", "/sys/fs/bpf"),
        ("tmpfs", "/run"),
    ];
    for (kind, place) in mounts {
        fs::create_dir_all(place).map_err(|error| format!("{place}: {error}"))?;
        mount(kind, place).map_err(|error| format!("mounting {kind} at {place}: {error}"))?;
    }
    let anyone = fs::Permissions::from_mode(0o1777);
    fs::set_permissions("/tmp", anyone).map_err(|error| format!("/tmp: {error}"))?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(modules(&release())).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        load(&file).map_err(|error| format!("loading {}: {error}", file.display()))?;
    }
    // As many descriptors as distributions let root have: tests of many connections ask for them.
    let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 1 << 19 };
    // SAFETY: the structure lives over the call, which only reads it.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    Ok(())
}

fn mount(kind: &str, place: &str) -> std::io::Result<()> {
    let options = if kind == "cgroup2" { c"nsdelegate" } else { c"" };
    let (kind, place) = (std::ffi::CString::new(kind)?, std::ffi::CString::new(place)?);
    // SAFETY: the three strings end in zero and live over the call.
    let done = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn load(module: &Path) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let file = File::open(module)?;
    // SAFETY: the descriptor is open and the parameters are an empty string.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Has a child run the tests, and waits for it and for every orphan.
fn supervise() -> Result<(), String> {
    let mut command = Command::new("/init");
    command.args(["vm-guest", "tests"]).env_clear();
    command.envs([("PATH", "/bin"), ("HOME", "/root"), ("TERM", "xterm"), ("LANG", "C.UTF-8")]);
    let child = command.spawn().map_err(|error| format!("/init: {error}"))?;
    let child = libc::pid_t::try_from(child.id()).map_err(|error| error.to_string())?;
    loop {
        let mut status = 0;
        // SAFETY: `status` lives over the call.
        let ended = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if ended == child {
            return if status == 0 { Ok(()) } else { Err(format!("what runs the tests ended with status {status}")) };
        }
        if ended < 0 {
            return Err("what runs the tests is gone".into());
        }
    }
}

fn tests() -> Result<(), String> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.is_ok_and(|status| status.success()) {
        return Err("ip link set lo up: failed".into());
    }
    let plan = fs::read_to_string(PLAN).unwrap_or_default();
    let jobs: Vec<Job> =
        read_plan(&plan).into_iter().map(|test| Job { binary: binary(&test.binary), name: test.name }).collect();
    let daemon = Path::new(HOME).join("mesh");
    runner::run(&jobs, &Surroundings { daemon, python: None }, &mut |line| {
        say(&line);
        true
    });
    say(&Line::Done);
    Ok(())
}

/// Tells the host. There is nobody else to tell if that fails.
fn say(line: &Line) {
    if let Ok(mut port) = OpenOptions::new().write(true).open(PORT) {
        // With a line's end before it too: the firmware may have left half a line.
        let _ = port.write_all(format!("\n{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_it_was_written() {
        let test = |binary: &str, name: &str| Test { binary: binary.into(), name: name.into() };
        let tests = [test("translate", "a_b"), test("mesh_userspace", "kernel::btf::tests::c")];
        assert_eq!(read_plan(&write_plan(&tests)), tests);
    }

    #[test]
    fn only_process_1_is_init() {
        assert!(run(Role::Init).unwrap_err().contains("process 1"));
    }
}
