//! Entries for fuzzing: everything that is made of bytes from outside.

use bytes::Bytes;
use http::Method;

use super::{
    Limits,
    chunked::Step,
    decode::Decoder,
    head::{self, Head},
};

/// Decodes `bytes` as requests, one after the other. Returns how many were whole.
pub fn requests(bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let mut input = Bytes::copy_from_slice(bytes);
    let mut whole = 0;
    while let Ok(Some(Head { framing, bytes, .. })) = head::request(&input, &limits) {
        let _ = input.split_to(bytes);
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
    while let Some(Ok(Some(Head { framing, bytes, .. }))) =
        methods.next().map(|method| head::response(&input, method, &limits))
    {
        let _ = input.split_to(bytes);
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
