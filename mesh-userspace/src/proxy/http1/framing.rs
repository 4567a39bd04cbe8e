//! Where a message ends that was received: RFC 9112, section 6.3, without its leniencies.

use http::{Method, StatusCode, Version};

use super::super::FaultKind;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
    /// There is no body: what follows is no HTTP any more (101, or 2xx to `CONNECT`).
    Tunnel,
}

/// What the header lines of a message say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(super) chunked: bool,
    /// `Connection: close`.
    pub(super) close: bool,
    /// `Connection: keep-alive`.
    pub(super) keep_alive: bool,
    /// `Host` lines.
    pub(super) hosts: u8,
    /// `Expect: 100-continue`.
    pub(super) expects: bool,
}

impl Noted {
    /// Takes note of one header line; its name is in lower case.
    pub(super) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), FaultKind> {
        // Most names are told apart by their lengths.
        if !matches!(name.len(), 4 | 6 | 10 | 14 | 17) {
            return Ok(());
        }
        if name == b"content-length" {
            // Equal repetitions may be merged, says section 6.3; nobody honest sends them.
            if self.length.is_some() {
                return Err(FaultKind::Malformed("more than one Content-Length"));
            }
            self.length = Some(content_length(value)?);
        } else if name == b"transfer-encoding" {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FaultKind::Malformed("Transfer-Encoding is not exactly one \"chunked\""));
            }
            self.chunked = true;
        } else if name == b"connection" {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == b"host" {
            self.hosts = self.hosts.saturating_add(1);
        } else if name == b"expect" {
            self.expects |= value.eq_ignore_ascii_case(b"100-continue");
        }
        Ok(())
    }

    /// Whether the sender would go on with this connection (RFC 9112, section 9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// Whether there is a body, by these.
    pub(super) fn announces_body(&self) -> bool {
        self.chunked || self.length.is_some_and(|length| length > 0)
    }

    /// What is ambiguous in every message.
    fn check(&self, version: Version) -> Result<(), FaultKind> {
        if self.chunked && self.length.is_some() {
            return Err(FaultKind::Malformed("both Content-Length and Transfer-Encoding"));
        }
        if self.chunked && version != Version::HTTP_11 {
            return Err(FaultKind::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(())
    }
}

/// The framing of a request.
pub(super) fn of_request(method: &Method, version: Version, noted: &Noted) -> Result<Framing, FaultKind> {
    noted.check(version)?;
    // RFC 9110, section 9.3.6: it has no content, and what would be one is the tunnel's to others.
    if method == Method::CONNECT && noted.announces_body() {
        return Err(FaultKind::Malformed("CONNECT with a body"));
    }
    Ok(if noted.chunked { Framing::Chunked } else { Framing::Length(noted.length.unwrap_or(0)) })
}

/// The framing of a response to a request of `method`.
pub(super) fn of_response(
    method: &Method,
    status: StatusCode,
    version: Version,
    noted: &Noted,
) -> Result<Framing, FaultKind> {
    noted.check(version)?;
    if status == StatusCode::SWITCHING_PROTOCOLS || (method == Method::CONNECT && status.is_success()) {
        return Ok(Framing::Tunnel);
    }
    if status.is_informational() && noted.announces_body() {
        return Err(FaultKind::Malformed("interim response with a body"));
    }
    if method == Method::HEAD || is_bodiless(status) {
        return Ok(Framing::Length(0));
    }
    Ok(match (noted.chunked, noted.length) {
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    })
}

/// Whether responses of this status never have a body.
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// The value of `Content-Length`: digits, nothing else, no more than 64 bits.
pub(super) fn content_length(value: &[u8]) -> Result<u64, FaultKind> {
    const WRONG: FaultKind = FaultKind::Malformed("Content-Length is not one number");
    // Some would take a number that begins with 0 for an octal one.
    if value.is_empty() || (value[0] == b'0' && value.len() > 1) {
        return Err(WRONG);
    }
    value.iter().try_fold(0_u64, |sum, &byte| {
        if !byte.is_ascii_digit() {
            return Err(WRONG);
        }
        sum.checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
            .ok_or(FaultKind::Malformed("Content-Length overflows"))
    })
}
