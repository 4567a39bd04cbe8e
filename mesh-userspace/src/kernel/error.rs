//! What can go wrong with the kernel, and what to do about it.

use std::{io, path::PathBuf};

/// An operation on the kernel that failed. The text says what was tried and, where it is known, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No cgroup2 mount was found.
    #[error(
        "no cgroup2 file system is mounted; mount one (`mount -t cgroup2 none /sys/fs/cgroup`) or set dataplane.cgroup"
    )]
    NoCgroup2,
    /// The configured cgroup cannot be used.
    #[error("cgroup {path}: {why}; set dataplane.cgroup to a directory of a cgroup2 mount")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// bpffs is absent and could not be mounted, or the directory could not be made.
    #[error("bpffs at {path}: {why}; mount it (`mount -t bpf bpf /sys/fs/bpf`) or set dataplane.bpffs")]
    Bpffs {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The process lacks capabilities.
    #[error("missing {}; run as root, or grant them (systemd: AmbientCapabilities=, Kubernetes: securityContext.privileged)", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// The object could not be loaded: a map was refused, or the object makes no sense to this kernel.
    #[error("loading the eBPF object: {0}")]
    Object(String),
    /// A program without which nothing can be intercepted was refused.
    #[error("program {program} ({hook}): {why}")]
    Required {
        /// The program's name.
        program: &'static str,
        /// The hook it is for.
        hook: &'static str,
        /// The kernel's reason, in short.
        why: String,
    },
    /// A map of the object has another shape than this daemon expects.
    #[error("map {map}: {why}")]
    Map {
        /// The map's name.
        map: String,
        /// What is wrong with it.
        why: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl KernelError {
    /// An error of a system call, with what was tried.
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

/// An error and its causes in one line: aya's own messages often say only the outermost.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    // The verifier's log can be thousands of lines; its verdict is the last one that says something.
    let mut lines = text.lines().filter(|l| !l.trim().is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.rfind(|l| !l.starts_with("processed ") && !l.starts_with("verification time")) {
        Some(last) if !first.contains(last.trim()) => format!("{first} ({})", last.trim()),
        _ => first,
    }
}
