//! The virtual machine itself: how it is started, and whether the processor can help.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::process::{find, step};
use crate::{interrupt, setup};

use super::kernels::{self, Kernel};
use super::protocol::Line;
use super::{directory, image};

/// How the guest's processor is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// By translation. The guest's clock then counts instructions, each as two nanoseconds, and skips what is only
    /// waited for: a busy host makes the tests slower and not different, and a test that sleeps costs nothing.
    Tcg,
}

impl Accelerator {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "translated (TCG)",
        }
    }
}

/// How long a guest with KVM may take until it is up. With nested virtualisation that does not work it never is.
const PATIENCE: Duration = Duration::from_secs(10);

const PROGRAM: &str = "qemu-system-x86_64";

/// Whether KVM runs a guest here: tried with one that only starts and ends, since many machines offer a KVM that hangs.
/// What was found holds until the host starts anew.
pub(super) fn accelerator(kernel: &Kernel) -> Result<Accelerator, String> {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let note = directory().join("kvm-hangs");
    if fs::read_to_string(&note).is_ok_and(|of| of == boot) {
        return Ok(Accelerator::Tcg);
    }
    step("trying KVM");
    let image = image::empty()?;
    let console = directory().join(format!("probe-{}.log", std::process::id()));
    let tried = start(Accelerator::Kvm, kernel, &image, &console, 512).map(|mut machine| comes_up(&mut machine));
    for file in [&image, &console] {
        let _ = fs::remove_file(file);
    }
    match tried? {
        Start::Up => return Ok(Accelerator::Kvm),
        Start::Hangs if !interrupt::asked() => {
            step(&format!("KVM is offered here and does not run a guest: translating instead ({})", note.display()));
            // Without the note, the next run only takes longer.
            let _ = fs::write(note, boot);
        }
        Start::Hangs => {}
        Start::Ended(why) => step(&format!("KVM is offered here, and its guest ended: translating instead: {why}")),
    }
    Ok(Accelerator::Tcg)
}

/// What became of a guest that only starts.
enum Start {
    Up,
    Hangs,
    /// The machine ended; what it said.
    Ended(String),
}

/// Whether the guest says so in time. Ends it.
fn comes_up(machine: &mut Child) -> Start {
    let Some(mut said) = machine.stdout.take() else { return Start::Hangs };
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = said.read(&mut bytes) {
            if sender.send(bytes[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let (until, mut text) = (Instant::now() + PATIENCE, String::new());
    let up = |text: &str| text.lines().any(|line| matches!(Line::parse(line), Some(Line::Up { .. })));
    let start = loop {
        if up(&text) {
            break Start::Up;
        }
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Timeout) => break Start::Hangs,
            Err(RecvTimeoutError::Disconnected) => {
                let mut why = String::new();
                let _ = machine.stderr.take().map(|mut stderr| stderr.read_to_string(&mut why));
                break Start::Ended(why.trim().to_owned());
            }
        }
    };
    let _ = machine.kill();
    let _ = machine.wait();
    drop(receiver);
    let _ = reader.join();
    start
}

/// Starts a machine that boots `kernel` with `image`. What the guest tells comes from its standard output, what the
/// kernel says goes into the file `console`. It ends with us.
pub(super) fn start(
    accelerator: Accelerator,
    kernel: &Kernel,
    image: &Path,
    console: &Path,
    mebibytes: u64,
) -> Result<Child, String> {
    let mut command = program();
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    match accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host", "-smp", "2"]),
        // Without `rep movsb`, which is translated to a loop over bytes. And one processor only: with two, and instructions
        // that are counted, 6.1 waits for the second one while it boots.
        Accelerator::Tcg => command
            .args(["-accel", "tcg", "-cpu", "max,-erms", "-icount", "shift=1,sleep=off"])
            .args(["-rtc", "clock=vm"]),
    };
    command.arg("-m").arg(mebibytes.to_string());
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    command.args(["-append", &parameters()]);
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", console.display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let us = std::process::id();
    let end_with_us = move || {
        // SAFETY: both take numbers and return some.
        let orphan = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            u32::try_from(libc::getppid()) != Ok(us)
        };
        if orphan { Err(std::io::Error::other("who started this is gone")) } else { Ok(()) }
    };
    // Ctrl-C is ours to hear: it ends the machine after what is left to do.
    command.process_group(0);
    // SAFETY: between fork and exec only two plain system calls are made.
    unsafe { command.pre_exec(end_with_us) };
    command.spawn().map_err(|error| format!("{PROGRAM}: {error}"))
}

/// For the kernel: it says warnings and worse, and trouble of any kind ends it, which ends the machine.
fn parameters() -> String {
    let trouble = "panic=-1 oops=panic softlockup_panic=1 nmi_watchdog=0";
    format!("console=ttyS1 loglevel=5 {trouble} mitigations=off -- vm-guest init")
}

/// Where it cannot be installed, as beside parts of another version of it, its packages are only unpacked.
pub(super) fn provide() -> Result<(), String> {
    if find(PROGRAM).is_some() || unpacked().is_dir() {
        return Ok(());
    }
    step(&format!("unpacking {PROGRAM} below {}", directory().display()));
    let packages = setup::packages_of(PROGRAM);
    let unpacked = packages.and_then(|packages| {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        kernels::download(&packages, &unpacked())
    });
    unpacked.map_err(|reason| format!("{PROGRAM} is not installed and cannot be unpacked: {reason}"))
}

fn unpacked() -> PathBuf {
    directory().join("qemu")
}

/// What is installed, or what was unpacked instead.
fn program() -> Command {
    let root = unpacked();
    if find(PROGRAM).is_some() || !root.is_dir() {
        return Command::new(PROGRAM);
    }
    let mut command = Command::new(root.join("usr/bin").join(PROGRAM));
    let libraries = ["usr/lib", "lib"].map(|path| root.join(path).join("x86_64-linux-gnu"));
    command.env("LD_LIBRARY_PATH", libraries.map(|path| path.display().to_string()).join(":"));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(root.join(firmware));
    }
    command
}
