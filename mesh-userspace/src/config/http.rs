//! What may stand for what HTTP is made of: paths, hosts, headers.

use super::{
    names::ServiceName,
    text::{Complaint, text_rule},
};
use crate::model::{REGEX_SIZE, whole_path};

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

/// What names of headers, methods and cookies are made of (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The longest text that is taken of a header, a query or a cookie.
const LONGEST_VALUE: usize = 4096;
/// Longer regular expressions are refused unread.
const LONGEST_REGEX: usize = 1024;

/// The rule for a path of a route, or empty.
pub(super) struct RoutePath;

impl RoutePath {
    const EXPECTED: &str = "a path that starts with /, or \"\"";

    pub(super) fn check(path: &str) -> Result<(), Complaint> {
        if path.is_empty() {
            Ok(())
        } else if path.contains(['?', '#']) {
            let complaint = Complaint::new("a path without a query");
            Err(complaint.remedy("parameters are matched with query"))
        } else {
            HealthPath::check(path)
        }
    }
}

text_rule!(RoutePath, RoutePath::EXPECTED, { "maxLength": 2048, "pattern": "^(/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)?$" });

/// The rule for a regular expression for paths, or empty.
pub(super) struct PathRegex;

impl PathRegex {
    const EXPECTED: &str = "a regular expression, or \"\"";

    pub(super) fn check(pattern: &str) -> Result<(), Complaint> {
        if pattern.len() > LONGEST_REGEX {
            return Err(too_long(pattern, LONGEST_REGEX));
        }
        if pattern.chars().any(char::is_control) {
            return Err(Complaint::new("a regular expression without control characters"));
        }
        match regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE).build() {
            // Whole paths are matched: a comment in it must not swallow what is put after it for that.
            Ok(_) if regex::RegexBuilder::new(&whole_path(pattern)).size_limit(REGEX_SIZE).build().is_err() => {
                Err(Complaint::new("a smaller regular expression, without a comment at its end"))
            }
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(_)) => Err(Complaint::new("a smaller regular expression")
                .remedy(format!("compiled it would take more than {} KiB", REGEX_SIZE / 1024))),
            Err(error) => {
                // The library draws the place on several lines; the last one says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Err(Complaint::new(Self::EXPECTED).remedy(reason))
            }
        }
    }
}

text_rule!(PathRegex, PathRegex::EXPECTED, { "maxLength": 1024, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" });

/// The rule for a method, or empty.
pub(super) struct Method;

impl Method {
    const EXPECTED: &str = "a method such as GET, or \"\"";

    pub(super) fn check(method: &str) -> Result<(), Complaint> {
        if method.is_empty()
            || is_token(method) && method.len() <= 64 && !method.bytes().any(|b| b.is_ascii_lowercase())
        {
            Ok(())
        } else {
            let complaint = Complaint::new(Self::EXPECTED);
            let upper = method.to_ascii_uppercase();
            Err(if is_token(method) { complaint.remedy(format!("write {upper}")) } else { complaint })
        }
    }
}

text_rule!(Method, Method::EXPECTED, { "maxLength": 64, "pattern": "^[A-Z0-9!#$%&'*+.^_`|~-]*$" });

/// Whether `host` is made of labels that DNS takes (and `_`, which some use), or is an IPv4 address.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().is_some_and(|b| *b != b'-') && bytes.last().is_some_and(|b| *b != b'-');
        ends && bytes.len() <= 63 && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// The rule for a name by which requests ask for a service.
pub(super) struct HostName;

impl HostName {
    const EXPECTED: &str = "a host name such as checkout.internal";

    pub(super) fn check(host: &str) -> Result<(), Complaint> {
        if is_host(host) { Ok(()) } else { Err(host_complaint(Self::EXPECTED, host)) }
    }
}

text_rule!(HostName, HostName::EXPECTED, { "minLength": 1, "maxLength": 253, "pattern": "^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$" });

/// The rule for a host of requests: a name, all names below one, or empty.
pub(super) struct HostPattern;

impl HostPattern {
    const EXPECTED: &str = "a host name such as checkout.internal or *.example.org, or \"\"";

    pub(super) fn check(host: &str) -> Result<(), Complaint> {
        let name = host.strip_prefix("*.").unwrap_or(host);
        if host.is_empty() || is_host(name) { Ok(()) } else { Err(host_complaint(Self::EXPECTED, host)) }
    }
}

text_rule!(HostPattern, HostPattern::EXPECTED, { "maxLength": 255, "pattern": "^((\\*\\.)?[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?)?$" });

fn host_complaint(expected: &'static str, host: &str) -> Complaint {
    let complaint = Complaint::new(expected);
    match host.split_once(':') {
        Some((name, port)) if is_host(name) && port.parse::<u16>().is_ok() => {
            complaint.remedy(format!("leave the port out: {name}"))
        }
        _ => match host.split_once("://") {
            Some(_) => complaint.remedy("write the host alone, not a URL"),
            None => complaint,
        },
    }
}

/// The rule for a host that is sent, with or without a port; or empty.
pub(super) struct HostPort;

impl HostPort {
    const EXPECTED: &str = "a host, with or without a port, or \"\"";

    pub(super) fn check(host: &str) -> Result<(), Complaint> {
        let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        let right = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((ip, rest)) => {
                ip.parse::<std::net::Ipv6Addr>().is_ok()
                    && (rest.is_empty() || rest.strip_prefix(':').is_some_and(port))
            }
            None => match host.split_once(':') {
                Some((name, number)) => is_host(name) && port(number),
                None => host.is_empty() || is_host(host),
            },
        };
        if right { Ok(()) } else { Err(Complaint::new(Self::EXPECTED)) }
    }
}

text_rule!(HostPort, HostPort::EXPECTED, { "maxLength": 259, "pattern": "^[A-Za-z0-9._:\\[\\]-]*$" });

/// The rule for a header's name.
pub(super) struct HeaderName;

impl HeaderName {
    const EXPECTED: &str = "the name of a header, such as x-user";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.len() > 256 {
            Err(too_long(name, 256))
        } else if is_token(name) {
            Ok(())
        } else if name.starts_with(':') {
            Err(Complaint::new(Self::EXPECTED).remedy("use match.method, match.path or match.host"))
        } else {
            Err(Complaint::new(Self::EXPECTED))
        }
    }
}

text_rule!(HeaderName, HeaderName::EXPECTED, { "minLength": 1, "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" });

/// The rule for the name of a header that may be changed: not those that are about one connection or one message.
pub(super) struct ChangedHeader;

impl ChangedHeader {
    /// RFC 9110, section 7.6.1, and what frames a message.
    const FIXED: [&str; 9] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
    ];

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if !Self::FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name)) {
            HeaderName::check(name)
        } else if name.eq_ignore_ascii_case("host") {
            Err(Complaint::new("another header").remedy("rewrite.host changes the host"))
        } else {
            let complaint = Complaint::new("a header that may be changed");
            Err(complaint.remedy("this one is about the connection or the length of the message: leave it out"))
        }
    }
}

text_rule!(ChangedHeader, HeaderName::EXPECTED, { "minLength": 1, "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" });

/// The rule for a header's name, or empty.
pub(super) struct MaybeHeader;

impl MaybeHeader {
    const EXPECTED: &str = "the name of a header, such as x-user, or \"\"";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.is_empty() { Ok(()) } else { HeaderName::check(name) }
    }
}

text_rule!(MaybeHeader, MaybeHeader::EXPECTED, { "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]*$" });

/// The rule for a cookie's name, or empty.
pub(super) struct CookieName;

impl CookieName {
    const EXPECTED: &str = "the name of a cookie, or \"\"";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.len() > 256 {
            Err(too_long(name, 256))
        } else if name.is_empty() || is_token(name) {
            Ok(())
        } else {
            Err(Complaint::new(Self::EXPECTED))
        }
    }
}

text_rule!(CookieName, CookieName::EXPECTED, { "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]*$" });

/// The rule for a header's value.
pub(super) struct HeaderValue;

impl HeaderValue {
    const EXPECTED: &str = "text without control characters, and without spaces around it";

    pub(super) fn check(value: &str) -> Result<(), Complaint> {
        if value.len() > LONGEST_VALUE {
            Err(too_long(value, LONGEST_VALUE))
        } else if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) || value.trim_matches([' ', '\t']) != value
        {
            Err(Complaint::new(Self::EXPECTED))
        } else {
            Ok(())
        }
    }
}

text_rule!(HeaderValue, HeaderValue::EXPECTED, { "maxLength": 4096, "pattern": "^([^\\x00-\\x20\\x7f]([^\\x00-\\x08\\x0a-\\x1f\\x7f]*[^\\x00-\\x20\\x7f])?)?$" });

/// The rule for the name of a parameter.
pub(super) struct QueryName;

impl QueryName {
    const EXPECTED: &str = "the name of a parameter";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.is_empty() || name.chars().any(char::is_control) {
            Err(Complaint::new(Self::EXPECTED))
        } else if name.len() > LONGEST_VALUE {
            Err(too_long(name, LONGEST_VALUE))
        } else {
            Ok(())
        }
    }
}

text_rule!(QueryName, QueryName::EXPECTED, { "minLength": 1, "maxLength": 4096, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" });

/// The rule for the value of a parameter, as it is meant: `a b`, not `a%20b`.
pub(super) struct QueryValue;

impl QueryValue {
    pub(super) fn check(value: &str) -> Result<(), Complaint> {
        if value.len() > LONGEST_VALUE {
            Err(too_long(value, LONGEST_VALUE))
        } else if value.chars().any(char::is_control) {
            Err(Complaint::new("text without control characters"))
        } else {
            Ok(())
        }
    }
}

text_rule!(QueryValue, "text", { "maxLength": 4096, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" });

/// The rule for the name of a service, or empty.
pub(super) struct MaybeService;

impl MaybeService {
    const EXPECTED: &str = "the name of a service, or \"\"";

    pub(super) fn check(name: &str) -> Result<(), Complaint> {
        if name.is_empty() { Ok(()) } else { ServiceName::check(name) }
    }
}

text_rule!(MaybeService, MaybeService::EXPECTED, { "maxLength": 253, "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?([.][a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*)?$" });

fn too_long(text: &str, longest: usize) -> Complaint {
    Complaint::new(format!("at most {longest} bytes")).remedy(format!("it has {}", text.len()))
}
