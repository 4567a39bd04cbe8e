//! What a health check by HTTP asks for.

use super::text::{Complaint, text_rule};

/// Longer ones are refused by many servers.
const LONGEST_PATH: usize = 2048;
/// The longest name of DNS, and a port.
const LONGEST_HOST: usize = 259;

/// The rule for a path: what may stand in the first line of a request.
pub(super) struct HealthPath;

impl HealthPath {
    const EXPECTED: &str = "a path that starts with /";

    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%?".contains(&b);
        if !path.starts_with('/') {
            let complaint = Complaint::new(Self::EXPECTED);
            let right = !path.is_empty() && !path.contains("://") && path.bytes().all(inner);
            Err(if right { complaint.remedy(format!("write /{path}")) } else { complaint })
        } else if path.len() > LONGEST_PATH {
            Err(Complaint::new(format!("at most {LONGEST_PATH} bytes")).remedy(format!("it has {}", path.len())))
        } else if path.bytes().all(inner) {
            Ok(())
        } else {
            Err(Complaint::new("a path of what URLs are made of").remedy("write other characters as %XX"))
        }
    }
}

text_rule!(HealthPath, HealthPath::EXPECTED, { "maxLength": 2048, "pattern": "^/[A-Za-z0-9._~!$&'()*+,;=:@/%?-]*$" });

/// The rule for a Host header, or empty for the address of the endpoint.
pub(super) struct HealthHost;

impl HealthHost {
    const EXPECTED: &str = "a name, with or without a port, such as checkout.internal";

    pub(super) fn check(host: &str) -> Result<(), Complaint> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if host.len() > LONGEST_HOST {
            Err(Complaint::new(format!("at most {LONGEST_HOST} bytes")).remedy(format!("it has {}", host.len())))
        } else if host.bytes().all(inner) {
            Ok(())
        } else {
            Err(Complaint::new(Self::EXPECTED).remedy("leave it out to send the endpoint's address"))
        }
    }
}

text_rule!(HealthHost, HealthHost::EXPECTED, { "maxLength": 259, "pattern": "^[A-Za-z0-9._:\\[\\]-]*$" });
