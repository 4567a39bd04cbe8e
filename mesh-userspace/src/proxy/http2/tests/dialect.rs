//! Heads between the dialects.

use http::{Method, Version};

use super::{
    super::{
        super::{Fields, Message, RequestHead},
        dialect::*,
    },
    *,
};

fn head(method: &str, target: &str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0.into()
}

fn names(headers: &Fields) -> Vec<&str> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_host_becomes_the_authority() {
    let mut head = head("GET", "/a?b=c", &[("host", "shop:8080"), ("accept", "*/*")]);
    prepare_for_http2(&mut head).unwrap();
    assert_eq!(head.uri, "http://shop:8080/a?b=c");
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(names(&head.headers), ["accept"]);
}

#[test]
fn an_absolute_target_counts_and_not_the_host() {
    let mut head = head("GET", "http://shop/a", &[("host", "other")]);
    prepare_for_http2(&mut head).unwrap();
    assert_eq!(head.uri, "http://shop/a");
    assert!(head.headers.is_empty());
}

#[test]
fn the_asterisk_of_options_goes_through_both_ways() {
    let mut head = head("OPTIONS", "*", &[("host", "shop")]);
    prepare_for_http2(&mut head).unwrap();
    assert_eq!(head.uri.path(), "*");
    prepare_for_http1(&mut head).unwrap();
    assert_eq!((head.uri.to_string().as_str(), head.headers.get("host")), ("*", Some(&b"shop"[..])));
}

#[test]
fn connect_keeps_its_target() {
    let mut head = head("CONNECT", "shop:443", &[("host", "shop:443")]);
    prepare_for_http2(&mut head).unwrap();
    assert_eq!((head.uri.to_string().as_str(), head.version), ("shop:443", Version::HTTP_2));
    prepare_for_http1(&mut head).unwrap();
    assert_eq!((head.uri.to_string().as_str(), head.headers.get("host")), ("shop:443", Some(&b"shop:443"[..])));
}

#[test]
fn a_request_without_host_is_sent_without_authority() {
    let mut head = head("GET", "/", &[]);
    prepare_for_http2(&mut head).unwrap();
    assert_eq!((head.uri.to_string().as_str(), head.version), ("/", Version::HTTP_11));
}

#[test]
fn a_host_that_is_none_is_malformed() {
    assert!(prepare_for_http2(&mut head("GET", "/", &[("host", "a b")])).is_err());
}

#[test]
fn what_speaks_of_the_connection_stays_behind() {
    let mut request = head(
        "GET",
        "/",
        &[
            ("host", "shop"),
            ("connection", "close, X-Mine"),
            ("connection", "te"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("te", "deflate, Trailers"),
            ("accept", "*/*"),
        ],
    );
    prepare_for_http2(&mut request).unwrap();
    assert_eq!(names(&request.headers), ["accept", "te"]);
    assert!(request.headers.get_all("te").eq([b"trailers"]));

    let response = Response::builder().header("connection", "close").header("date", "x").body(()).unwrap();
    let mut response = response.into_parts().0.into();
    prepare_response_for_http2(&mut response);
    assert_eq!((names(&response.headers), response.version), (vec!["date"], Version::HTTP_2));
}

#[test]
fn the_authority_becomes_the_host_and_pieces_of_a_cookie_one() {
    let mut head = head(
        "GET",
        "http://user@shop:8080/a?b=c",
        &[("host", "other"), ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3"), ("te", "trailers")],
    );
    prepare_for_http1(&mut head).unwrap();
    assert_eq!((head.uri.to_string().as_str(), head.version), ("/a?b=c", Version::HTTP_11));
    assert!(head.headers.get_all("host").eq([b"shop:8080"]));
    assert!(head.headers.get_all("cookie").eq([b"a=1; b=2; c=3"]));
    assert!(head.headers.get_all("te").eq([b"trailers"]));
}

#[test]
fn a_request_that_had_no_authority_has_an_empty_host() {
    let mut head = head("GET", "/", &[]);
    prepare_for_http1(&mut head).unwrap();
    assert_eq!(head.headers.get("host"), Some(&b""[..]));
}

#[test]
fn extended_connect_is_not_said_in_http1() {
    let mut head = head("CONNECT", "http://shop/chat", &[]);
    head.extensions.insert(h2::ext::Protocol::from("websocket"));
    assert!(prepare_for_http1(&mut head).is_err());
}

#[test]
fn heads_with_two_meanings_are_malformed() {
    let ok = |method: &str, target: &str, headers: &[(&'static str, &'static str)]| {
        check(&Message { head: Box::new(head(method, target, headers)), body: () }.into()).is_ok()
    };
    assert!(ok("GET", "http://shop/", &[]));
    assert!(ok("GET", "http://shop/", &[("host", "SHOP")]));
    assert!(ok("GET", "/", &[("host", "shop")]));
    assert!(ok("OPTIONS", "*", &[]));
    assert!(ok("CONNECT", "shop:443", &[]));
    assert!(!ok("GET", "http://shop/", &[("host", "other")]));
    assert!(!ok("GET", "/", &[("host", "shop"), ("host", "shop")]));
    assert!(!ok("GET", "http://user@shop/", &[]));
    assert!(!ok("GET", "*", &[]));
    assert!(!ok(Method::CONNECT.as_str(), "/", &[]));
}
