//! What may stand for a name.

use super::text::{Complaint, text_rule};
use crate::model::{self, BadName, LONGEST_NAME as LONGEST};

/// The rule for names of services.
pub(super) struct ServiceName;

impl ServiceName {
    const EXPECTED: &str = "a name of a-z, 0-9, '.' and '-'";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        model::check_service_name(name)
            .map_err(|BadName { expected, remedy, .. }| Complaint { expected: expected.into(), remedy })
    }
}

text_rule!(ServiceName, ServiceName::EXPECTED, { "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$" });

/// The rule for the name of the node: what host names and Kubernetes' node names are made of; or empty for the default.
pub(super) struct NodeName;

impl NodeName {
    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if name.len() > LONGEST {
            Err(too_long(name))
        } else if !name.bytes().all(inner) || !(name.is_empty() || bounded(name)) {
            Err(Complaint::new(
                "a name of letters, digits, '.', '-' and '_' that starts and ends with a letter or a digit",
            )
            .remedy("leave it out to use $NODE_NAME or the host name"))
        } else {
            Ok(())
        }
    }
}

text_rule!(NodeName, "a name", { "maxLength": 253, "pattern": "^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$" });

/// The rule for zones, regions and nodes of endpoints: any printable text; empty means not known.
pub(super) struct Label;

impl Label {
    pub(super) fn check(label: &str) -> Result<(), Complaint> {
        if label.len() > LONGEST {
            Err(too_long(label))
        } else if label.chars().any(char::is_control) {
            Err(Complaint::new("text without control characters"))
        } else {
            Ok(())
        }
    }
}

text_rule!(Label, "text", { "maxLength": 253, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" });

/// The rule for what is logged: a level, directives `MODULE=LEVEL`, or both, separated by commas.
pub(super) struct LogLevel;

/// Levels, from no messages to many.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogLevel {
    pub(super) fn check(text: &str) -> Result<(), Complaint> {
        let mut plain = 0;
        for directive in text.split(',').map(str::trim) {
            let level = match directive.split_once('=') {
                Some((module, level)) => {
                    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                    if module.is_empty() || !module.chars().all(inner) {
                        return Err(Complaint::new("MODULE=LEVEL, such as mesh_userspace::kernel=debug"));
                    }
                    level
                }
                None => {
                    plain += 1;
                    directive
                }
            };
            if !LEVELS.contains(&level) {
                let complaint = Complaint::new("one of off, error, warn, info, debug, trace, or MODULE=LEVEL");
                let near = super::suggest::nearest(level, LEVELS);
                return Err(match near {
                    Some(near) => complaint.remedy(format!("did you mean {near}?")),
                    None => complaint,
                });
            }
        }
        if plain > 1 {
            return Err(Complaint::new("one level at most, and MODULE=LEVEL for the others"));
        }
        Ok(())
    }
}

text_rule!(LogLevel, "one of off, error, warn, info, debug, trace, or MODULE=LEVEL", {
    "pattern": "^ *([A-Za-z0-9_:]+=)?(off|error|warn|info|debug|trace) *(, *([A-Za-z0-9_:]+=)?(off|error|warn|info|debug|trace) *)*$"
});

fn bounded(name: &str) -> bool {
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    alphanumeric(name.bytes().next()) && alphanumeric(name.bytes().last())
}

fn too_long(text: &str) -> Complaint {
    Complaint::new(format!("at most {LONGEST} bytes")).remedy(format!("it has {}", text.len()))
}
