//! What changes in the head of a message between HTTP/1.1 and HTTP/2.
//!
//! A message is fit for a dialect after the function of that dialect, whichever it came in.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, COOKIE, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::super::{Fault, FaultKind, Fields, RequestHead, ResponseHead, hop};

/// Makes the head of a request fit for HTTP/2: the host becomes `:authority`, and what speaks of the connection goes
/// (RFC 9113, sections 8.2.2 and 8.3.1); of `te` stays `trailers`.
///
/// # Errors
///
/// The host is no authority.
pub fn prepare_for_http2(head: &mut RequestHead) -> Result<(), Fault> {
    hop::strip_request(&mut head.headers);
    if head.uri.authority().is_none()
        && head.method != Method::CONNECT
        && let Some(host) = head.headers.get(HOST)
        && !host.is_empty()
    {
        let authority = Authority::from_maybe_shared(Bytes::copy_from_slice(host)).map_err(|_| malformed("host"))?;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).map_err(|_| malformed("target"))?;
    }
    if let Some(path) = head.uri.path_and_query()
        && path.as_str().starts_with('?')
    {
        // `http://host?query`: there the path is empty, here it must not be (RFC 9113, section 8.3.1).
        let path = PathAndQuery::from_maybe_shared(Bytes::from(format!("/{path}"))).map_err(|_| malformed("target"))?;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.path_and_query = Some(path);
        head.uri = Uri::from_parts(parts).map_err(|_| malformed("target"))?;
    }
    head.headers.remove(HOST);
    // h2 wants an authority of messages that say 2; one that came without a host has none to give.
    head.version = if head.uri.authority().is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
    Ok(())
}

/// Makes the head of a request fit for HTTP/1.1: `:authority` becomes `host`, the target a path, and the pieces of a
/// cookie one field (RFC 9113, section 8.2.3). Whether the body is chunked is for whoever writes it: HTTP/2 need not say
/// the length.
///
/// # Errors
///
/// It is an extended `CONNECT`, which has no single request in HTTP/1.1 that says the same.
pub fn prepare_for_http1(head: &mut RequestHead) -> Result<(), Fault> {
    if head.extensions.get::<Protocol>().is_some() {
        return Err(malformed("extended CONNECT"));
    }
    hop::strip_request(&mut head.headers);
    let host = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(without_user(authority)).map_err(|_| malformed("authority"))?,
        None => head.headers.value(HOST).unwrap_or_else(|| HeaderValue::from_static("")),
    };
    head.headers.insert(HOST, &host);
    if head.method != Method::CONNECT {
        let target = std::mem::take(&mut head.uri).into_parts().path_and_query;
        head.uri = target.map_or_else(Uri::default, Uri::from);
    }
    join_cookies(&mut head.headers);
    head.version = Version::HTTP_11;
    Ok(())
}

/// Makes the head of a response fit for HTTP/2.
pub fn prepare_response_for_http2(head: &mut ResponseHead) {
    hop::strip(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6; HTTP/1.1 leaves it out where it is written.
        head.headers.remove(CONTENT_LENGTH);
    }
    head.version = Version::HTTP_2;
}

/// Whether the head of a request that came by HTTP/2 means one thing only, to whichever dialect it goes: one host, and a
/// target that is a path.
///
/// # Errors
///
/// It is malformed.
pub fn check<B>(request: &Request<B>) -> Result<(), Fault> {
    let uri = request.uri();
    let authority = uri.authority().map(Authority::as_str);
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(malformed("authority with a user"));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    if let Some(host) = hosts.next() {
        let same = authority.is_none_or(|authority| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        if !same || hosts.next().is_some() {
            return Err(malformed("two hosts"));
        }
    }
    if request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none() {
        return if authority.is_some() { Ok(()) } else { Err(malformed("CONNECT without authority")) };
    }
    match uri.path_and_query().map(PathAndQuery::as_str) {
        Some("*") if request.method() == Method::OPTIONS => Ok(()),
        Some(path) if path.starts_with('/') => Ok(()),
        _ => Err(malformed("path")),
    }
}

fn join_cookies(headers: &mut Fields) {
    if headers.get_all(COOKIE).nth(1).is_some() {
        headers.join(&COOKIE, "; ", None);
    }
}

fn without_user(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

const fn malformed(what: &'static str) -> Fault {
    Fault::downstream(FaultKind::Malformed(what))
}
