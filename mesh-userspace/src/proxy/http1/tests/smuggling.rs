//! Bytes that two parties could understand differently, and what becomes of them.

use bytes::Bytes;
use http::Method;

use super::super::{super::FaultKind, Limits, chunked::Step, decode::Decoder, framing::Framing, head};

/// What is expected of a message.
pub(super) enum Verdict {
    /// It is refused, with these words.
    No(&'static str),
    /// It is understood, with this framing.
    Yes(Framing),
}
use Verdict::{No, Yes};

const NONE: Framing = Framing::Length(0);

/// Requests.
pub(super) const REQUESTS: &[(&str, Verdict)] = &[
    // The start line.
    ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Yes(NONE)),
    ("GET / HTTP/1.0\r\n\r\n", Yes(NONE)),
    ("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Yes(NONE)),
    ("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", No("empty line")),
    ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", No("empty line")),
    (" GET / HTTP/1.1\r\nhost: a\r\n\r\n", No("start line")),
    ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", No("start line")),
    ("GET /  HTTP/1.1\r\nhost: a\r\n\r\n", No("version")),
    ("GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", No("start line")),
    ("GET / HTTP/1.1 \r\nhost: a\r\n\r\n", No("end of a line")),
    ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", No("version")),
    ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", No("version")),
    ("GET / HTTP/0.9\r\nhost: a\r\n\r\n", No("version")),
    ("GET / http/1.1\r\nhost: a\r\n\r\n", No("version")),
    ("GET /\r\nhost: a\r\n\r\n", No("start line")),
    ("G@T / HTTP/1.1\r\nhost: a\r\n\r\n", No("start line")),
    // The target.
    ("GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n", Yes(NONE)),
    ("GET http://u:p@b/x HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET http://b,c/x HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET ftp://b/x HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET b:80 HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET b HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("GET * HTTP/1.1\r\nhost: a\r\n\r\n", No("request target")),
    ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", Yes(NONE)),
    ("GET /x#y HTTP/1.1\r\nhost: a\r\n\r\n", No("fragment")),
    ("GET /x\x00y HTTP/1.1\r\nhost: a\r\n\r\n", No("start line")),
    ("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n", Yes(NONE)),
    ("CONNECT b HTTP/1.1\r\nhost: b\r\n\r\n", No("CONNECT")),
    ("CONNECT /x HTTP/1.1\r\nhost: b\r\n\r\n", No("request target")),
    ("CONNECT http://b/ HTTP/1.1\r\nhost: b\r\n\r\n", No("request target")),
    ("CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\ncontent-length: 1\r\n\r\nx", No("CONNECT with a body")),
    // The host.
    ("GET / HTTP/1.1\r\n\r\n", No("no Host")),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", No("more than one Host")),
    ("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", No("more than one Host")),
    ("GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", No("value of Host")),
    ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", No("value of Host")),
    ("GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", No("value of Host")),
    ("GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", Yes(NONE)),
    ("GET / HTTP/1.1\r\nhost:\r\n\r\n", Yes(NONE)),
    // Lines.
    ("GET / HTTP/1.1\nhost: a\r\n\r\n", No("bare LF")),
    ("GET / HTTP/1.1\r\nhost: a\n\r\n", No("bare LF")),
    ("GET / HTTP/1.1\r\nhost: a\r\n\n", No("bare LF")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\n\n", No("bare LF")),
    ("GET / HTTP/1.1\rhost: a\r\n\r\n", No("end of a line")),
    ("GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", No("header value")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\r d\r\n\r\n", No("header value")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n d\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\r\n\td\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\n host: a\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost\t: a\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb\x00: c\r\n\r\n", No("header name")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\x00\r\n\r\n", No("header value")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\x0b\r\n\r\n", No("header value")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: c\x7f\r\n\r\n", No("header value")),
    ("GET / HTTP/1.1\r\nhost: a\r\nb: \u{e4}\tc \t\r\n\r\n", Yes(NONE)),
    // The length.
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n", Yes(Framing::Length(5))),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:  5 \r\n\r\n", Yes(Framing::Length(5))),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 05\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n", Yes(Framing::Length(u64::MAX))),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n", No("overflows")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\n", No("overflows")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5 5\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5,\r\n\r\n", No("not one number")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", No("not one number")),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        No("more than one Content-Length"),
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\n",
        No("more than one Content-Length"),
    ),
    // The coding.
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", Yes(Framing::Chunked)),
    ("POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n", Yes(Framing::Chunked)),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", No("both")),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n", No("both")),
    ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", No("HTTP/1.0")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n", No("exactly one")),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        No("exactly one"),
    ),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;x\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n", No("exactly one")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n", No("header value")),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n", No("header name")),
];

/// Responses to `GET`.
pub(super) const RESPONSES: &[(&str, Verdict)] = &[
    ("HTTP/1.1 200 OK\r\n\r\n", Yes(Framing::UntilClose)),
    ("HTTP/1.1 200\r\n\r\n", Yes(Framing::UntilClose)),
    ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n", Yes(Framing::Length(3))),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Yes(Framing::Chunked)),
    ("HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", Yes(NONE)),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", Yes(NONE)),
    ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Yes(Framing::Tunnel)),
    ("HTTP/1.1 100 Continue\r\n\r\n", Yes(NONE)),
    ("HTTP/1.1 103 Early Hints\r\ncontent-length: 3\r\n\r\n", No("interim")),
    ("\r\nHTTP/1.1 200 OK\r\n\r\n", No("status line")),
    ("HTTP/1.1  200 OK\r\n\r\n", No("status")),
    ("HTTP/1.1 20 OK\r\n\r\n", No("status")),
    ("HTTP/1.1 2000 OK\r\n\r\n", No("status")),
    ("HTTP/1.1 099 OK\r\n\r\n", No("status")),
    ("HTTP/2 200 OK\r\n\r\n", No("version")),
    ("ICY 200 OK\r\n\r\n", No("status line")),
    ("HTTP/1.1 200 OK\ncontent-length: 3\r\n\r\n", No("bare LF")),
    ("HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n", No("header name")),
    ("HTTP/1.1 200 OK\r\ncontent-length : 3\r\n\r\n", No("header name")),
    ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", No("more than one Content-Length")),
    ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", No("both")),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", No("exactly one")),
    ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", No("HTTP/1.0")),
];

/// Chunked bodies: what is decoded, or the words of the refusal.
pub(super) const CHUNKED: &[(&str, Result<&str, &str>)] = &[
    ("0\r\n\r\n", Ok("")),
    ("3\r\nabc\r\n0\r\n\r\n", Ok("abc")),
    ("003\r\nabc\r\n000\r\n\r\n", Ok("abc")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
    ("3;x=y\r\nabc\r\n0;z\r\n\r\n", Ok("abc")),
    ("3 ; x=\"y\"\r\nabc\r\n0\r\n\r\n", Ok("abc")),
    ("3\r\nabc\r\n0\r\na: b\r\n\r\n", Ok("abc")),
    ("3 \r\nabc\r\n0\r\n\r\n", Err("chunk size")),
    (" 3\r\nabc\r\n0\r\n\r\n", Err("no chunk size")),
    ("\r\n3\r\nabc\r\n0\r\n\r\n", Err("no chunk size")),
    (";x\r\nabc\r\n0\r\n\r\n", Err("no chunk size")),
    ("+3\r\nabc\r\n0\r\n\r\n", Err("no chunk size")),
    ("0x3\r\nabc\r\n0\r\n\r\n", Err("chunk size")),
    ("3\nabc\r\n0\r\n\r\n", Err("chunk size")),
    ("3\rabc\r\n0\r\n\r\n", Err("chunk size")),
    ("3;x\nabc\r\n0\r\n\r\n", Err("chunk size")),
    ("3;x\x00\r\nabc\r\n0\r\n\r\n", Err("chunk size")),
    ("3\r\nabcd\r\n0\r\n\r\n", Err("longer than its size")),
    ("3\r\nabc\n0\r\n\r\n", Err("longer than its size")),
    ("3\r\nabc0\r\n\r\n", Err("longer than its size")),
    ("3\r\nabc\r0\r\n\r\n", Err("longer than its size")),
    ("00000000000000003\r\nabc\r\n0\r\n\r\n", Err("16 digits")),
    ("10000000000000000\r\nabc\r\n0\r\n\r\n", Err("16 digits")),
    ("0\r\n\n", Err("bare LF")),
    ("0\r\na: b\n\r\n", Err("bare LF")),
    ("0\r\na : b\r\n\r\n", Err("header name")),
    ("0\r\na: b\r\n c\r\n\r\n", Err("header name")),
    ("0\r\na: b\x00\r\n\r\n", Err("header value")),
];

fn check(bytes: &str, expected: &Verdict, got: Result<Option<Framing>, FaultKind>) {
    match (expected, &got) {
        (Yes(expected), Ok(Some(framing))) if expected == framing => {}
        (No(words), Err(kind)) if kind.to_string().contains(words) => {}
        _ => panic!("{bytes:?} gave {got:?}"),
    }
}

#[test]
fn requests_are_understood_in_one_way_or_refused() {
    for (bytes, expected) in REQUESTS {
        let input = Bytes::from_static(bytes.as_bytes());
        check(bytes, expected, head::request(&input, &Limits::default()).map(|head| head.map(|head| head.framing)));
    }
}

#[test]
fn responses_are_understood_in_one_way_or_refused() {
    for (bytes, expected) in RESPONSES {
        let input = Bytes::from_static(bytes.as_bytes());
        let head = head::response(&input, &Method::GET, &Limits::default());
        check(bytes, expected, head.map(|head| head.map(|head| head.framing)));
    }
}

#[test]
fn chunked_bodies_are_understood_in_one_way_or_refused() {
    for (bytes, expected) in CHUNKED {
        let got = decode(bytes.as_bytes());
        match (expected, &got) {
            (Ok(expected), Ok(Some(data))) if expected.as_bytes() == data => {}
            (Err(words), Err(kind)) if kind.to_string().contains(words) => {}
            _ => panic!("{bytes:?} gave {got:?}"),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Option<Vec<u8>>, FaultKind> {
    let (mut decoder, mut input) = (Decoder::from(Framing::Chunked), Bytes::copy_from_slice(bytes));
    let mut data = Vec::new();
    loop {
        match decoder.step(&mut input, &Limits::default())? {
            Step::Data(part) => data.extend_from_slice(&part),
            Step::Trailers(_) => {}
            Step::End => return Ok(Some(data)),
            Step::More => return Ok(None),
        }
    }
}

#[test]
fn the_host_of_an_absolute_target_replaces_the_header() {
    let input = Bytes::from_static(b"GET http://b:80/x HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = head::request(&input, &Limits::default()).unwrap().unwrap();
    assert!(head.head.headers.get_all("host").eq([b"b:80"]));
}

#[test]
fn heads_are_bounded_in_lines_and_bytes() {
    let limits = Limits { head_bytes: 200, headers: 3, ..Limits::default() };
    let with = |lines: &str| {
        let input = Bytes::from(format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n"));
        head::request(&input, &limits).map(|head| head.is_some())
    };
    assert_eq!(with("a: b\r\nc: d\r\n"), Ok(true));
    assert_eq!(with("a: b\r\nc: d\r\ne: f\r\n"), Err(FaultKind::TooLarge("number of headers")));
    assert_eq!(with(&format!("a: {}\r\n", "x".repeat(200))), Err(FaultKind::TooLarge("head")));
    let endless = Bytes::from(format!("GET /{}", "x".repeat(200)));
    assert_eq!(head::request(&endless, &limits).map(|head| head.is_some()), Err(FaultKind::TooLarge("head")));
}

#[test]
fn chunk_extensions_and_trailers_are_bounded() {
    let extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(4096));
    assert_eq!(decode(extension.as_bytes()), Err(FaultKind::TooLarge("chunk extensions")));
    let many = "1;x\r\na\r\n".repeat(2049);
    assert_eq!(decode(many.as_bytes()), Err(FaultKind::TooLarge("chunk extensions")));
    let trailers = format!("0\r\na: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(decode(trailers.as_bytes()), Err(FaultKind::TooLarge("trailers")));
    let lines = format!("0\r\n{}\r\n", "a: b\r\n".repeat(129));
    assert_eq!(decode(lines.as_bytes()), Err(FaultKind::TooLarge("number of headers")));
}

#[test]
fn trailers_cannot_frame_or_route() {
    let mut input =
        Bytes::from_static(b"0\r\ncontent-length: 3\r\nhost: b\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n");
    let step = Decoder::from(Framing::Chunked).step(&mut input, &Limits::default());
    let Ok(Step::Trailers(trailers)) = step else { panic!("{step:?}") };
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["x"], "y");
}
