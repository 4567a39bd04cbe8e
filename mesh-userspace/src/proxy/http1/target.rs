//! What a request asks for: its target (RFC 9112, section 3.2) and its `Host`.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Uri, Version, header,
    uri::{Authority, PathAndQuery},
};

use super::super::{FaultKind, Fields};

/// The target of a request. Its form has to go with the method.
pub(super) fn parse(method: &Method, target: Bytes) -> Result<Uri, FaultKind> {
    const WRONG: FaultKind = FaultKind::Malformed("request target");
    if memchr::memchr(b'#', &target).is_some() {
        return Err(FaultKind::Malformed("fragment in the request target"));
    }
    if method == Method::CONNECT {
        let authority = Authority::from_maybe_shared(target).map_err(|_| WRONG)?;
        return match authority.port_u16() {
            Some(_) if is_plain(&authority) => Ok(Uri::from(authority)),
            _ => Err(FaultKind::Malformed("target of CONNECT is not host:port")),
        };
    }
    match &target[..] {
        [b'/', ..] => PathAndQuery::from_maybe_shared(target).map(Uri::from).map_err(|_| WRONG),
        b"*" if method == Method::OPTIONS => Ok(Uri::from_static("*")),
        _ => absolute(Uri::from_maybe_shared(target).map_err(|_| WRONG)?),
    }
}

/// Absolute form: `http` or `https`, with a host and without a password.
fn absolute(uri: Uri) -> Result<Uri, FaultKind> {
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if is_plain(authority) => Ok(uri),
        _ => Err(FaultKind::Malformed("request target is neither a path nor an http URL")),
    }
}

/// Whether a target in absolute form has neither path nor query: with `OPTIONS` all of the server is meant, which its
/// last proxy says by an asterisk (section 3.2.4).
pub(super) fn is_host_alone(target: &[u8]) -> bool {
    let scheme = target.windows(3).position(|part| part == b"://");
    scheme.is_some_and(|at| !target.starts_with(b"/") && !target[at + 3..].iter().any(|b| matches!(b, b'/' | b'?')))
}

fn is_plain(authority: &Authority) -> bool {
    !authority.host().is_empty() && is_host(authority.as_str().as_bytes())
}

/// Sees to it that exactly one host is asked for (section 3.2): `Host` once, mandatory in 1.1; where the target names a
/// host too, that one replaces it (section 3.2.2), so that all who look at this request later see the same.
pub(super) fn settle_host(uri: &Uri, version: Version, hosts: u8, headers: &mut Fields) -> Result<(), FaultKind> {
    match hosts {
        0 if version == Version::HTTP_11 => return Err(FaultKind::Malformed("no Host")),
        0 | 1 => {}
        _ => return Err(FaultKind::Malformed("more than one Host")),
    }
    if headers.get(header::HOST).is_some_and(|host| !is_host(host)) {
        return Err(FaultKind::Malformed("value of Host"));
    }
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| FaultKind::Malformed("request target"))?;
        headers.insert(header::HOST, &host);
    }
    Ok(())
}

/// Whether this may be `uri-host [ ":" port ]`; empty is allowed. Commas are not, though RFC 3986 has them: to some they
/// make a list.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| OF_HOST[usize::from(*byte)])
}

const OF_HOST: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        allowed[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~%!$&'()*+;=:[]";
    let mut at = 0;
    while at < others.len() {
        allowed[others[at] as usize] = true;
        at += 1;
    }
    allowed
};
