//! `mesh check`: can the daemon start here, and does what it does work? Nothing is believed that can be tried.

mod host;
mod ports;
mod programs;

use super::lock;
use crate::{
    api::{Check, Finding},
    config::{self, Config, Mode},
};
use std::path::Path;

/// Looks at everything that the daemon needs. Works beside a running daemon and leaves nothing behind.
#[must_use]
pub fn check(named: Option<&Path>) -> Check {
    let mut report = Report::default();
    let config = configuration(&mut report, named);
    report.needed = config.dataplane.mode != Mode::Userspace;
    host::kernel(&mut report);
    let capable = host::capabilities(&mut report);
    host::fields(&mut report);
    let cgroup = host::cgroup(&mut report, &config);
    let daemon = cgroup.as_deref().and_then(lock::holder_of).or_else(|| lock::holder_of(&config.dataplane.bpffs));
    host::daemon(&mut report, daemon);
    host::bpffs(&mut report, &config);
    host::state(&mut report, &config, daemon);
    ports::listeners(&mut report, &config, daemon);
    if let Some(cgroup) = &cgroup {
        programs::others(&mut report, &config, cgroup);
    }
    if capable {
        programs::programs(&mut report, &config, cgroup.as_deref());
    } else {
        report.bad("programs", "not tried: capabilities are missing", "grant them first");
    }
    let ok = report.findings.iter().all(|f| f.ok || !f.required);
    Check { ok, findings: report.findings }
}

/// What was found so far.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    /// Whether the daemon cannot do without what the kernel offers.
    needed: bool,
}

impl Report {
    fn add(&mut self, check: &str, ok: bool, required: bool, detail: impl Into<String>, remedy: Option<String>) {
        self.findings.push(Finding { check: check.to_owned(), ok, required, detail: detail.into(), remedy });
    }

    /// Something required is as it should be.
    fn good(&mut self, check: &str, detail: impl Into<String>) {
        self.add(check, true, self.needed, detail, None);
    }

    /// Something required for interception is not there.
    fn bad(&mut self, check: &str, detail: impl Into<String>, remedy: &str) {
        self.add(check, false, self.needed, detail, Some(remedy.to_owned()));
    }

    /// Something is not as it should be that the daemon can do without.
    fn warn(&mut self, check: &str, detail: impl Into<String>, remedy: &str) {
        self.add(check, false, false, detail, Some(remedy.to_owned()));
    }

    /// A mistake in the configuration, or a warning about it.
    fn remark(&mut self, check: &str, required: bool, finding: &config::Finding) {
        let detail = config::Finding { remedy: None, ..finding.clone() }.to_string();
        self.add(check, false, required, detail, finding.remedy.clone());
    }

    /// An error that says itself what to do, after a semicolon.
    fn error(&mut self, check: &str, required: bool, error: &str) {
        let (detail, remedy) = match error.split_once("; ") {
            Some((detail, remedy)) => (detail, Some(remedy.to_owned())),
            None => (error, None),
        };
        self.add(check, false, required, detail, remedy);
    }
}

/// Checks the configuration. Where it has mistakes, the rest is judged by what can be read of it.
fn configuration(report: &mut Report, named: Option<&Path>) -> Config {
    const CHECK: &str = "configuration";
    let errors = match config::load(named, &super::host()) {
        Ok(loaded) => {
            let (path, _) = config::places(named);
            report.add(CHECK, true, true, format!("{}: valid", path.display()), None);
            for warning in &loaded.warnings {
                report.remark(CHECK, false, warning);
            }
            return loaded.config;
        }
        Err(errors) => errors,
    };
    for mistake in errors.mistakes() {
        report.remark(CHECK, true, mistake);
    }
    if errors.omitted() > 0 {
        report.add(CHECK, false, true, format!("and {} more mistakes", errors.omitted()), None);
    }
    let dataplane = config::Files::read(named).and_then(|files| files.dataplane()).unwrap_or_default();
    Config { dataplane, ..Config::default() }
}
