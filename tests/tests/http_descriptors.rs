//! Descriptors are few: who comes then is left, and everybody else is served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, Wire, eventually, get, http_service, json, skip};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the daemon inherits: it cannot raise a hard limit that is lower.
const DESCRIPTORS: u64 = 256;

#[test]
fn connections_beyond_what_descriptors_allow_are_reset_and_counted() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let server = Scripted::named("S");
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).unwrap();
    let proxy = Proxy::new(json!([http_service("web", &[&server.address()])]));
    if setrlimit(Resource::RLIMIT_NOFILE, soft, hard).is_err() {
        skip!("only root may raise a hard limit again");
    }
    let mut wires: Vec<Wire> = (0..240).map(|_| proxy.dial()).collect();
    let served = |wire: &mut Wire| wire.try_answer_to(&get("web", "/")).is_ok_and(|answer| answer.text() == "S");
    let count = wires.iter_mut().filter_map(|wire| served(wire).then_some(())).count();
    assert!((150..=192).contains(&count), "{count} of 240 are served");
    assert!(proxy.rejected("too_many_connections") >= 40.0);
    drop(wires);
    eventually("there is room again", || {
        let answer = proxy.dial().try_answer_to(&get("web", "/")).map_err(|e| e.to_string())?;
        if answer.text() == "S" { Ok(()) } else { Err(answer.start) }
    });
}
