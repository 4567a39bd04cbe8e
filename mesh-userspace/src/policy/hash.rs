//! What of a request decides its endpoint, where a policy hashes?

use super::maglev;
use std::net::IpAddr;

use crate::model::HashOn;

/// The hash of the first of header, cookie and source address that `on` names and the request has; `None`: of nothing, so
/// that any endpoint will do.
///
/// It is the same in every process and version, so that all nodes send a client to the same endpoint. `header` yields
/// the values of a header by name (lower case), in order.
pub fn hash<'r, I>(on: &HashOn, header: impl Fn(&str) -> I, source: Option<IpAddr>) -> Option<u64>
where
    I: IntoIterator<Item = &'r [u8]>,
{
    if !on.header.is_empty()
        && let Some(value) = header(&on.header).into_iter().find(|value| !value.is_empty())
    {
        return Some(maglev::hash(value));
    }
    if !on.cookie.is_empty()
        && let Some(value) = header("cookie").into_iter().find_map(|cookies| cookie(cookies, &on.cookie))
    {
        return Some(maglev::hash(value));
    }
    match source.filter(|_| on.source)?.to_canonical() {
        IpAddr::V4(ip) => Some(maglev::hash(&ip.octets())),
        IpAddr::V6(ip) => Some(maglev::hash(&ip.octets())),
    }
}

/// The value of a cookie in a `Cookie` header (RFC 6265, section 4.2.1), not empty, without the quotes around it.
#[must_use]
pub fn cookie<'r>(header: &'r [u8], name: &str) -> Option<&'r [u8]> {
    header.split(|b| *b == b';').find_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        let (found, value) = (pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii());
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (found == name.as_bytes() && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(header: &str, cookie: &str, source: bool) -> HashOn {
        HashOn { header: header.to_owned(), cookie: cookie.to_owned(), source }
    }

    fn of(on: &HashOn, headers: &[(&str, &'static str)], source: &str) -> Option<u64> {
        let values = |name: &str| {
            let values = headers.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.as_bytes());
            values.collect::<Vec<_>>()
        };
        hash(on, values, source.parse().ok())
    }

    #[test]
    fn the_first_that_is_there_counts() {
        let all = on("x-user", "session", true);
        let header = ("x-user", "ann");
        let cookie = ("cookie", "a=1; session=s1; b=2");
        let source = "10.0.0.1";
        let by_header = of(&all, &[header, cookie], source);
        assert_eq!(by_header, of(&on("x-user", "", false), &[header], "10.9.9.9"));
        assert_eq!(of(&all, &[cookie], source), of(&on("", "session", false), &[("cookie", "session=\"s1\"")], ""));
        assert_eq!(
            of(&all, &[("x-user", "")], source),
            of(&on("", "", true), &[], source),
            "an empty one is not there"
        );
        assert_eq!(of(&on("x-user", "session", false), &[], source), None);
        assert_eq!(of(&all, &[], ""), None);
    }

    #[test]
    fn a_map_of_headers_can_be_asked() {
        let mut headers = http::HeaderMap::new();
        headers.append("cookie", http::HeaderValue::from_static("a=1"));
        headers.append("cookie", http::HeaderValue::from_static("session=s1"));
        let of_map =
            hash(&on("x-user", "session", false), |name| headers.get_all(name).iter().map(|v| v.as_bytes()), None);
        assert_eq!(of_map, Some(maglev::hash(b"s1")));
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let all = HashOn::default();
        assert_eq!(of(&all, &[], "::ffff:10.0.0.1"), of(&all, &[], "10.0.0.1"));
        assert_ne!(of(&all, &[], "10.0.0.2"), of(&all, &[], "10.0.0.1"));
    }

    #[test]
    fn a_hash_is_the_same_for_ever() {
        assert_eq!(of(&on("x-user", "", false), &[("x-user", "ann")], ""), Some(maglev::hash(b"ann")));
        assert_eq!(maglev::hash(b""), 17_665_956_581_633_026_203);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (header, expected) in [
            ("session=x", Some("x")),
            ("xsession=y; session=x", Some("x")),
            ("session=; session=x", Some("x")),
            ("a=1;session=x=y", Some("x=y")),
            ("session", None),
            ("", None),
            ("Session=x", None),
            (";;=;session =x ", Some("x")),
        ] {
            assert_eq!(cookie(header.as_bytes(), "session"), expected.map(str::as_bytes), "{header:?}");
        }
    }
}
