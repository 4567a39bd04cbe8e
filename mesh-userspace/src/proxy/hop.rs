//! Headers that belong to one connection, and those that a proxy adds: what changes in a message on its way.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
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
pub(super) fn strip(headers: &mut HeaderMap) -> Hop {
    let mut hop = Hop::default();
    let mut seen = 0_u8;
    // One look at the names, since most messages have nothing of all this.
    for name in headers.keys() {
        let bit = OF_CONNECTION.iter().position(|of_connection| of_connection == name);
        seen |= bit.map_or(0, |bit| 1 << bit);
    }
    if seen == 0 {
        return hop;
    }
    if seen & 1 != 0 {
        let named: Vec<HeaderName> = list(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
        if named.contains(&UPGRADE) {
            hop.upgrade = headers.get(UPGRADE).cloned();
        }
        // What frames or routes the message is not the connection's to name.
        for name in named.into_iter().filter(|name| *name != TE && *name != HOST) {
            headers.remove(name);
        }
    }
    hop.trailers = list(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for (bit, name) in OF_CONNECTION.iter().enumerate() {
        if seen & (1 << bit) != 0 {
            headers.remove(name);
        }
    }
    hop
}

/// As [`strip`], of a request: that trailers are welcome is said again to the next neighbour.
pub(super) fn strip_request(headers: &mut HeaderMap) -> Hop {
    let hop = strip(headers);
    if hop.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    hop
}

/// Headers of the connection; the first is that which names others.
const OF_CONNECTION: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];

/// The members of a list header (RFC 9110, section 5.6.1).
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// Who a request came from, as headers say it; made once a connection.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The client's address without its port.
    pub(super) address: HeaderValue,
}

/// What a proxy adds to a request: where it came from, what it is called, and that a proxy was there.
pub(super) fn announce(headers: &mut HeaderMap, origin: &Origin, version: Version, id: impl FnOnce() -> HeaderValue) {
    match headers.get(X_FORWARDED_FOR) {
        None => drop(headers.insert(X_FORWARDED_FOR, origin.address.clone())),
        Some(_) => append_to_list(headers, &X_FORWARDED_FOR, &origin.address),
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(X_REQUEST_ID).or_insert_with(id);
    say_via(headers, version);
}

/// Notes that the message passed here (RFC 9110, section 7.6.3); `version` is that by which it came.
pub(super) fn say_via(headers: &mut HeaderMap, version: Version) {
    let here = HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 mesh",
        Version::HTTP_10 => "1.0 mesh",
        _ => "1.1 mesh",
    });
    match headers.contains_key(VIA) {
        false => drop(headers.insert(VIA, here)),
        true => append_to_list(headers, &VIA, &here),
    }
}

/// Adds a member to a list header, in one line: some servers read the first line only.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, member: &HeaderValue) {
    let mut joined = Vec::with_capacity(64);
    for value in headers.get_all(name).into_iter().chain([member]) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    // Made of valid values.
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(name, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_goes_and_all_else_stays() {
        let mut message = headers(&[
            ("connection", "close, x-mine , Host"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("host", "a"),
            ("accept", "*/*"),
        ]);
        let hop = strip(&mut message);
        assert_eq!(hop, Hop { upgrade: None, trailers: true });
        assert_eq!(message, headers(&[("host", "a"), ("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_counts_only_if_the_connection_names_it() {
        let mut asks = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip(&mut asks).upgrade.unwrap(), "websocket");
        let mut mentions = headers(&[("upgrade", "h2c")]);
        assert_eq!(strip(&mut mentions), Hop::default());
        assert!(mentions.is_empty());
    }

    #[test]
    fn a_proxy_adds_itself_behind_those_before() {
        let origin = Origin { address: HeaderValue::from_static("10.0.0.9") };
        let mut message = headers(&[("x-forwarded-for", "1.1.1.1"), ("via", "1.0 other"), ("x-request-id", "mine")]);
        announce(&mut message, &origin, Version::HTTP_2, || HeaderValue::from_static("new"));
        assert_eq!(message["x-forwarded-for"], "1.1.1.1, 10.0.0.9");
        assert_eq!(message["via"], "1.0 other, 2 mesh");
        assert_eq!(message["x-request-id"], "mine");
        assert_eq!(message["x-forwarded-proto"], "http");
        let mut bare = HeaderMap::new();
        announce(&mut bare, &origin, Version::HTTP_11, || HeaderValue::from_static("new"));
        assert_eq!(
            bare,
            headers(&[
                ("x-forwarded-for", "10.0.0.9"),
                ("x-forwarded-proto", "http"),
                ("x-request-id", "new"),
                ("via", "1.1 mesh"),
            ])
        );
    }
}
