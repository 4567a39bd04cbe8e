//! The page at `/`, in a real browser: it says what the API says, follows it, and does no harm.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Browser, Daemon, Nginx, Proxy, Value, eventually, get, holds, http_service, json, server, service, world,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A browser that has gone to a place of the page and hears the daemon.
fn look(daemon: &Daemon, place: &str) -> Result<Browser, String> {
    let mut browser = Browser::start()?;
    browser.open(&format!("http://{}/{place}", daemon.admin()));
    browser.shows("document.getElementById('link').textContent", "live");
    Ok(browser)
}

/// The expression for the value of a tile of the view.
fn tile(name: &str) -> String {
    format!("document.querySelector('main .tile [data-field=\"{name}\"]')?.textContent")
}

/// The expression for what else a tile says.
fn title(name: &str) -> String {
    format!("document.querySelector('main .tile [data-field=\"{name}\"]')?.parentNode.title")
}

/// Nothing went wrong, and nobody else was asked for anything.
#[track_caller]
fn is_clean(browser: &mut Browser, daemon: &Daemon) {
    assert_eq!(browser.complaints(), [""; 0]);
    let own = format!("http://{}/", daemon.admin());
    let strangers = browser.asked_for();
    let strangers: Vec<_> =
        strangers.iter().filter(|url| !url.starts_with(&own) && !url.starts_with("data:")).collect();
    assert_eq!(strangers, [""; 0]);
}

#[test]
fn the_page_says_what_the_api_says_and_follows_it() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1, E2])]));
    let _ = world.ask_times(VIP, 12);
    let mut browser = server!(look(&mesh, "#/services/web"));
    for asked in [12, 20, 37] {
        let before = mesh.service("web")["connections_total"].as_u64().unwrap();
        let _ = world.ask_times(VIP, asked - usize::try_from(before).unwrap());
        let exact = |field: &str| mesh.service("web")[field].as_u64().unwrap();
        assert_eq!(exact("connections_total"), asked as u64);
        browser.shows(&tile("Connections"), asked.to_string());
        browser.shows(&title("Sent"), format!("{} bytes", exact("sent_bytes_total")));
        browser.shows(&title("Received"), format!("{} bytes", exact("received_bytes_total")));
    }
    browser.shows("document.querySelector('.list [role=row].row .c-standing a').textContent", E1);
    let rate = "Math.max(...[...document.querySelectorAll('#totals [data-field=\"Connections/s\"]')].map((e) => e.textContent))";
    let seen = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(40);
            while !seen.load(Ordering::Relaxed) && Instant::now() < until {
                drop(world.ask(VIP));
            }
        });
        eventually("a rate is shown", || match browser.eval(rate).as_f64() {
            Some(rate) if rate > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        seen.store(true, Ordering::Relaxed);
    });
    // One of its endpoints, and who is connected to it.
    let held = world.client(VIP);
    browser.eval(&format!("location.hash = '#/services/web/' + encodeURIComponent('{E1}')"));
    let endpoint = || mesh.endpoint("web", E1)["connections_total"].as_u64().unwrap();
    browser.shows(&tile("Connections"), endpoint().to_string());
    browser.eval("location.hash = '#/connections'");
    browser.shows("document.querySelectorAll('.connections .row').length", 1);
    let listed = mesh.http_json("/v1/connections");
    let seen = "document.querySelector('.connections .row .c-client small').textContent";
    browser.shows(seen, format!("pid {}", listed[0]["client"]["pid"]));
    browser.shows("document.querySelector('.connections .row .c-to span').textContent", "web");
    drop(held);
    browser.shows("document.querySelectorAll('.connections .row').length", 0);
    is_clean(&mut browser, &mesh);
}

#[test]
fn requests_and_how_long_they_took_are_shown() {
    let nginx = server!(Nginx::http1("N1"));
    let proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    let mut browser = server!(look(&proxy, "#/services/web"));
    for _ in 0..25 {
        assert_eq!(proxy.get("web").status(), 200);
    }
    assert_eq!(proxy.ask(get("web", "/status/503")).status(), 503);
    let row = proxy.service("web");
    assert_eq!((&row["requests_total"], &row["responses_5xx_total"]), (&json!(26), &json!(1)));
    browser.shows(&tile("Requests"), "26");
    browser.shows(&tile("5xx"), "1");
    browser.shows(&format!("/ms|µs/.test({})", tile("Requests p50 · p90 · p99")), true);
    let endpoint = proxy.http_json("/v1/endpoints?service=web");
    assert_eq!((&endpoint[0]["responses_total"], &endpoint[0]["responses_5xx_total"]), (&json!(26), &json!(1)));
    is_clean(&mut browser, &proxy);
}

#[test]
fn an_open_circuit_catches_the_eye_on_every_view() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1, E2])]));
    let mut browser = server!(look(&mesh, ""));
    let alerts = "document.getElementById('alerts').innerText.trim()";
    browser.shows(&format!("{alerts}.includes('circuit')"), false);
    mesh.cli(&["circuit", "trip", "web", E2]).done();
    browser.shows(&format!("{alerts}.includes('One circuit is open.')"), true);
    browser.shows("document.querySelector('.services .row .badge').textContent", "1 of 2 open");
    browser.shows("document.querySelectorAll('.services .row .cells a[data-tone=bad]').length", 1);
    browser.eval("location.hash = '#/endpoints'");
    browser.shows("document.querySelector('.endpoints .row[data-tone=bad] .c-standing a').textContent", E2);
    mesh.cli(&["circuit", "reset", "web", E2]).done();
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    browser.shows("document.querySelectorAll('.endpoints .row[data-tone=bad]').length", 0);
    browser.shows("document.querySelector('.endpoints .row[data-tone=note] .badge').textContent", "draining");
    browser.shows(&format!("{alerts}.includes('circuit')"), false);
    mesh.cli(&["bypass", "on"]).done();
    browser.shows(&format!("{alerts}.includes('Bypass is on')"), true);
    is_clean(&mut browser, &mesh);
}

/// `n` services with `each` endpoints.
fn many(n: usize, each: usize) -> Value {
    let endpoint = |s: usize, e: usize| json!({ "address": format!("10.{s}.{}.{}:80", e / 250, e % 250 + 1) });
    let service = |s: usize| {
        let endpoints: Vec<Value> = (0..each).map(|e| endpoint(s, e)).collect();
        json!({ "name": format!("service-{s:03}"), "protocol": "http", "endpoints": endpoints })
    };
    (0..n).map(service).collect()
}

#[test]
fn a_thousand_endpoints_are_listed_and_only_those_in_sight_are_in_the_document() {
    for (services, each) in [(100, 10), (1, 1000)] {
        let proxy = Proxy::new(many(services, each));
        let mut browser = server!(look(&proxy, "#/endpoints"));
        browser.shows("document.querySelector('.endpoints').ariaRowCount", "1001");
        let rows = "document.querySelectorAll('.endpoints .row').length";
        assert!(browser.eval(rows).as_u64().unwrap() < 60);
        browser.press("End");
        let focused = "document.activeElement.getAttribute('aria-rowindex')";
        browser.shows(focused, "1001");
        assert!(browser.eval(rows).as_u64().unwrap() < 60);
        // The last one can be seen, and still has the focus after more pictures have come.
        let inside = "(() => { const r = document.activeElement.getBoundingClientRect(); return r.top > 0 && r.bottom <= innerHeight; })()";
        browser.shows(inside, true);
        let time = browser.eval("store.state.time");
        browser.shows(&format!("store.state.time > {time}"), true);
        browser.shows(focused, "1001");
        browser.eval("location.hash = '#/services'");
        browser.shows("document.querySelector('.services').ariaRowCount", (services + 1).to_string());
        is_clean(&mut browser, &proxy);
    }
}

#[test]
fn everything_can_be_done_by_keyboard() {
    let proxy = Proxy::new(many(12, 3));
    let mut browser = server!(look(&proxy, ""));
    browser.shows("document.querySelectorAll('.services .row').length", 12);
    browser.press("/");
    browser.shows("document.activeElement.id", "filter");
    for key in ["0", "0", "7"] {
        browser.press(key);
    }
    browser.shows("document.querySelectorAll('.services .row').length", 1);
    browser.press("ArrowDown");
    browser.shows("document.activeElement.dataset.key", "service-007");
    browser.press("Enter");
    browser.shows("location.hash", "#/services/service-007");
    // The filter holds: it goes first, then the view.
    browser.press("Escape");
    browser.shows("document.getElementById('filter').value", "");
    browser.shows("document.querySelectorAll('.endpoints .row').length", 3);
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.shows("location.hash", "#/services/service-007/10.7.0.2%3A80");
    browser.shows("document.querySelector('.crumbs b').textContent", "10.7.0.2:80");
    browser.press("Escape");
    browser.shows("document.querySelector('.crumbs b').textContent", "service-007");
    browser.press("Escape");
    browser.shows("location.hash", "#/services");
    for (key, view) in [("2", "endpoints"), ("3", "connections"), ("4", "traces"), ("5", "errors"), ("6", "status")] {
        browser.press(key);
        browser.shows("location.hash", format!("#/{view}"));
        browser.shows("document.querySelector('#nav [aria-current=page]').dataset.view", view);
    }
    browser.press("?");
    browser.shows("document.getElementById('help').open", true);
    browser.press("Escape");
    browser.shows("document.getElementById('help').open", false);
    let theme = "document.documentElement.dataset.theme";
    for expected in ["light", "dark", "auto"] {
        browser.press("t");
        browser.shows(theme, expected);
    }
    // A list is one stop of the tabulator, and whatever has the focus shows it.
    browser.press("1");
    browser.shows("document.querySelectorAll('.services .row[tabindex=\"0\"]').length", 1);
    browser.press("Tab");
    browser.shows("getComputedStyle(document.activeElement).outlineStyle !== 'none'", true);
    is_clean(&mut browser, &proxy);
}

/// What a browser would run if it took it for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

#[test]
fn hostile_texts_are_texts() {
    let mut hostile = http_service("web", &["10.0.0.1:80"]);
    hostile["endpoints"][0]["zone"] = json!(HOSTILE);
    hostile["endpoints"][0]["node"] = json!("\"'><svg onload=alert(1)>");
    let mut proxy = Proxy::new(json!([hostile]));
    let mut browser = server!(look(&proxy, "#/services/web"));
    browser.shows("document.querySelector('.endpoints .row .c-place small').textContent", HOSTILE);
    // A configuration that is refused quotes what is wrong with it.
    proxy.configure(|config| config["services"][0]["protocol"] = json!(HOSTILE));
    proxy.hang_up();
    browser.eval("location.hash = '#/status'");
    browser.shows("document.querySelector('[data-field=Configuration]').textContent.includes('<img src=x')", true);
    // An address is typed, or followed, by anybody.
    let place = format!("#/services/{}", HOSTILE.replace('/', "%2F"));
    browser.eval(&format!("location.hash = {}", json!(place)));
    browser.shows("document.querySelector('.crumbs b').textContent", HOSTILE);
    for place in ["#/nowhere", "#/%zz/%", "#/constructor", "#//", "#/services/web/x/y/z"] {
        browser.eval(&format!("location.hash = '{place}'"));
        browser.shows("document.querySelectorAll('main > *').length", 1);
    }
    assert_eq!(browser.eval("document.querySelectorAll('img, main script, svg[onload]').length"), 0);
    assert_ne!(browser.eval("document.title"), "owned");
    // Not even by mistake: the policy takes the way from text to markup away.
    let refused = browser
        .eval("(() => { try { document.body.innerHTML = '<b>x</b>'; return false; } catch { return true; } })()");
    assert_eq!(refused, true);
}

#[test]
fn a_daemon_that_is_away_is_said_to_be_and_comes_back_by_itself() {
    let nginx = server!(Nginx::http1("N1"));
    let mut proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    let mut browser = server!(look(&proxy, ""));
    browser.shows("document.querySelectorAll('.services .row').length", 1);
    proxy.kill();
    browser.shows("document.getElementById('link').textContent", "reconnecting");
    browser.shows("document.querySelector('#alerts .gone')?.textContent.startsWith('No connection')", true);
    // What was known last is still there.
    browser.shows("document.querySelectorAll('.services .row').length", 1);
    proxy.configure(|config| {
        let services = config["services"].as_array_mut().unwrap();
        services.push(http_service("web-two", &["10.0.0.2:80"]));
    });
    proxy.start();
    browser.shows("document.getElementById('link').textContent", "live");
    browser.shows("document.querySelector('#alerts .gone')", Value::Null);
    browser.shows("document.querySelectorAll('.services .row').length", 2);
}

#[test]
fn the_stream_says_what_the_api_says_and_then_what_changes() {
    let nginx = server!(Nginx::http1("N1"));
    let proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    assert_eq!(proxy.get("web").status(), 200);
    // Its worker may still be about to put it down.
    let services = || proxy.http_json("/v1/services");
    holds("nothing is under way", services, |services| services[0]["active_requests"] == 0);
    let stream = TcpStream::connect(proxy.admin()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    (&stream).write_all(b"GET /v1/watch/live HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("it goes on"));
    // Pieces of the body begin with their length, on a line of their own.
    let mut next = |kind: &str| {
        assert!(lines.by_ref().any(|line| line == format!("event: {kind}")));
        let data = lines.next().unwrap();
        serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap()
    };
    let snapshot = next("snapshot");
    let contains = |whole: &Value, part: &Value| {
        // An average that fades with time.
        let lasting = part.as_object().unwrap().iter().filter(|(name, _)| *name != "latency_ewma_ms");
        lasting.for_each(|(name, value)| assert_eq!(&whole[name], value, "{name}"));
    };
    contains(&snapshot["services"][0], &proxy.http_json("/v1/services")[0]);
    contains(&snapshot["endpoints"][0], &proxy.http_json("/v1/endpoints")[0]);
    assert_eq!(
        (&snapshot["services"][0]["requests_per_s"], &snapshot["totals"]["requests_total"]),
        (&Value::Null, &json!(1))
    );
    assert_eq!(next("delta")["services"][0]["requests_per_s"], 0.0, "there is something to compare with");
    for _ in 0..3 {
        assert_eq!(proxy.get("web").status(), 200);
    }
    let (mut last, mut rate) = (json!({}), 0.0_f64);
    while last["requests_total"] != 4 {
        if let Some(changed) = next("delta")["services"].get(0) {
            assert_eq!(changed["name"], "web");
            assert_eq!(changed.get("addresses"), None, "only what is different");
            rate = rate.max(changed["requests_per_s"].as_f64().unwrap_or_default());
            last["requests_total"] = changed.get("requests_total").unwrap_or(&last["requests_total"]).clone();
        }
    }
    assert!(rate > 0.0);
}

#[test]
fn the_page_is_sent_with_what_protects_it() {
    let proxy = Proxy::new(json!([http_service("web", &["10.0.0.1:80"])]));
    let page = proxy.http("GET", "/");
    assert_eq!(page.status, 200);
    let header = |name: &str| page.header(name).unwrap_or_default().to_owned();
    assert!(header("content-security-policy").contains("default-src 'none'"), "{page:?}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("referrer-policy"), "no-referrer");
    let head = proxy.http("HEAD", "/");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some(page.body.len().to_string().as_str()));
    assert_eq!(proxy.http("POST", "/v1/watch/live").status, 405);
    assert_eq!(proxy.http("GET", "/v1/watch/live?x=1").status, 400);
}

#[test]
#[ignore = "makes the pictures in docs/images, of a node with real traffic"]
fn pictures_for_the_documentation() {
    scene::pictures(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images"));
}

#[path = "dashboard/scene.rs"]
mod scene;
