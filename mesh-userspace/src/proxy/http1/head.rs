//! Bytes to heads: strict parsing over `httparse`.
//!
//! `httparse` refuses folded lines, controls, and blanks before a colon; it forgives lines that end in a bare LF and any
//! number of blank lines before a message, which is added here.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::{
    super::FaultKind,
    Limits,
    framing::{self, Fields, Framing},
    names, target,
};

/// A head, and what follows from it.
#[derive(Debug)]
pub(super) struct Head<T> {
    /// The message, without its body.
    pub(super) message: T,
    /// How the end of its body is found.
    pub(super) framing: Framing,
    /// What it says about itself.
    pub(super) fields: Fields,
    /// How many bytes of the input it took.
    pub(super) bytes: usize,
}

/// Room for headers that a proxy adds, so that the map need not grow.
const ADDED: usize = 6;

type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; Limits::MOST_HEADERS];

/// The request at the beginning of `input`; `None`: there is more to come.
pub(super) fn request(input: &Bytes, limits: &Limits) -> Result<Option<Head<Request<()>>>, FaultKind> {
    // RFC 9112, section 2.2: one empty line before a request is forgiven; some clients end bodies with one.
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = &input[skipped..];
    if bytes.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) && bytes != b"\r" {
        return Err(FaultKind::Malformed("empty line in place of a request"));
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; Limits::MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, within(&mut slots, limits));
    let Some(length) = complete(status, bytes, limits)? else { return Ok(None) };
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(FaultKind::Malformed("request line"));
    };

    let method = Method::from_bytes(method.as_bytes()).map_err(|_| FaultKind::Malformed("method"))?;
    let uri = target::parse(&method, input.slice_ref(path.as_bytes()))?;
    let version = self::version(version);
    let (mut headers, fields) = self::headers(input, parsed.headers)?;
    target::settle_host(&uri, version, fields.hosts, &mut headers)?;
    let framing = framing::of_request(&method, version, &fields)?;

    let mut message = Request::new(());
    *message.method_mut() = method;
    *message.uri_mut() = uri;
    *message.version_mut() = version;
    *message.headers_mut() = headers;
    Ok(Some(Head { message, framing, fields, bytes: skipped + length }))
}

/// The response at the beginning of `input`, to a request of `method`; `None`: there is more to come.
pub(super) fn response(
    input: &Bytes,
    method: &Method,
    limits: &Limits,
) -> Result<Option<Head<Response<()>>>, FaultKind> {
    if input.first().is_some_and(|&byte| byte != b'H') {
        return Err(FaultKind::Malformed("status line"));
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; Limits::MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        input,
        within(&mut slots, limits),
    );
    let Some(bytes) = complete(status, input, limits)? else { return Ok(None) };
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(FaultKind::Malformed("status line"));
    };

    let status = StatusCode::from_u16(code).map_err(|_| FaultKind::Malformed("status"))?;
    let version = self::version(version);
    let (headers, fields) = self::headers(input, parsed.headers)?;
    let framing = framing::of_response(method, status, version, &fields)?;

    let mut message = Response::new(());
    *message.status_mut() = status;
    *message.version_mut() = version;
    *message.headers_mut() = headers;
    Ok(Some(Head { message, framing, fields, bytes }))
}

/// The trailers of a chunked body: header lines with the empty line after them. Those that would frame, route or
/// authenticate the message, were they in its head, are dropped (RFC 9110, section 6.5.1).
pub(super) fn trailers(input: &Bytes, limits: &Limits) -> Result<HeaderMap, FaultKind> {
    let mut slots = [httparse::EMPTY_HEADER; Limits::MOST_HEADERS];
    let most = limits.headers.min(Limits::MOST_HEADERS);
    match httparse::parse_headers(input, &mut slots[..most]) {
        Ok(httparse::Status::Complete((length, lines))) if length == input.len() => {
            let mut headers = HeaderMap::with_capacity(lines.len());
            for line in lines {
                let (name, value) = field(input, line)?;
                if !NO_TRAILERS.contains(&name) {
                    headers.append(name, value);
                }
            }
            Ok(headers)
        }
        Ok(_) => Err(FaultKind::Malformed("trailers")),
        Err(error) => Err(refusal(error)),
    }
}

const NO_TRAILERS: [HeaderName; 16] = {
    use http::header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        COOKIE, EXPECT, HOST, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    };
    [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        PROXY_AUTHORIZATION,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
};

fn within<'s, 'a>(slots: &'s mut Slots<'a>, limits: &Limits) -> &'s mut [MaybeUninit<httparse::Header<'a>>] {
    &mut slots[..limits.headers.min(Limits::MOST_HEADERS)]
}

/// How long the head is that was parsed from the beginning of `bytes`.
fn complete(
    status: Result<httparse::Status<usize>, httparse::Error>,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Option<usize>, FaultKind> {
    let length = match status.map_err(refusal)? {
        httparse::Status::Complete(length) => Some(length),
        httparse::Status::Partial => None,
    };
    let head = &bytes[..length.unwrap_or(bytes.len())];
    if head.len() > limits.head_bytes {
        return Err(FaultKind::TooLarge("head"));
    }
    if has_bare_line_feed(head) {
        return Err(FaultKind::Malformed("line ends in a bare LF"));
    }
    Ok(length)
}

/// Whether a line ends without CR: others may see no end of a line there.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

fn refusal(error: httparse::Error) -> FaultKind {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => FaultKind::TooLarge("number of headers"),
        Error::HeaderName => FaultKind::Malformed("header name"),
        Error::HeaderValue => FaultKind::Malformed("header value"),
        Error::NewLine => FaultKind::Malformed("end of a line"),
        Error::Status => FaultKind::Malformed("status"),
        Error::Token => FaultKind::Malformed("start line"),
        Error::Version => FaultKind::Malformed("version is neither HTTP/1.1 nor HTTP/1.0"),
    }
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn headers(input: &Bytes, lines: &[httparse::Header<'_>]) -> Result<(HeaderMap, Fields), FaultKind> {
    let mut headers = HeaderMap::with_capacity(lines.len() + ADDED);
    let mut fields = Fields::default();
    for line in lines {
        let (name, value) = field(input, line)?;
        fields.note(&name, value.as_bytes())?;
        headers.append(name, value);
    }
    Ok((headers, fields))
}

/// One line; the value stays where it is.
fn field(input: &Bytes, line: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), FaultKind> {
    let name = names::name(line.name.as_bytes())?;
    let value = HeaderValue::from_maybe_shared(input.slice_ref(line.value))
        .map_err(|_| FaultKind::Malformed("header value"))?;
    Ok((name, value))
}
