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
    /// No program at all may be loaded.
    #[error(
        "the kernel lets this process load no eBPF program: {0}; a seccomp profile (of a container), a security module \
         or the kernel's lockdown forbids bpf(2)"
    )]
    Forbidden(io::Error),
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
    verdict(&text)
}

/// The kernel's answer and the one line of the verifier's log, which may have thousands, that says what it refused.
fn verdict(text: &str) -> String {
    let Some((answer, log)) = text.split_once(" Verifier output: ") else { return text.replace('\n', " ") };
    let says_nothing = ["processed ", "verification time", "stack depth", "mark_precise", ";"];
    let said = log.lines().map(str::trim).rfind(|l| !l.is_empty() && !says_nothing.iter().any(|p| l.starts_with(p)));
    match said {
        Some(line) => format!("{} The verifier says: {line}", answer.replace('\n', " ")),
        // What is left of a sentence that was to be followed by the log.
        None => answer.trim_end_matches('.').replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_verifier_s_log_becomes_its_verdict() {
        let text = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: 0: R1=ctx()\n\
                    ; fn @ a.rs:1\n41: (61) r3 = *(u32 *)(r4 +0)\ndereference of modified ctx ptr R4\n\
                    verification time 227 usec\nstack depth 0\nprocessed 41 insns";
        assert_eq!(
            super::verdict(text),
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). \
             The verifier says: dereference of modified ctx ptr R4"
        );
        assert_eq!(super::verdict("no such thing"), "no such thing");
        assert_eq!(super::verdict("not permitted. Verifier output: "), "not permitted");
    }
}
