//! Packages of the distribution, where it is of Debian's family.

use std::process::{Command, Stdio};

use crate::process::{find, is_root, run, step};

/// Installs them all, or says which ones this distribution does not have.
pub(super) fn install(packages: &[&str]) -> Result<(), String> {
    if find("apt-get").is_none() {
        return Err(format!("no apt-get here; install by hand what corresponds to {}", packages.join(", ")));
    }
    // A list of packages that could not be brought up to date may still know ours.
    if let Err(reason) = run("bringing the list of packages up to date", apt().args(["update", "-q"])) {
        step(&reason);
    }
    rehearse(packages)?;
    let why = format!("installing {}", packages.join(", "));
    run(&why, apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages))
}

/// Asks apt what it would do: names that it does not know are better said than found in its output.
fn rehearse(packages: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--simulate", "-q", "--no-install-recommends"]).args(packages);
    let output =
        command.env("LC_ALL", "C").stdin(Stdio::null()).output().map_err(|error| format!("apt-get: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaints = complaints(&String::from_utf8_lossy(&output.stderr));
    Err(if complaints.is_empty() { format!("apt-get install --simulate: {}", output.status) } else { complaints })
}

/// What apt calls errors, in one line.
fn complaints(stderr: &str) -> String {
    let errors: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    errors.join("; ")
}

/// apt-get as root, which asks nothing and waits for another one to finish.
fn apt() -> Command {
    let mut command = if is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    command.args(["-o", "Dpkg::Use-Pty=0"]);
    command
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
}
