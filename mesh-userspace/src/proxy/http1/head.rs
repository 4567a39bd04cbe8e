//! Bytes to heads: strict parsing over `httparse`.
//!
//! `httparse` refuses folded lines, controls, and blanks before a colon; it forgives lines that end in a bare LF and any
//! number of blank lines before a message, which is added here.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::{
    super::{
        FaultKind, RequestHead, ResponseHead,
        fields::{Block, Fields, names},
    },
    Limits,
    framing::{self, Framing, Noted},
    target,
};

/// A head, and what follows from it.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    /// The head.
    pub(super) head: Box<T>,
    /// How the end of its body is found.
    pub(super) framing: Framing,
    /// What it says about itself.
    pub(super) noted: Noted,
    /// How many bytes of the input it took.
    pub(super) bytes: usize,
}

/// Room for lines that a proxy adds to requests and to responses, in bytes, so that nothing need grow.
const ADDED: [usize; 2] = [256, 64];

type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; Limits::MOST_HEADERS];

/// The request at the beginning of `input`; `None`: there is more to come.
pub(super) fn request(input: &Bytes, limits: &Limits) -> Result<Option<Parsed<RequestHead>>, FaultKind> {
    // RFC 9112, section 2.2: one empty line before a request is forgiven; some clients end bodies with one.
    let skipped = if input.starts_with(b"\r\n") { 2 } else { 0 };
    let bytes = &input[skipped..];
    if bytes.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) && bytes != b"\r" {
        return Err(FaultKind::Malformed("empty line in place of a request"));
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; Limits::MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, within(&mut slots, limits));
    let Some(length) = complete(status, bytes, parsed.headers, limits)? else { return Ok(None) };
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(FaultKind::Malformed("request line"));
    };

    let method = Method::from_bytes(method.as_bytes()).map_err(|_| FaultKind::Malformed("method"))?;
    let uri = target::parse(&method, input.slice_ref(path.as_bytes()))?;
    let version = self::version(version);
    let (mut headers, noted) = self::headers(&bytes[..length], parsed.headers, ADDED[0])?;
    target::settle_host(&uri, version, noted.hosts, &mut headers)?;
    let uri =
        if method == Method::OPTIONS && target::is_host_alone(path.as_bytes()) { Uri::from_static("*") } else { uri };
    let framing = framing::of_request(&method, version, &noted)?;

    let head = Box::new(RequestHead { method, uri, version, headers, extensions: Extensions::new() });
    Ok(Some(Parsed { head, framing, noted, bytes: skipped + length }))
}

/// The response at the beginning of `input`, to a request of `method`; `None`: there is more to come.
pub(super) fn response(
    input: &Bytes,
    method: &Method,
    limits: &Limits,
) -> Result<Option<Parsed<ResponseHead>>, FaultKind> {
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
    let Some(bytes) = complete(status, input, parsed.headers, limits)? else { return Ok(None) };
    let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
        return Err(FaultKind::Malformed("status line"));
    };

    let status = StatusCode::from_u16(code).map_err(|_| FaultKind::Malformed("status"))?;
    let version = self::version(version);
    let (headers, noted) = self::headers(&input[..bytes], parsed.headers, ADDED[1])?;
    let framing = framing::of_response(method, status, version, &noted)?;

    Ok(Some(Parsed { head: Box::new(ResponseHead { status, version, headers }), framing, noted, bytes }))
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

/// What would frame, route or authenticate a message.
pub(super) const NO_TRAILERS: [HeaderName; 16] = {
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
    lines: &[httparse::Header<'_>],
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
    let is_bare = if length.is_some() { ends_bare(head, lines) } else { has_bare_line_feed(head) };
    if is_bare {
        return Err(FaultKind::Malformed("line ends in a bare LF"));
    }
    Ok(length)
}

/// [`has_bare_line_feed`] of a whole head that consists of a start line and these: lines end where others begin.
fn ends_bare(head: &[u8], lines: &[httparse::Header<'_>]) -> bool {
    let begins = lines.iter().map(|line| line.name.as_ptr().addr() - head.as_ptr().addr());
    let bare = !head.ends_with(b"\r\n\r\n") || !begins.map(|at| &head[..at]).all(|before| before.ends_with(b"\r\n"));
    debug_assert_eq!(bare, has_bare_line_feed(head));
    bare
}

/// Whether a line ends without CR: others may see no end of a line there.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    // Without a branch, so that it is done for many bytes at once; lines are short.
    let bare = |bare, pair: &[u8]| bare | ((pair[1] == b'\n') & (pair[0] != b'\r'));
    bytes.first() == Some(&b'\n') || bytes.windows(2).fold(false, bare)
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

fn headers(head: &[u8], lines: &[httparse::Header<'_>], room: usize) -> Result<(Fields, Noted), FaultKind> {
    let mut noted = Noted::default();
    let block = Block::of_head(head, lines, room, |name, value| noted.note(name, value))?;
    Ok((block.into(), noted))
}

/// One line; the value stays where it is.
fn field(input: &Bytes, line: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), FaultKind> {
    let name = names::name(line.name.as_bytes())?;
    let value = HeaderValue::from_maybe_shared(input.slice_ref(line.value))
        .map_err(|_| FaultKind::Malformed("header value"))?;
    Ok((name, value))
}
