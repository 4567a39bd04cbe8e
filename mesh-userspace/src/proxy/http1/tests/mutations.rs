//! Random bytes, and messages with random changes: no panic, no decoder that does not end, and what is passed on means the
//! same to the next.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    super::fuzz,
    smuggling::{CHUNKED, REQUESTS, RESPONSES},
};

/// For how long.
const TIME: Duration = Duration::from_secs(1);

#[test]
fn mutations_of_the_corpus_are_refused_or_passed_on_as_they_are() {
    let chunked = CHUNKED.iter().flat_map(|(body, _)| {
        ["POST / HTTP/1.1\r\nhost: a\r\n", "HTTP/1.1 200 OK\r\n"]
            .map(|head| format!("{head}transfer-encoding: chunked\r\n\r\n{body}"))
    });
    let heads = REQUESTS.iter().chain(RESPONSES).map(|(head, _)| (*head).to_owned());
    let corpus: Vec<Vec<u8>> = heads.chain(chunked).map(String::into_bytes).collect();
    let mut random = fastrand::Rng::with_seed(5);
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < TIME {
        for _ in 0..100 {
            let mut bytes = Vec::new();
            for _ in 0..random.usize(1..4) {
                bytes.extend_from_slice(&corpus[random.usize(..corpus.len())]);
            }
            for _ in 0..random.usize(..5) {
                mutate(&mut bytes, &mut random);
            }
            check(&bytes);
            rounds += 1;
        }
    }
    assert!(rounds > 100, "only {rounds} rounds");
}

/// What the fuzz targets do.
fn check(bytes: &[u8]) {
    fuzz::requests(bytes);
    fuzz::responses(bytes);
    let text = String::from_utf8_lossy(bytes);
    assert!(fuzz::request_is_forwarded_faithfully(bytes), "{text:?}");
    assert!(fuzz::response_is_forwarded_faithfully(bytes), "{text:?}");
}

fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    const TELLING: &[u8] = b"\r\n \t:;,0f\x00\x7f\xff/#*";
    let at = random.usize(..=bytes.len());
    match random.u8(..5) {
        0 => bytes.insert(at, TELLING[random.usize(..TELLING.len())]),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, random.u8(..)),
        _ if at == bytes.len() => {}
        3 => {
            bytes.remove(at);
        }
        _ => bytes[at] ^= 1 << random.u8(..8),
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        check(&bytes);
    }
}
