//! What stands under the prefix, and whether it is still the same.

use super::{
    client::{Client, Failure},
    known::Known,
    wire::{self, RangeRequest, RangeResponse},
};

/// Keys in one answer.
const PAGE: i64 = 10_000;

/// How many of the newest keys tell one history from another. Few are alike by chance only where there are few.
const COMPARED: i64 = 100;

/// How often a list is begun anew that was compacted away while it was read.
const ATTEMPTS: usize = 3;

/// All keys below a prefix: the first that could be one, and the first that is none any more.
pub(super) fn below(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    // What comes after '/'.
    (format!("{prefix}/").into_bytes(), format!("{prefix}0").into_bytes())
}

/// Everything below the prefix at one revision, which is returned too, and what is malformed that was not `before`.
pub(super) async fn all(client: &Client, prefix: &str, before: &Known) -> Result<(Known, i64, Vec<String>), Failure> {
    for _ in 0..ATTEMPTS {
        match attempt(client, prefix, before).await {
            Err(Failure::Forgotten) => {}
            done => return done,
        }
    }
    Err(Failure::Forgotten)
}

async fn attempt(client: &Client, prefix: &str, before: &Known) -> Result<(Known, i64, Vec<String>), Failure> {
    let (mut key, range_end) = below(prefix);
    let (mut known, mut revision, mut skipped, mut limit) = (before.again(), 0, Vec::new(), PAGE);
    loop {
        let question =
            RangeRequest { key: key.clone(), range_end: range_end.clone(), limit, revision, ..RangeRequest::default() };
        let answer: RangeResponse = match client.ask(wire::RANGE, question).await {
            Err(Failure::TooLarge) if limit > 1 => {
                limit /= 10;
                continue;
            }
            answer => answer?,
        };
        if revision == 0 {
            revision = answer.header.map_or(0, |header| header.revision);
        }
        let last = answer.kvs.last().map(|kv| kv.key.clone());
        skipped.extend(answer.kvs.into_iter().filter_map(|kv| known.put(kv)));
        match last {
            Some(last) if answer.more => {
                key = last;
                key.push(0);
            }
            _ => break,
        }
    }
    known.listed();
    Ok((known, revision, skipped))
}

/// Whether at this revision there was what is known: as many keys, and the newest of them as old. An etcd that lost its
/// data and has other ones since, at the same revisions, would else be taken for the old one.
pub(super) async fn is_same(client: &Client, prefix: &str, known: &Known, revision: i64) -> Result<bool, Failure> {
    let (key, range_end) = below(prefix);
    let question = RangeRequest {
        key,
        range_end,
        limit: COMPARED,
        revision,
        sort_order: wire::DESCEND,
        sort_target: wire::BY_REVISION,
        keys_only: true,
    };
    let answer: RangeResponse = match client.ask(wire::RANGE, question).await {
        Err(Failure::Forgotten) => return Ok(false),
        answer => answer?,
    };
    let newest = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
    let as_many = usize::try_from(answer.count) == Ok(known.count()) && newest == known.newest();
    Ok(as_many && answer.kvs.iter().all(|kv| known.has(&kv.key, kv.mod_revision)))
}
