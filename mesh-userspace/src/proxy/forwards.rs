//! May a request be passed on another time (`Max-Forwards`, RFC 9110, section 7.6.2)?

use super::fields::Fields;
use http::{HeaderValue, Method, header::MAX_FORWARDS};

/// Takes one from the times that the request may be passed on, where it says so; `false`: it may not, and is answered
/// here. Only two methods count them.
pub(super) fn count_down(method: &Method, headers: &mut Fields) -> bool {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return true;
    }
    let Some(left) = headers.get(MAX_FORWARDS).and_then(|value| str::from_utf8(value).ok()?.parse::<u32>().ok()) else {
        return true;
    };
    let Some(left) = left.checked_sub(1) else { return false };
    headers.insert(MAX_FORWARDS, &HeaderValue::from(left));
    true
}

#[cfg(test)]
mod tests {
    use super::{super::fields::tests::both, *};

    fn counted(method: &Method, before: &'static str) -> (bool, HeaderValue) {
        let counted = both(&[("max-forwards", before)])
            .map(|mut headers| (count_down(method, &mut headers), headers.value(MAX_FORWARDS).unwrap()));
        assert_eq!(counted[0], counted[1]);
        counted[0].clone()
    }

    #[test]
    fn each_passing_on_takes_one_until_none_is_left() {
        assert_eq!(counted(&Method::OPTIONS, "5"), (true, HeaderValue::from_static("4")));
        assert_eq!(counted(&Method::TRACE, "1"), (true, HeaderValue::from_static("0")));
        assert!(!counted(&Method::TRACE, "0").0);
        assert_eq!(counted(&Method::GET, "0"), (true, HeaderValue::from_static("0")), "it means nothing there");
        assert_eq!(counted(&Method::OPTIONS, "soon"), (true, HeaderValue::from_static("soon")));
        assert!(count_down(&Method::OPTIONS, &mut Fields::default()));
    }
}
