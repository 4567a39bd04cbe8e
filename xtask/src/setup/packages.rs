//! Packages of the distribution, where it is of Debian's family.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{find, is_root, run, step, tell};

/// How long another apt is waited for, such as the one that a fresh machine runs by itself: `DPkg::Lock::Timeout`, and
/// for the lists, which that does not cover.
const PATIENCE: Duration = Duration::from_secs(300);

/// Packages that start a server when they are installed, and at each boot, with its unit.
const SERVERS: [(&str, &str); 4] =
    [("nginx", "nginx"), ("haproxy", "haproxy"), ("etcd-server", "etcd"), ("prometheus", "prometheus")];

/// Installs them all, or says which ones this distribution does not have.
pub(super) fn install(packages: &[&str]) -> Result<(), String> {
    prepare(packages)?;
    rehearse(packages)?;
    install_known(packages)
}

/// Installs those of them that this distribution has. Says of the others that it does not.
pub(super) fn install_what_there_is(packages: &[&str]) -> Result<(), String> {
    prepare(packages)?;
    if rehearse(packages).is_ok() {
        return install_known(packages);
    }
    let known = |package: &&str| match rehearse(&[*package]) {
        Ok(()) => true,
        Err(reason) => {
            step(&format!("{package} is not installed: {reason}"));
            false
        }
    };
    let known: Vec<&str> = packages.iter().copied().filter(known).collect();
    if known.is_empty() { Ok(()) } else { install_known(&known) }
}

/// Brings the lists up to date, as far as that is possible: older ones may still know what is wanted.
fn prepare(packages: &[&str]) -> Result<(), String> {
    if find("apt-get").is_none() {
        return Err(format!("no apt-get here; install by hand what corresponds to {}", packages.join(", ")));
    }
    update().unwrap_or_else(|reason| step(&reason));
    Ok(())
}

fn install_known(packages: &[&str]) -> Result<(), String> {
    let why = format!("installing {}", packages.join(", "));
    let options = ["install", "-q", "-y", "--no-install-recommends", "--no-remove"];
    let installed = run(&why, apt().args(options).args(packages));
    // Tests start servers of their own, at ports of their own.
    let units: Vec<&str> =
        SERVERS.iter().filter(|(package, _)| packages.contains(package)).map(|(_, unit)| *unit).collect();
    if !units.is_empty() && Path::new("/run/systemd/system").is_dir() {
        let mut disable = as_root();
        disable.args(["systemctl", "disable", "--now"]).args(&units);
        run("stopping the servers that came with them", &mut disable).unwrap_or_else(|reason| step(&reason));
    }
    installed
}

/// Brings the lists of packages up to date.
pub(crate) fn update() -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    loop {
        step("bringing the list of packages up to date");
        let mut child =
            apt().args(["update", "-q"]).stderr(Stdio::piped()).spawn().map_err(|error| format!("apt-get: {error}"))?;
        let mut is_locked = false;
        for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            is_locked |= line.contains("lists/lock");
            tell(&line);
        }
        let status = child.wait().map_err(|error| format!("apt-get: {error}"))?;
        if status.success() {
            return Ok(());
        }
        if !is_locked || Instant::now() >= until {
            return Err(format!("bringing the list of packages up to date: apt-get: {status}"));
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// What apt would do to install packages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// With what they depend on.
    installed: Vec<String>,
    removed: Vec<String>,
}

impl Plan {
    /// As `apt-get --simulate` prints it: `Inst NAME (VERSION ...)`, `Remv NAME [VERSION]`.
    fn read(simulated: &str) -> Self {
        let mut plan = Self::default();
        for line in simulated.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("Inst"), Some(name)) => plan.installed.push(name.to_owned()),
                (Some("Remv"), Some(name)) => plan.removed.push(name.to_owned()),
                _ => {}
            }
        }
        plan
    }
}

/// Asks apt what it would do: names that it does not know are better said than found in its output.
fn simulate(packages: &[&str]) -> Result<Plan, String> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--simulate", "-q", "--no-install-recommends"]).args(packages);
    let output =
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|error| format!("apt-get: {error}"))?;
    if output.status.success() {
        return Ok(Plan::read(&String::from_utf8_lossy(&output.stdout)));
    }
    let complaints = complaints(&String::from_utf8_lossy(&output.stderr));
    Err(if complaints.is_empty() { format!("apt-get install --simulate: {}", output.status) } else { complaints })
}

/// Whether apt can install them beside all that is there.
fn rehearse(packages: &[&str]) -> Result<(), String> {
    match simulate(packages)?.removed.as_slice() {
        [] => Ok(()),
        removed => Err(format!("that would remove {}", removed.join(", "))),
    }
}

/// A package and what it depends on, as far as it is not installed.
pub(super) fn closure(package: &str) -> Result<Vec<String>, String> {
    simulate(&[package]).map(|plan| plan.installed)
}

/// What apt calls errors, in one line.
fn complaints(stderr: &str) -> String {
    let errors: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    errors.join("; ")
}

/// apt-get as root, which asks nothing and waits for another one to finish. What it says is no result of ours.
fn apt() -> Command {
    let mut command = as_root();
    command.stdout(std::io::stderr());
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o"]);
    command.arg(format!("DPkg::Lock::Timeout={}", PATIENCE.as_secs()));
    command.args(["-o", "Dpkg::Use-Pty=0"]);
    command
}

/// Runs as root what follows: variables, then a program. With the proxies of whoever calls, which sudo forgets.
fn as_root() -> Command {
    if is_root() {
        return Command::new("env");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("env");
    let is_proxy = |name: &str| name.to_ascii_lowercase().ends_with("_proxy");
    sudo.args(std::env::vars().filter(|(name, _)| is_proxy(name)).map(|(name, value)| format!("{name}={value}")));
    sudo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_are_not_there_are_named() {
        let stderr = "W: something old\nE: Unable to locate package rustc-web\n\
                      E: Package 'llvm-22-dev' has no installation candidate\n";
        assert_eq!(
            complaints(stderr),
            "Unable to locate package rustc-web; Package 'llvm-22-dev' has no installation candidate"
        );
        assert_eq!(complaints("W: nothing\n"), "");
    }

    #[test]
    fn what_apt_would_do_is_read_from_what_it_says() {
        let simulated = "Reading package lists...\nThe following packages will be REMOVED:\n  qemu-utils\n\
                         Remv qemu-utils [1:10.0.2]\nInst seabios (1.16.2-1 Debian:12.14/oldstable [all])\n\
                         Inst qemu-system-x86 (1:7.2 Debian:12.14/oldstable [amd64])\nConf seabios (1.16.2-1)\n";
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let plan = Plan { installed: names(&["seabios", "qemu-system-x86"]), removed: names(&["qemu-utils"]) };
        assert_eq!(Plan::read(simulated), plan);
    }
}
