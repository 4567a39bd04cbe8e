//! Entries for fuzzing: everything that is made of bytes from outside.

use bytes::{Buf, Bytes};
use http::{HeaderValue, Method, header};

use super::{
    super::FaultKind,
    Limits,
    chunked::Step,
    decode::Decoder,
    encode::{self, Delimited, Persistence},
    framing::Framing,
    head::{self, Parsed},
};

/// Decodes `bytes` as requests, one after the other. Returns how many were whole.
pub fn requests(bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let mut input = Bytes::copy_from_slice(bytes);
    let mut whole = 0;
    while let Ok(Some(Parsed { framing, bytes, .. })) = head::request(&input, &limits) {
        input.advance(bytes);
        if !drain(framing.into(), &mut input, &limits) {
            break;
        }
        whole += 1;
    }
    whole
}

/// Decodes `bytes` as responses, to `GET` and to `HEAD` by turns. Returns how many were whole.
pub fn responses(bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let mut input = Bytes::copy_from_slice(bytes);
    let mut whole = 0;
    let mut methods = [Method::GET, Method::HEAD].iter().cycle();
    while let Some(Ok(Some(Parsed { framing, bytes, .. }))) =
        methods.next().map(|method| head::response(&input, method, &limits))
    {
        input.advance(bytes);
        if !drain(framing.into(), &mut input, &limits) {
            break;
        }
        whole += 1;
    }
    whole
}

/// Whether a body ends within `input`.
fn drain(mut decoder: Decoder, input: &mut Bytes, limits: &Limits) -> bool {
    loop {
        match decoder.step(input, limits) {
            Ok(Step::Data(_) | Step::Trailers(_)) => {}
            Ok(Step::End) => return true,
            Ok(Step::More) | Err(_) => return false,
        }
    }
}

/// Whether whoever gets what we make of the request in `bytes` reads the same request, with a body that ends at the same
/// place. True of bytes that are no request.
#[must_use]
pub fn request_is_forwarded_faithfully(bytes: &[u8]) -> bool {
    let Ok(Some((framing, once))) = forward_request(bytes) else { return true };
    matches!(forward_request(&once), Ok(Some((again, twice))) if again == framing && twice == once)
}

/// The same of a response to `GET`.
#[must_use]
pub fn response_is_forwarded_faithfully(bytes: &[u8]) -> bool {
    let Ok(Some((framing, once))) = forward_response(bytes) else { return true };
    matches!(forward_response(&once), Ok(Some((again, twice))) if again == framing && twice == once)
}

fn forward_request(bytes: &[u8]) -> Result<Option<(Framing, Vec<u8>)>, FaultKind> {
    let Some(Parsed { mut head, framing, .. }) = head::request(&Bytes::copy_from_slice(bytes), &Limits::default())?
    else {
        return Ok(None);
    };
    // What the proxy sees to: HTTP/1.0 needs none.
    if !head.headers.contains(&header::HOST) {
        head.headers.insert(header::HOST, &HeaderValue::from_static("a"));
    }
    let mut out = Vec::new();
    let delimited = if head.method == Method::CONNECT { Delimited::Forbidden } else { delimited(framing) };
    encode::request(&mut out, &head, delimited);
    Ok(Some((framing, out)))
}

fn forward_response(bytes: &[u8]) -> Result<Option<(Framing, Vec<u8>)>, FaultKind> {
    let head = head::response(&Bytes::copy_from_slice(bytes), &Method::GET, &Limits::default())?;
    let Some(Parsed { head, framing, .. }) = head else { return Ok(None) };
    let mut out = Vec::new();
    encode::response(&mut out, &head, delimited(framing), Persistence::Implied);
    Ok(Some((framing, out)))
}

fn delimited(framing: Framing) -> Delimited {
    match framing {
        Framing::Length(length) => Delimited::Length(length),
        Framing::Chunked => Delimited::Chunked,
        Framing::UntilClose => Delimited::Close,
        Framing::Tunnel => Delimited::Forbidden,
    }
}
