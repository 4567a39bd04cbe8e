//! Heads to bytes.

use std::io::Write as _;

use super::{
    super::{
        Fields, RequestHead, ResponseHead,
        fields::{bits, write_line},
    },
    head::NO_TRAILERS,
};
use http::{HeaderMap, Method, StatusCode, Uri, header};

/// How the receiver will find the end of a body that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimited {
    /// There is none; its header lines describe the one that there could be (`HEAD`, 304).
    Absent,
    /// There is none, and no header line may speak of one (RFC 9112, section 6.1 and RFC 9110, section 8.6).
    Forbidden,
    /// By `Content-Length`.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What a head says about its connection, besides what is in its header lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// What the version implies.
    Implied,
    /// `connection: close`.
    Close,
    /// `connection: keep-alive`.
    KeepAlive,
}

/// The head of a request, in HTTP/1.1. Its target is written in origin form, for `CONNECT` in authority form.
pub(super) fn request(out: &mut Vec<u8>, parts: &RequestHead, delimited: Delimited) {
    out.reserve(estimate(&parts.headers) + parts.uri.path().len());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    target(out, &parts.method, &parts.uri);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    headers(out, &parts.headers, delimited, false);
    // RFC 9110, section 8.6: a method that usually has content says that this one has none.
    let says_zero = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    length(out, &parts.headers, delimited, says_zero);
    out.extend_from_slice(b"\r\n");
}

fn target(out: &mut Vec<u8>, method: &Method, uri: &Uri) {
    match (uri.authority(), uri.path_and_query()) {
        (Some(authority), _) if method == Method::CONNECT => out.extend_from_slice(authority.as_str().as_bytes()),
        (_, Some(path)) => {
            if path.as_str().starts_with('?') {
                out.push(b'/');
            }
            out.extend_from_slice(path.as_str().as_bytes());
        }
        (_, None) => out.push(b'/'),
    }
}

/// The head of a response, in HTTP/1.1.
pub(super) fn response(out: &mut Vec<u8>, parts: &ResponseHead, delimited: Delimited, persistence: Persistence) {
    out.reserve(estimate(&parts.headers));
    if parts.status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(parts.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    headers(out, &parts.headers, delimited, parts.status != StatusCode::SWITCHING_PROTOCOLS);
    length(out, &parts.headers, delimited, true);
    out.extend_from_slice(match persistence {
        Persistence::Implied => b"\r\n",
        Persistence::Close => b"connection: close\r\n\r\n",
        Persistence::KeepAlive => b"connection: keep-alive\r\n\r\n",
    });
}

/// The trailers of a chunked body, with the empty line after them.
pub(super) fn trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        // Those of HTTP/2 were not looked at before.
        if !NO_TRAILERS.contains(name) {
            write_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// All lines but those that are ours to write: what frames the message, and (`own_persistence`) whether the connection
/// goes on.
fn headers(out: &mut Vec<u8>, headers: &Fields, delimited: Delimited, own_persistence: bool) {
    const ALWAYS: u64 = bits(&["connection", "transfer-encoding"]);
    const LENGTH: u64 = bits(&["content-length"]);
    let keep_length = matches!(delimited, Delimited::Length(_) | Delimited::Absent);
    let looked_for = if keep_length { ALWAYS } else { ALWAYS | LENGTH };
    headers.write(out, looked_for, |name, value| match name {
        b"transfer-encoding" => true,
        b"content-length" => !keep_length,
        b"connection" => own_persistence && is_persistence(value),
        _ => false,
    });
}

fn is_persistence(value: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The line that frames the message, where the header has none.
fn length(out: &mut Vec<u8>, headers: &Fields, delimited: Delimited, says_zero: bool) {
    match delimited {
        Delimited::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Delimited::Length(length) if !headers.contains(&header::CONTENT_LENGTH) && (length > 0 || says_zero) => {
            // Cannot fail: a Vec grows.
            let _ = write!(out, "content-length: {length}\r\n");
        }
        _ => {}
    }
}

/// About how many bytes a head takes.
fn estimate(headers: &Fields) -> usize {
    128 + headers.size()
}
