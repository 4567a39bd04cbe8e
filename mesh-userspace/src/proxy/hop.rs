//! Headers that belong to one connection, and those that a proxy adds: what changes in a message on its way.

use super::fields::{Fields, bits, text};
use http::{
    HeaderName, HeaderValue, Version,
    header::{CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA},
};

/// The addresses that a request came from, the last one nearest.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The protocol that the first proxy was spoken to.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What tells a request from all others.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Why the proxy answered itself.
pub(super) const X_MESH_REASON: HeaderName = HeaderName::from_static("x-mesh-reason");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Of a connection that was to become one of HTTP/2; there is none that names it without `connection`.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What of a message belongs to the connection it came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hop {
    /// The protocol it asks to go on with.
    pub(super) upgrade: Option<HeaderValue>,
    /// `te: trailers`.
    pub(super) trailers: bool,
}

/// Takes away what belongs to the connection (RFC 9110, section 7.6.1).
///
/// `transfer-encoding` goes too: how a body is framed is between each two neighbours. `trailer` and `proxy-*` stay or go
/// as that section and 11.7 say: credentials for a proxy are for this one.
pub(super) fn strip(headers: &mut Fields) -> Hop {
    let seen = of_connection(headers);
    // Most messages have nothing of all this.
    if seen == 0 { Hop::default() } else { take(headers, seen) }
}

/// As [`strip`], of a request: that trailers are welcome is said again to the next neighbour.
pub(super) fn strip_request(headers: &mut Fields) -> Hop {
    let seen = of_connection(headers);
    if seen == ONLY_TE && headers.get_all(TE).eq([b"trailers"]) {
        // As in each request of gRPC.
        return Hop { upgrade: None, trailers: true };
    }
    let hop = if seen == 0 { Hop::default() } else { take(headers, seen) };
    if hop.trailers {
        headers.insert(TE, &HeaderValue::from_static("trailers"));
    }
    hop
}

/// Which headers of the connection are among these, by their places in [`OF_CONNECTION`].
fn of_connection(headers: &Fields) -> u16 {
    let mut seen = 0;
    if !headers.may_have(BITS) {
        return seen;
    }
    headers.for_each_name(|name| {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        if LENGTHS.checked_shr(length).is_some_and(|lengths| lengths & 1 == 1) {
            let bit = OF_CONNECTION.iter().position(|of_connection| of_connection.as_str().as_bytes() == name);
            seen |= bit.map_or(0, |bit| 1 << bit);
        }
    });
    seen
}

fn take(headers: &mut Fields, seen: u16) -> Hop {
    let mut hop = Hop::default();
    if seen == ONLY_CONNECTION && says_only_how_long(headers) {
        headers.remove(CONNECTION);
        return hop;
    }
    if seen & ONLY_CONNECTION != 0 {
        let named: Vec<HeaderName> = match says_only_how_long(headers) {
            true => Vec::new(),
            false => list(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect(),
        };
        if named.len() > FEW {
            headers.become_map();
        }
        if named.contains(&UPGRADE) {
            hop.upgrade = headers.value(UPGRADE);
        }
        // What frames or routes the message is not the connection's to name.
        for name in named.into_iter().filter(|name| *name != TE && *name != HOST) {
            headers.remove(name);
        }
    }
    hop.trailers = seen & ONLY_TE != 0 && list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for (bit, name) in OF_CONNECTION.iter().enumerate() {
        if seen & (1 << bit) != 0 {
            headers.remove(name);
        }
    }
    hop
}

/// Whether `connection` names no header, as in most messages that have it at all.
fn says_only_how_long(headers: &Fields) -> bool {
    let words = [&b"keep-alive"[..], b"close"];
    let plain = |value: &[u8]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    headers.get_all(CONNECTION).all(plain)
}

/// A message that names more headers of its connection than this, which none does that means well, is a map from then on:
/// to look for each through all lines would take long.
const FEW: usize = 16;

/// Headers of the connection; the first is that which names others.
static OF_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    TE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HTTP2_SETTINGS,
];
const ONLY_CONNECTION: u16 = 1;
const ONLY_TE: u16 = 1 << 1;

/// The bits of their names.
const BITS: u64 = bits(&[
    "connection",
    "te",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
    "http2-settings",
]);

/// Their lengths, as bits: few others are as long, so that most names need no closer look.
const LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;

/// The members of a list header (RFC 9110, section 5.6.1).
fn list<'a>(headers: &'a Fields, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).filter_map(text);
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// Who a request came from, as headers say it; made once a connection.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The client's address without its port.
    pub(super) address: HeaderValue,
}

/// What a proxy adds to a request: where it came from, what it is called, and that a proxy was there.
pub(super) fn announce(headers: &mut Fields, origin: &Origin, version: Version, id: impl FnOnce() -> [u8; 32]) {
    append_to_list(headers, &X_FORWARDED_FOR, &origin.address);
    if !headers.contains(&X_FORWARDED_PROTO) {
        headers.append(X_FORWARDED_PROTO, &HeaderValue::from_static("http"));
    }
    if !headers.contains(&X_REQUEST_ID) {
        headers.insert_id(X_REQUEST_ID, &id());
    }
    say_via(headers, version);
}

/// Notes that the message passed here (RFC 9110, section 7.6.3); `version` is that by which it came.
pub(super) fn say_via(headers: &mut Fields, version: Version) {
    let here = HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 mesh",
        Version::HTTP_10 => "1.0 mesh",
        _ => "1.1 mesh",
    });
    append_to_list(headers, &VIA, &here);
}

/// Adds a member to a list header, in one line.
fn append_to_list(headers: &mut Fields, name: &HeaderName, member: &HeaderValue) {
    if headers.contains(name) {
        headers.join(name, ", ", Some(member));
    } else {
        headers.append(name, member);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fields::tests::{both, map},
        *,
    };

    #[test]
    fn what_belongs_to_the_connection_goes_and_all_else_stays() {
        let lines = [
            ("connection", "close, x-mine , Host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("host", "a"),
            ("accept", "*/*"),
        ];
        for mut message in both(&lines) {
            let hop = strip(&mut message);
            assert_eq!(hop, Hop { upgrade: None, trailers: true });
            assert_eq!(message.to_map(), map(&[("host", "a"), ("accept", "*/*")]));
        }
    }

    #[test]
    fn every_header_of_the_connection_is_seen() {
        for name in &OF_CONNECTION {
            for mut message in both(&[(name.as_str(), "x")]) {
                strip(&mut message);
                assert!(message.is_empty(), "{name}");
            }
        }
        let names = OF_CONNECTION.each_ref().map(HeaderName::as_str);
        assert_eq!(names.iter().fold(0, |all, name| all | 1 << name.len()), LENGTHS);
        assert_eq!(bits(&names), BITS);
    }

    #[test]
    fn however_many_headers_it_names_they_go() {
        let names: Vec<String> = (0..100).map(|number| format!("x-{number}")).collect();
        let connection = names.join(", ");
        for named in [1, 15, 16, 17, 100] {
            let mut lines = vec![("connection", connection.as_str()), ("accept", "*/*"), ("te", "trailers")];
            lines.extend(names[..named].iter().map(|name| (name.as_str(), "1")));
            for mut message in both(&lines) {
                assert!(strip_request(&mut message).trailers);
                assert_eq!(message.to_map(), map(&[("accept", "*/*"), ("te", "trailers")]));
            }
        }
    }

    #[test]
    fn every_line_of_connection_is_looked_at() {
        for mut message in both(&[("connection", "Keep-Alive"), ("connection", "x-mine"), ("x-mine", "2")]) {
            strip(&mut message);
            assert!(message.is_empty());
        }
    }

    #[test]
    fn a_request_goes_on_to_say_that_trailers_are_welcome() {
        for lines in
            [&[("te", "trailers")][..], &[("te", "gzip"), ("te", "trailers")], &[("te", "trailers;q=1, Trailers")]]
        {
            for mut message in both(lines) {
                assert!(strip_request(&mut message).trailers);
                assert_eq!(message.to_map(), map(&[("te", "trailers")]), "{lines:?}");
            }
        }
        for mut message in both(&[("te", "gzip")]) {
            assert!(!strip_request(&mut message).trailers && message.is_empty());
        }
    }

    #[test]
    fn an_upgrade_counts_only_if_the_connection_names_it() {
        for mut asks in both(&[("connection", "Upgrade"), ("upgrade", "websocket")]) {
            assert_eq!(strip(&mut asks).upgrade.unwrap(), "websocket");
        }
        for mut mentions in both(&[("upgrade", "h2c")]) {
            assert_eq!(strip(&mut mentions), Hop::default());
            assert!(mentions.is_empty());
        }
    }

    #[test]
    fn a_proxy_adds_itself_behind_those_before() {
        let origin = Origin { address: HeaderValue::from_static("10.0.0.9") };
        let id = || [b'a'; 32];
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("via", "1.0 other"),
            ("x-request-id", "mine"),
            ("x-forwarded-for", "2.2.2.2"),
        ];
        for mut message in both(&lines) {
            announce(&mut message, &origin, Version::HTTP_2, id);
            let expected = [
                ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.9"),
                ("via", "1.0 other, 2 mesh"),
                ("x-request-id", "mine"),
                ("x-forwarded-proto", "http"),
            ];
            assert_eq!(message.to_map(), map(&expected));
        }
        for mut bare in both(&[]) {
            announce(&mut bare, &origin, Version::HTTP_11, id);
            let expected = [
                ("x-forwarded-for", "10.0.0.9"),
                ("x-forwarded-proto", "http"),
                ("x-request-id", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                ("via", "1.1 mesh"),
            ];
            assert_eq!(bare.to_map(), map(&expected));
        }
    }
}
