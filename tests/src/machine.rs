//! A Debian machine with systemd as process 1, made of this one: its files are ours until it changes them, its cgroups are
//! those of a test, its processes, mounts, network and names its own. Nothing of it is left on the host.

use crate::{Outcome, World, poll, process, programs};
use nix::sys::signal::Signal;
use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long it may take to start.
const BOOT_TIME: Duration = Duration::from_secs(120);

/// Makes the machine's root at `$1` and becomes its process 1. What is not there, systemd does without.
///
/// Units that the host's systemd starts by itself are left out: some of them would change the host, such as its devices.
/// /proc/sys is read-only for the same reason.
const BOOT: &str = r#"
set -e
mount -t tmpfs tree "$1"
mkdir "$1/upper" "$1/work" "$1/root"
root=$1/root
mount -t overlay root -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs cgroup "$root/sys/fs/cgroup" || true
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs run "$root/run"
mount -t tmpfs dev "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -p "$root/mnt"
mount --bind "$2" "$root/mnt"
for directory in /etc/systemd/system /lib/systemd/system; do
    rm -rf "$root$directory"/*.wants
done
rm -rf "$root"/lib/systemd/system-generators/* "$root"/etc/systemd/system/mesh.service* "$root/usr/sbin/policy-rc.d"
: > "$root/etc/fstab"
cd "$root"
exec chroot "$root" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --unit=basic.target --log-target=null --show-status=no
"#;

/// A running machine. Dropped, it is switched off.
#[derive(Debug)]
pub struct Machine {
    /// Waits for process 1, which ends with it.
    outside: Child,
    /// Process 1, as the host numbers it.
    init: u32,
    /// Where its root is mounted, which only it sees.
    _place: TempDir,
}

impl Machine {
    /// Boots one in the cgroup and the network of `world`, whose clients are its processes so far. It sees `shared` as /mnt.
    ///
    /// # Errors
    /// Why this machine cannot have it: a reason to skip the test.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn boot(world: &World, shared: &Path) -> Result<Self, String> {
        for program in ["dpkg", "unshare", "nsenter"] {
            programs::find(program).ok_or_else(|| format!("needs `{program}`: not a machine of Debian's family"))?;
        }
        for file in ["/lib/systemd/systemd", "/usr/bin/deb-systemd-invoke"] {
            if !Path::new(file).exists() {
                return Err(format!("needs {file}, which `cargo xtask setup` installs"));
            }
        }
        let place = tempfile::Builder::new().prefix("mesh-test-machine-").tempdir().map_err(|e| e.to_string())?;
        overlay_works(place.path())?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child", "--propagation"]);
        command.args(["private", "sh", "-c", BOOT, "boot"]).arg(place.path()).arg(shared);
        process::place(&mut command, Some(world.cgroup().path()), Some(world.netns())).map_err(|e| e.to_string())?;
        let outside =
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|e| format!("unshare: {e}"))?;
        let mut machine = Self { outside, init: 0, _place: place };
        let children = format!("/proc/{0}/task/{0}/children", machine.outside.id());
        machine.init = poll::eventually("process 1 starts", || {
            fs::read_to_string(&children).ok().and_then(|text| text.trim().parse().ok()).ok_or("not yet")
        });
        let up = poll::within(BOOT_TIME, || {
            if let Ok(Some(ended)) = machine.outside.try_wait() {
                panic!("it ended: {ended}");
            }
            let said = machine.run(&["systemctl", "is-active", "basic.target"]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
        up.unwrap_or_else(|said| panic!("the machine is not up within {BOOT_TIME:?}: {said}"));
        Ok(machine)
    }

    /// Runs a command on it, as root.
    pub fn run(&self, command: &[&str]) -> Outcome {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init.to_string(), "--all", "--root", "--wd=/", "env", "-i"]);
        enter.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"]);
        process::run_long(enter.args(command))
    }

    /// Writes a file on it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn write(&self, path: &str, text: &str) {
        let place = format!("/proc/{}/root{path}", self.init);
        fs::create_dir_all(Path::new(&place).parent().expect("a path with a directory")).expect("it can be written");
        fs::write(&place, text).expect("it can be written");
    }

    /// A file on it; none where there is none.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/root{path}", self.init)).ok()
    }

    /// Whether there is something of that name on it.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        Path::new(&format!("/proc/{}/root{path}", self.init)).exists()
    }

    /// A property of a unit.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, unit]).done().trim().to_owned()
    }
}

/// Tried in a mount namespace that ends at once.
fn overlay_works(place: &Path) -> Result<(), String> {
    let script = "mount -t tmpfs t \"$1\" && mkdir \"$1/u\" \"$1/w\" \"$1/m\" && \
                  mount -t overlay o -o \"lowerdir=/,upperdir=$1/u,workdir=$1/w\" \"$1/m\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "try"]).arg(place);
    let outcome = process::run(&mut command);
    if outcome.code == 0 { Ok(()) } else { Err(format!("needs overlayfs over /: {}", outcome.stderr.trim())) }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Process 1 of a namespace takes all others with it.
        process::signal(self.init, Signal::SIGKILL);
        let ended = poll::within(poll::PATIENCE, || match self.outside.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(io::Error::other("it runs still")),
            Err(e) => Err(e),
        });
        if let Err(e) = ended {
            eprintln!("the machine: {e}");
            let _ = self.outside.kill();
            let _ = self.outside.wait();
        }
    }
}
