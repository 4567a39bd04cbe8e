//! What the API server answers: lists, watches, and refusals.

use super::{Refusal, Shared, State, wanted::Wanted};
use crate::wire::{Identity, Wire};
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    sync::PoisonError,
    time::{Duration, Instant},
};

/// One connection, request after request.
pub(super) fn serve(shared: &Shared, stream: TcpStream, identity: &Identity, age: u64) -> io::Result<()> {
    let mut reader = BufReader::new(Wire::new(stream, identity, Duration::from_millis(50))?);
    let locked = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let mut head = Vec::<u8>::new();
        while !head.ends_with(b"\r\n\r\n") {
            match reader.read_until(b'\n', &mut head) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            if locked().age != age {
                return reader.get_ref().cut();
            }
        }
        let wire = reader.get_mut();
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut state = locked();
        state.requests.push((Instant::now(), path.clone()));
        let (resource, query) = path.split_once('?').unwrap_or((&path, ""));
        let wanted = Wanted::new(resource, query);
        let known = head.to_ascii_lowercase().contains(&format!("authorization: bearer {}\r", state.token));
        let refusal = if !known {
            Some(Refusal { status: 401, retry_after: None })
        } else if state.forbidden.contains(&wanted.plural) {
            Some(Refusal { status: 403, retry_after: None })
        } else if state.refusals.is_empty() {
            None
        } else {
            Some(state.refusals.remove(0))
        };
        if let Some(refusal) = refusal {
            drop(state);
            answer(wire, refusal, &status(refusal.status, &format!("refused: {resource}")).to_string())?;
        } else if wanted.watch {
            let from: u64 = wanted.param("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
            if from < state.forgotten && state.gone_by_status {
                drop(state);
                let gone = status(410, "too old resource version").to_string();
                answer(wire, Refusal { status: 410, retry_after: None }, &gone)?;
            } else {
                drop(state);
                return watch(shared, wire, age, &wanted, from);
            }
        } else {
            let list = list(&state, &wanted);
            drop(state);
            answer(wire, Refusal { status: 200, retry_after: None }, &list)?;
        }
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code })
}

fn answer(wire: &mut Wire, how: Refusal, body: &str) -> io::Result<()> {
    let more = how.retry_after.map(|s| format!("retry-after: {s}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 {} X\r\ncontent-type: application/json\r\n{more}", how.status);
    wire.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    wire.flush()
}

fn list(state: &State, wanted: &Wanted) -> String {
    let all = state.objects.iter().filter(|((plural, _), object)| wanted.matches(plural, &object.value));
    let all: Vec<&str> = all.map(|(_, object)| &*object.text).collect();
    let asked = wanted.param("limit").and_then(|l| l.parse().ok()).unwrap_or(usize::MAX);
    let limit = if state.page > 0 { state.page.min(asked) } else { asked };
    let from: usize = wanted.param("continue").and_then(|c| c.parse().ok()).unwrap_or(0);
    let page: Vec<&str> = all.iter().copied().skip(from).take(limit).collect();
    let left = all.len().saturating_sub(from + page.len());
    let mut metadata = json!({ "resourceVersion": state.version.to_string() });
    if left > 0 {
        metadata["continue"] = json!((from + page.len()).to_string());
        metadata["remainingItemCount"] = json!(left);
    }
    format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{}]}}"#, page.join(","))
}

fn watch(shared: &Shared, wire: &mut Wire, age: u64, wanted: &Wanted, mut from: u64) -> io::Result<()> {
    wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bookmarks = state.bookmarks;
    loop {
        let mut lines = Vec::new();
        if from < state.forgotten {
            lines.push(json!({ "type": "ERROR", "object": status(410, "too old resource version") }).to_string());
        }
        for (version, kind, plural, object) in &state.events {
            if *version > from && wanted.matches(plural, &object.value) {
                lines.push(format!(r#"{{"type":"{kind}","object":{}}}"#, object.text));
            }
        }
        let gone = from < state.forgotten;
        from = state.version.max(from);
        if state.bookmarks > bookmarks {
            bookmarks = state.bookmarks;
            let metadata = json!({ "resourceVersion": from.to_string(), "creationTimestamp": null });
            lines.push(json!({ "type": "BOOKMARK", "object": { "metadata": metadata, "spec": {} } }).to_string());
        }
        let (ended, within_a_line) = (state.age != age, state.within_a_line);
        drop(state);
        if ended {
            if within_a_line {
                chunk(wire, "{\"type\":\"MODIFIED\",\"object\":{\"metad")?;
            }
            return wire.cut();
        }
        for line in lines {
            let line = format!("{line}\n");
            // Where a chunk ends means nothing.
            let (one, other) = line.split_at(line.len() / 3);
            chunk(wire, one)?;
            chunk(wire, other)?;
        }
        if gone {
            wire.write_all(b"0\r\n\r\n")?;
            return wire.cut();
        }
        state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.age == age && state.version <= from && state.bookmarks == bookmarks {
            let waited = shared.changed.wait_timeout(state, Duration::from_secs(1));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn chunk(wire: &mut Wire, text: &str) -> io::Result<()> {
    wire.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())?;
    wire.flush()
}
