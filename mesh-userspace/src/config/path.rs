//! Places in the file system.

use super::text::{Complaint, text_rule, text_value};
use std::{fmt, path::PathBuf};

/// The longest path the kernel takes, without its closing zero (`PATH_MAX`).
const LONGEST: usize = 4095;

/// The longest path a Unix socket can have, without its closing zero (`sockaddr_un.sun_path`).
const LONGEST_SOCKET: usize = 107;

/// The rule for directories.
pub(super) struct Directory;

impl Directory {
    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        absolute(path, LONGEST)
    }
}

text_rule!(Directory, "an absolute path", { "pattern": "^/", "maxLength": 4095 });

/// The rule for the path of a Unix socket.
pub(super) struct SocketPath;

impl SocketPath {
    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        absolute(path, LONGEST_SOCKET)?;
        if path.ends_with('/') {
            return Err(Complaint::new("the path of a socket, not of a directory"));
        }
        Ok(())
    }
}

text_rule!(SocketPath, "an absolute path", { "pattern": "^/.*[^/]$", "maxLength": 107 });

/// The cgroup whose processes are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cgroup {
    /// The root of the cgroup2 mount: every process of the node.
    #[default]
    Auto,
    /// This directory of the cgroup2 file system, and all below it.
    Path(PathBuf),
}

impl Cgroup {
    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        absolute(text, LONGEST).map_err(|c| Complaint { expected: format!("auto, or {}", c.expected).into(), ..c })?;
        Ok(Self::Path(text.into()))
    }
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

text_value!(Cgroup, "auto, or an absolute path", { "pattern": "^(auto|/.*)$", "maxLength": 4095 });

/// The rule for a cgroup among others.
pub(super) struct CgroupPath;

impl CgroupPath {
    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        const EXPECTED: &str = "a directory of the cgroup2 file system, or a path below its root";
        let steps_up = path.split('/').any(|step| step == "..");
        if path.is_empty() || path.len() > LONGEST || steps_up || path.chars().any(char::is_control) {
            return Err(Complaint::new(EXPECTED));
        }
        Ok(())
    }
}

text_rule!(CgroupPath, "the path of a cgroup", { "minLength": 1, "maxLength": 4095, "examples": ["system.slice/sshd.service"] });

fn absolute(path: &str, longest: usize) -> Result<(), Complaint> {
    if !path.starts_with('/') {
        let complaint = Complaint::new("an absolute path");
        return Err(if path.is_empty() { complaint } else { complaint.remedy("start it with /") });
    }
    if path.len() > longest {
        return Err(
            Complaint::new(format!("a path of at most {longest} bytes")).remedy(format!("it has {}", path.len()))
        );
    }
    if path.chars().any(char::is_control) {
        return Err(Complaint::new("a path without control characters"));
    }
    Ok(())
}
