//! Routes: every matcher and every action, one test each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Message, Proxy, Scripted, Value, get, holds, http_service, http_with, json, post};
use std::{collections::BTreeMap, thread, time::Duration, time::Instant};

/// `web` with routes; `a` and `b`, where they lead to. Each endpoint says its name and what it was asked.
struct Routed {
    web: Scripted,
    a: Scripted,
    b: Scripted,
    proxy: Proxy,
}

fn saying(name: &'static str) -> Scripted {
    Scripted::each(move |connection, request| {
        let slow = request.header("x-sleep").and_then(|ms| ms.parse().ok()).unwrap_or_default();
        thread::sleep(Duration::from_millis(slow));
        let body = format!("{name} {}", request.target());
        let length = body.len();
        connection
            .wire
            .send(format!("HTTP/1.1 200 X\r\nx-from: {name}\r\nx-old: 1\r\ncontent-length: {length}\r\n\r\n{body}"));
    })
}

fn routed(routes: Value) -> Routed {
    routed_with(routes, &json!({}))
}

fn routed_with(routes: Value, more: &Value) -> Routed {
    let (web, a, b) = (saying("web"), saying("a"), saying("b"));
    let mut service = http_with("web", &[&web.address()], more.clone());
    service["routes"] = routes;
    service["hosts"] = json!(["web.internal", "api.web.internal"]);
    let others = [http_service("a", &[&a.address()]), http_service("b", &[&b.address()])];
    let proxy = Proxy::new(json!([service, others[0], others[1]]));
    Routed { web, a, b, proxy }
}

impl Routed {
    /// Who answers a GET of this path with these header lines; the status where nobody does.
    #[track_caller]
    fn who(&self, path: &str, lines: &str) -> String {
        let answer = self.proxy.ask(format!("GET {path} HTTP/1.1\r\nhost: web\r\n{lines}\r\n"));
        answer.header("x-from").map_or_else(|| answer.status().to_string(), str::to_owned)
    }

    /// As `who`, for a route to `a` in front of one to `b` that takes the rest.
    #[track_caller]
    fn each(&self, expected: &[(&str, &str)]) {
        for (path, name) in expected {
            assert_eq!(self.who(path, ""), *name, "{path}");
        }
    }
}

/// Routes to `a` for what matches, to `b` for the rest.
fn matching(rule: Value) -> Routed {
    routed(json!([{ "match": rule, "to": [{ "service": "a" }] }, { "to": [{ "service": "b" }] }]))
}

#[test]
fn a_path_is_matched_whole_and_without_its_query() {
    let routed = matching(json!({ "path": "/exact" }));
    routed.each(&[("/exact", "a"), ("/exact?x=1", "a"), ("/exact/", "b"), ("/exac", "b"), ("/Exact", "b")]);
}

#[test]
fn a_prefix_is_matched_in_whole_segments() {
    let routed = matching(json!({ "path_prefix": "/v2" }));
    routed.each(&[("/v2", "a"), ("/v2/", "a"), ("/v2/x", "a"), ("/v2?x=1", "a"), ("/v2x", "b"), ("/x/v2", "b")]);
}

#[test]
fn a_regular_expression_is_matched_against_the_whole_path() {
    let routed = matching(json!({ "path_regex": "/users/[0-9]+(/.*)?" }));
    routed.each(&[
        ("/users/12", "a"),
        ("/users/12/x?y", "a"),
        ("/users/me", "b"),
        ("/x/users/1", "b"),
        ("/users/1x", "b"),
    ]);
}

#[test]
fn a_method_is_matched() {
    let routed = matching(json!({ "method": "POST" }));
    assert_eq!(routed.proxy.ask(post("web", "/", "x")).header("x-from"), Some("a"));
    assert_eq!(routed.who("/", ""), "b");
}

#[test]
fn a_host_is_matched_without_its_port() {
    let routed = matching(json!({ "host": "api.web.internal" }));
    let who = |host: &str| routed.proxy.get(host).header("x-from").map(str::to_owned);
    assert_eq!(who("api.web.internal").as_deref(), Some("a"));
    assert_eq!(who("API.web.internal:8080").as_deref(), Some("a"));
    assert_eq!(who("web.internal").as_deref(), Some("b"));
}

#[test]
fn all_headers_have_to_match() {
    let routed = matching(json!({ "headers": { "x-canary": "1", "x-user": "me" } }));
    assert_eq!(routed.who("/", "X-Canary: 1\r\nx-user: me\r\n"), "a");
    assert_eq!(routed.who("/", "x-canary: 1\r\n"), "b");
    assert_eq!(routed.who("/", "x-canary: 12\r\nx-user: me\r\n"), "b");
}

#[test]
fn all_parameters_of_the_query_have_to_match() {
    let routed = matching(json!({ "query": { "beta": "1", "q": "a b" } }));
    routed.each(&[("/?beta=1&q=a%20b", "a"), ("/?q=a+b&x&beta=1", "a"), ("/?beta=1", "b"), ("/?beta=11&q=a%20b", "b")]);
}

#[test]
fn everything_a_rule_says_has_to_match_and_the_first_rule_wins() {
    let both = json!({ "path_prefix": "/v2", "headers": { "x-canary": "1" } });
    let routed = routed(json!([
        { "match": both, "to": [{ "service": "a" }] },
        { "match": { "path_prefix": "/v2" }, "to": [{ "service": "b" }] },
        { "match": { "path_prefix": "/v2/x" }, "to": [{ "service": "a" }] },
        { "match": { "path": "/self" } },
    ]));
    assert_eq!(routed.who("/v2", "x-canary: 1\r\n"), "a");
    assert_eq!(routed.who("/v2/x", ""), "b");
    assert_eq!(routed.who("/self", ""), "web", "a route without targets leads to the service itself");
}

#[test]
fn what_no_route_matches_is_not_found() {
    let routed = routed(json!([{ "match": { "path": "/known" } }]));
    assert_eq!(routed.who("/known", ""), "web");
    routed.proxy.refuses(get("web", "/unknown"), 404, "no_route");
    assert_eq!(routed.web.requests().len(), 1);
}

#[test]
fn targets_are_taken_by_weight() {
    let to =
        json!([{ "service": "a", "weight": 10 }, { "service": "b", "weight": 90 }, { "service": "web", "weight": 0 }]);
    let routed = routed(json!([{ "to": to }]));
    let mut counts = BTreeMap::new();
    let mut wire = routed.proxy.dial();
    for _ in 0..1000 {
        *counts.entry(wire.ask(get("web", "/")).header("x-from").unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!((40..=165).contains(&counts["a"]) && counts.len() == 2, "{counts:?}");
}

#[test]
fn a_prefix_is_rewritten_and_the_query_stays() {
    let routed = routed(json!([
        { "match": { "path_prefix": "/v2" }, "to": [{ "service": "a" }], "rewrite": { "path_prefix": "/" } },
        { "match": { "path_prefix": "/old" }, "to": [{ "service": "a" }], "rewrite": { "path_prefix": "/new/er" } },
    ]));
    let seen = |path: &str| routed.proxy.ask(get("web", path)).text();
    assert_eq!(seen("/v2/x/y?q=/v2"), "a /x/y?q=/v2");
    assert_eq!(seen("/v2"), "a /");
    assert_eq!(seen("/v2?q"), "a /?q");
    assert_eq!(seen("/old/x"), "a /new/er/x");
    assert_eq!(seen("/old"), "a /new/er");
}

#[test]
fn a_host_is_rewritten() {
    let routed = routed(json!([{ "to": [{ "service": "a" }], "rewrite": { "host": "elsewhere.example.org" } }]));
    assert_eq!(routed.who("/", ""), "a");
    assert_eq!(routed.a.requests()[0].all("host"), ["elsewhere.example.org"]);
}

#[test]
fn headers_of_requests_and_answers_are_changed() {
    let request = json!({ "set": { "x-set": "new", "x-fresh": "1" }, "add": { "x-add": "2" }, "remove": ["x-gone"] });
    let response = json!({ "set": { "x-old": "2" }, "add": { "x-from": "mesh" }, "remove": ["content-type"] });
    let routed =
        routed(json!([{ "to": [{ "service": "a" }], "headers": { "request": request, "response": response } }]));
    let lines = "x-set: old\r\nx-set: older\r\nx-add: 1\r\nx-gone: 1\r\n";
    let answer = routed.proxy.ask(format!("GET / HTTP/1.1\r\nhost: web\r\n{lines}\r\n"));
    let seen = routed.a.requests().remove(0);
    assert_eq!((seen.all("x-set"), seen.all("x-fresh")), (vec!["new"], vec!["1"]));
    assert_eq!(seen.all("x-add").join(", "), "1, 2");
    assert_eq!(seen.header("x-gone"), None);
    assert_eq!((answer.all("x-old"), answer.all("x-from")), (vec!["2"], vec!["a", "mesh"]));
}

#[test]
fn a_redirect_answers_in_place_of_the_service() {
    let routed = routed(json!([
        { "match": { "path": "/both" }, "redirect": { "status": 308, "host": "example.org", "path": "/there" } },
        { "match": { "path": "/path" }, "redirect": { "path": "/there" } },
        { "match": { "path": "/host" }, "redirect": { "status": 301, "host": "example.org" } },
    ]));
    let to = |path: &str| -> (u16, String) {
        let answer = routed.proxy.ask(get("web", path));
        assert_eq!(answer.reason(), Some("redirect"), "{answer:?}");
        (answer.status(), answer.header("location").unwrap().to_owned())
    };
    assert_eq!(to("/both?x=1").0, 308);
    assert!(to("/both").1.ends_with("//example.org/there"), "{:?}", to("/both"));
    let (status, location) = to("/path");
    assert!(status == 302 && (location == "/there" || location == "http://web/there"), "{status} {location}");
    let (status, location) = to("/host?x=1");
    assert!(status == 301 && location.ends_with("//example.org/host?x=1"), "{status} {location}");
    assert!(routed.web.requests().is_empty());
}

#[test]
fn a_mirror_gets_a_copy_that_nobody_waits_for() {
    let routed = routed(json!([{ "to": [{ "service": "a" }], "mirror": { "service": "b", "percent": 100 } }]));
    let begin = Instant::now();
    let answer = routed.proxy.ask("POST /m HTTP/1.1\r\nhost: web\r\nx-one: 1\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(answer.header("x-from"), Some("a"));
    let copies = holds("the mirror is asked", || routed.b.requests(), |copies| !copies.is_empty());
    let copy: &Message = &copies[0];
    assert_eq!((copy.method(), copy.target(), copy.text().as_str()), ("POST", "/m", "body"));
    assert_eq!(copy.header("x-one"), Some("1"));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_mirror_that_is_gone_harms_nobody() {
    let mut routed = routed(json!([{ "to": [{ "service": "a" }], "mirror": { "service": "b", "percent": 100 } }]));
    let mut wire = routed.proxy.dial();
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(wire.ask(get("web", "/")).header("x-from"), Some("a"));
    }
    routed.b.kill();
    for _ in 0..20 {
        assert_eq!(wire.ask(get("web", "/")).header("x-from"), Some("a"));
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_mirror_gets_its_part() {
    let routed = routed(json!([{ "to": [{ "service": "a" }], "mirror": { "service": "b", "percent": 20 } }]));
    let mut wire = routed.proxy.dial();
    for _ in 0..500 {
        wire.ask(get("web", "/"));
    }
    holds("about 100 copies", || routed.b.requests().len(), |copies| (45..=155).contains(copies));
    thread::sleep(Duration::from_millis(100));
    assert!(routed.b.requests().len() <= 155);
}

#[test]
fn a_fault_aborts_with_the_status_it_names() {
    let all = json!({ "abort_status": 418, "abort_percent": 100 });
    let some = json!({ "abort_status": 500, "abort_percent": 30 });
    let routed = routed(json!([{ "match": { "path": "/all" }, "fault": all }, { "fault": some }]));
    routed.proxy.refuses(get("web", "/all"), 418, "fault");
    assert!(routed.web.requests().is_empty());
    let mut wire = routed.proxy.dial();
    let aborted = (0..300).filter(|_| wire.ask(get("web", "/")).status() == 500).count();
    assert!((40..=140).contains(&aborted), "{aborted} of 300");
}

#[test]
fn a_fault_delays() {
    let fault = json!({ "delay": "300ms", "delay_percent": 100 });
    let routed = routed(json!([{ "match": { "path": "/slow" }, "fault": fault }, {}]));
    let took = |path: &str| {
        let begin = Instant::now();
        assert_eq!(routed.who(path, ""), "web");
        begin.elapsed()
    };
    let slow = took("/slow");
    assert!(slow >= Duration::from_millis(300) && slow < Duration::from_secs(2), "{slow:?}");
    // One that no stall of this machine meets.
    assert!((0..5).any(|_| took("/fast") < Duration::from_millis(290)));
}

#[test]
fn a_routes_timeout_counts_in_place_of_the_services() {
    let routed = routed_with(
        json!([{ "match": { "path": "/short" }, "request_timeout": "200ms" }, {}]),
        &json!({ "request_timeout": "10s", "retries": { "attempts": 0 } }),
    );
    routed.proxy.refuses("GET /short HTTP/1.1\r\nhost: web\r\nx-sleep: 1000\r\n\r\n", 504, "request_timeout");
    assert_eq!(routed.who("/long", "x-sleep: 500\r\n"), "web");
}

#[test]
fn a_routes_retries_count_in_place_of_the_services() {
    let failing = Scripted::each(|connection, _| {
        connection.answer(503, "ill");
    });
    let well = saying("well");
    let mut service = http_with(
        "web",
        &[&failing.address(), &well.address()],
        json!({
            "retries": { "attempts": 1, "on": ["5xx"] },
            "circuit_breaker": { "failure_threshold": 0, "success_rate": { "floor": 0 } },
        }),
    );
    service["routes"] = json!([{ "match": { "path": "/once" }, "retries": { "attempts": 0 } }, {}]);
    let proxy = Proxy::new(json!([service]));
    let failed = |path: &str| (0..10).filter(|_| proxy.ask(get("web", path)).status() == 503).count();
    assert_eq!(failed("/again"), 0);
    assert!(failed("/once") >= 3);
}

#[test]
fn routes_follow_a_reload() {
    let mut routed = routed(json!([{ "to": [{ "service": "a" }] }]));
    let mut wire = routed.proxy.dial();
    assert_eq!(wire.ask(get("web", "/")).header("x-from"), Some("a"));
    routed.proxy.configure(|config| config["services"][0]["routes"] = json!([{ "to": [{ "service": "b" }] }]));
    routed.proxy.reload();
    holds(
        "the kept connection follows",
        || wire.ask(get("web", "/")).header("x-from").map(str::to_owned),
        |who| who.as_deref() == Some("b"),
    );
}
