//! Every matcher and every action.

use super::*;
use crate::model::{Redirect, Rewrite};
use proptest::prelude::*;

#[derive(Clone, Copy)]
struct Asked<'t> {
    method: &'t str,
    path: &'t str,
    query: &'t str,
    host: &'t str,
    headers: &'t [(&'t str, &'t str)],
}

const PLAIN: Asked<'_> = Asked { method: "GET", path: "/", query: "", host: "web", headers: &[] };

impl Request for Asked<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> &str {
        self.query
    }

    fn host(&self) -> &str {
        self.host
    }

    fn header<'r>(&'r self, name: &'r HeaderName) -> impl Iterator<Item = &'r [u8]> {
        let named = move |(found, _): &&(&str, &str)| *found == name.as_str();
        self.headers.iter().filter(named).map(|(_, value)| value.as_bytes())
    }
}

fn when(change: impl FnOnce(&mut Match)) -> Route {
    let mut route = Route::default();
    change(&mut route.matches);
    route
}

fn compiled(route: Route) -> CompiledRoute {
    CompiledRoute::new(0, &route).unwrap()
}

fn paths(route: Route, expected: &[(&str, bool)]) {
    let route = compiled(route);
    for (path, expected) in expected {
        assert_eq!(route.matches(&Asked { path, ..PLAIN }), *expected, "{path} {:?}", route.route.matches);
    }
}

fn hosts(wanted: &str, expected: &[(&str, bool)]) {
    let route = compiled(when(|m| m.host = wanted.to_owned()));
    for (host, expected) in expected {
        assert_eq!(route.matches(&Asked { host, ..PLAIN }), *expected, "{host} {wanted}");
    }
}

#[test]
fn a_path_is_the_whole_path() {
    paths(
        when(|m| m.path = "/a".into()),
        &[("/a", true), ("/a/", false), ("/a/b", false), ("/A", false), ("/", false)],
    );
}

#[test]
fn a_prefix_ends_where_a_segment_ends() {
    let expected = [("/v2", true), ("/v2/", true), ("/v2/x", true), ("/v2x", false), ("/v", false), ("/x/v2", false)];
    paths(when(|m| m.path_prefix = "/v2".into()), &expected);
    paths(when(|m| m.path_prefix = "/v2/".into()), &expected);
    paths(when(|m| m.path_prefix = "/".into()), &[("/", true), ("/x", true), ("//", true), ("*", false)]);
}

#[test]
fn a_regular_expression_is_for_the_whole_path() {
    let expected = [("/a1", true), ("/a12", true), ("/a1/", false), ("/x/a1", false), ("/a", false), ("/a1\n", false)];
    paths(when(|m| m.path_regex = "/a[0-9]+".into()), &expected);
    paths(when(|m| m.path_regex = "/a|/b".into()), &[("/a", true), ("/b", true), ("/ab", false), ("/a/b", false)]);
}

#[test]
fn a_host_is_compared_without_port_and_case() {
    hosts(
        "a.example.org",
        &[
            ("a.example.org", true),
            ("A.Example.ORG:8080", true),
            ("a.example.org.", true),
            ("b.a.example.org", false),
            ("example.org", false),
            ("", false),
        ],
    );
    hosts(
        "*.example.org",
        &[
            ("a.example.org", true),
            ("b.A.example.org:80", true),
            ("example.org", false),
            (".example.org", false),
            ("aexample.org", false),
            ("é.example.org", true),
            ("éexample.org", false),
        ],
    );
    assert_eq!(["a", "a:80", "[::1]", "[::1]:80", "a:", ""].map(without_port), ["a", "a", "[::1]", "[::1]", "a", ""]);
}

#[test]
fn every_header_and_parameter_has_to_be_there() {
    let route = compiled(when(|m| {
        m.headers = vec![("x-a".into(), "1".into()), ("x-b".into(), "2".into())];
        m.query = vec![("q".into(), "a b".into())];
        m.method = "POST".into();
    }));
    let asked =
        Asked { method: "POST", query: "z=1&q=a%20b", headers: &[("x-a", "0"), ("x-a", "1"), ("x-b", "2")], ..PLAIN };
    assert!(route.matches(&asked), "any of several values counts");
    assert!(!route.matches(&Asked { headers: &[("x-a", "1")], ..asked }));
    assert!(!route.matches(&Asked { headers: &[("x-a", "1, 2"), ("x-b", "2")], ..asked }));
    assert!(!route.matches(&Asked { query: "q=a", ..asked }));
    assert!(!route.matches(&Asked { method: "post", ..asked }));
}

#[test]
fn the_first_that_matches_counts() {
    let routes =
        [when(|m| m.path = "/a".into()), when(|m| m.path_prefix = "/a".into()), when(|m| m.method = "PUT".into())];
    let router = Router::new(&routes).unwrap();
    let index = |method, path| router.route(&Asked { method, path, ..PLAIN }).map(|route| route.index);
    assert_eq!([index("GET", "/a"), index("GET", "/a/b"), index("PUT", "/b")], [Some(0), Some(1), Some(2)]);
    assert_eq!(index("GET", "/b"), None);
    assert!(Router::default().is_empty() && router.routes().len() == 3);
}

#[test]
fn what_is_no_expression_and_no_header_is_refused() {
    let error = Router::new(&[Route::default(), when(|m| m.path_regex = "(".into())]).unwrap_err();
    assert_eq!(error.index, 1);
    let huge = "a{1000}{1000}".to_owned();
    assert!(Router::new(&[when(|m| m.path_regex = huge)]).is_err());
    assert!(Router::new(&[when(|m| m.headers = vec![("a b".into(), String::new())])]).is_err());
}

fn to(weights: &[u32]) -> CompiledRoute {
    let target = |weight: &u32| Target { service: "web".to_owned(), weight: *weight };
    compiled(Route { to: weights.iter().map(target).collect(), ..Route::default() })
}

#[test]
fn targets_are_picked_by_weight() {
    assert_eq!(to(&[]).target(7), None);
    assert_eq!(to(&[0, 0]).target(0), None);
    let route = to(&[0, 1, 3]);
    let picked = |chance| route.target(chance).map(|(index, _)| index);
    assert_eq!(
        [picked(0), picked(u32::MAX / 4), picked(u32::MAX / 4 + 1), picked(u32::MAX)],
        [Some(1), Some(1), Some(2), Some(2)]
    );
}

#[test]
fn a_prefix_is_replaced_as_the_gateway_api_says() {
    for (path, prefix, new, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/foo//bar", "/foo", "/", "//bar"),
    ] {
        let mut route = when(|m| m.path_prefix = prefix.to_owned());
        route.rewrite = Rewrite { path_prefix: new.to_owned(), host: String::new() };
        let route = compiled(route);
        assert_eq!(route.rewritten(path, "").as_deref(), Some(expected), "{path} {prefix} {new}");
        assert_eq!(route.rewritten(path, "a=1"), Some(format!("{expected}?a=1")));
    }
}

#[test]
fn without_a_prefix_the_whole_path_is_replaced() {
    let mut route = when(|m| m.path_regex = "/.*".to_owned());
    assert_eq!(compiled(route.clone()).rewritten("/a", ""), None);
    route.rewrite.path_prefix = "/b/".to_owned();
    assert_eq!(compiled(route).rewritten("/a/c", "d").as_deref(), Some("/b/?d"));
}

#[test]
fn a_redirect_keeps_what_it_does_not_say() {
    let location = |host: &str, path: &str, from: (&str, &str, &str)| {
        let redirect = Some(Redirect { status: 302, host: host.to_owned(), path: path.to_owned() });
        compiled(Route { redirect, ..Route::default() }).location("http", from.0, from.1, from.2).unwrap()
    };
    assert_eq!(location("b:81", "", ("a", "/x", "q=1")), "http://b:81/x?q=1");
    assert_eq!(location("", "/y", ("a:80", "/x", "")), "http://a:80/y");
    assert_eq!(location("b", "/y", ("", "/x", "q")), "http://b/y?q");
    assert_eq!(location("", "/y", ("", "/x", "")), "/y");
    assert_eq!(location("", "", ("", "//evil.example", "")), "/evil.example", "no host can be smuggled in");
    assert_eq!(compiled(Route::default()).location("http", "a", "/", ""), None);
}

proptest! {
    #[test]
    fn weights_are_honoured_in_proportion(weights in proptest::collection::vec(0_u32..1000, 1..6)) {
        const DRAWS: u32 = 1 << 14;
        let route = to(&weights);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for draw in 0..DRAWS {
            match route.target(draw << 18) {
                Some((index, _)) => counts[index] += 1,
                None => prop_assert_eq!(total, 0),
            }
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = f64::from(DRAWS) * f64::from(*weight) / f64::from(total.max(1));
            prop_assert!((f64::from(*count) - expected).abs() <= 1.0 + 1e-6, "{count} {expected}");
        }
    }

    #[test]
    fn a_percentage_is_hit_in_proportion(percent in 0_u32..=100_000) {
        const DRAWS: u32 = 1 << 14;
        let hit = (0..DRAWS).filter(|draw| hits(percent, draw << 18)).count();
        prop_assert!((hit as f64 - f64::from(DRAWS) * f64::from(percent) / 100_000.0).abs() <= 1.0);
        prop_assert!(hits(100_000, u32::MAX) && !hits(0, 0));
    }

    #[test]
    fn no_request_makes_a_route_panic(path in ".{0,20}", host in ".{0,20}", query in ".{0,20}", wanted in "(\\*\\.)?.{0,8}") {
        let route = compiled(when(|m| {
            m.host.clone_from(&wanted);
            m.path_prefix = wanted;
            m.query = vec![("a".into(), "b".into())];
        }));
        let asked = Asked { path: &path, host: &host, query: &query, ..PLAIN };
        let _ = (route.matches(&asked), route.rewritten(&path, &query), without_port(&host));
    }
}
