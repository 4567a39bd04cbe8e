//! Floods and tricks over HTTP/2: each is ended or bounded, and everybody else is served meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Python, Scripted, Value, http_with, json, python};

/// How much more than before the process may hold after a flood.
const BOUND_KIB: u64 = 8 * 1024;

fn before(server: &Scripted) -> Proxy {
    Proxy::new(json!([http_with("web", &[&server.address()], json!({ "upstream": "http1" }))]))
}

fn attack(python: &Python, proxy: &Proxy, what: &[&str]) -> Value {
    python.run("h2_client.py", &[&[proxy.address().as_str(), "web"], what].concat()).json()
}

/// A flood, after which the process is there, small, and serves.
fn flood(what: &str) -> Option<(Value, usize)> {
    let Ok(python) = Python::with("h2, hpack") else {
        mesh_tests::skip::record(module_path!(), "needs a Python with h2, which `cargo xtask setup` prepares");
        return None;
    };
    let server = Scripted::named("S");
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let said = attack(&python, &proxy, &[what]);
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB: {said}");
    let asked = server.requests().len();
    assert_eq!(proxy.get("web").text(), "S", "others are served");
    Some((said, asked))
}

/// Whether the server put an end to it.
fn ended(said: &Value) -> bool {
    said["ended"] == "closed" || said["ended"] == "reset" || said["broke"] == true
}

#[test]
fn rapid_resets_end_the_connection_and_cost_the_endpoint_little() {
    let Some((said, asked)) = flood("rapid_reset") else { return };
    assert!(ended(&said), "{said}");
    assert!(asked < 5_000, "{asked} of 20,000 requests went on");
}

#[test]
fn continuations_without_end_end_the_connection() {
    let Some((said, asked)) = flood("continuation") else { return };
    assert!(ended(&said), "{said}");
    assert_eq!(asked, 0);
}

#[test]
fn empty_continuations_without_end_end_the_connection() {
    let Some((said, _)) = flood("empty_continuation") else { return };
    assert!(ended(&said), "{said}");
}

#[test]
fn settings_and_pings_without_end_are_bounded() {
    flood("settings");
    flood("ping");
}

#[test]
fn empty_data_and_priorities_without_end_are_bounded() {
    flood("empty_data");
    flood("priorities");
}

#[test]
fn a_block_of_headers_that_grows_when_unpacked_is_refused() {
    let Some((said, asked)) = flood("giant_hpack") else { return };
    let refused = ended(&said) || said["resets"] != json!([]) || said["goaway"] != Value::Null;
    assert!(refused || asked == 0, "{said}");
    assert_eq!(asked, 0, "{said}");
}

#[test]
fn a_window_that_overflows_is_an_error_of_the_connection() {
    let Some((said, _)) = flood("window_overflow") else { return };
    assert!(ended(&said), "{said}");
    assert!(said["goaway"] == 3 || said["goaway"] == Value::Null, "{said}");
}

#[test]
fn what_http1_would_read_otherwise_is_refused() {
    let python = python!("h2, hpack");
    let server = Scripted::mirror();
    let proxy = before(&server);
    let headers = [
        ("x-a", "1\\r\\nevil: 2"),
        ("x-a", "1\\nevil: 2"),
        ("x-a", "1\\0"),
        ("x-a\r\nevil", "1"),
        ("X-Upper", "1"),
        ("x a", "1"),
        ("x:a", "1"),
        ("", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("content-length", "4, 5"),
        ("te", "gzip"),
        (":path", "/again"),
        (":evil", "1"),
    ];
    for (name, value) in headers {
        let said = attack(&python, &proxy, &["bad_header", name, value]);
        let refused = said["resets"] != json!([]) || ended(&said) || server.requests().is_empty();
        assert!(refused, "{name:?}: {value:?}: {said}");
        for seen in server.requests() {
            let bytes = String::from_utf8_lossy(&seen.bytes).to_lowercase();
            assert!(!bytes.contains("evil"), "{name:?}: {value:?}: {bytes}");
        }
    }
    assert!(server.requests().len() <= 2, "{:?}", server.requests());
    for path in ["", "no-slash", "/a b", "/a\\r\\nevil: 1", "/\\0", "http://x/"] {
        attack(&python, &proxy, &["bad_path", path]);
    }
    for seen in server.requests() {
        let line = &seen.start;
        assert!(line.split(' ').count() == 3 && !String::from_utf8_lossy(&seen.bytes).contains("evil"), "{seen:?}");
    }
}

#[test]
fn more_data_than_the_length_says_smuggles_nothing() {
    let python = python!("h2, hpack");
    let server = Scripted::mirror();
    let proxy = before(&server);
    attack(&python, &proxy, &["length_lies"]);
    assert_eq!(proxy.get("web").status(), 200);
    let smuggled = server.requests().iter().any(|seen| seen.target() == "/smuggled");
    assert!(!smuggled, "{:?}", server.requests());
}
