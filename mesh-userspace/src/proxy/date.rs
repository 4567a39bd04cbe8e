//! When a message was made or passed on (RFC 9110, section 6.6.1).

use super::fields::Fields;
use http::{HeaderValue, header::DATE};
use std::{
    cell::RefCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The second that was written last, and how.
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

/// Adds the time to a response that does not say it, as nearly all do.
pub(super) fn add(headers: &mut Fields) {
    if !headers.contains(&DATE) {
        headers.append(DATE, &now());
    }
}

fn now() -> HeaderValue {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now {
            let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
            // Letters, digits, and what stands between them.
            *text = HeaderValue::try_from(written).unwrap_or(HeaderValue::from_static(""));
            *second = now;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fields::tests::both, *};

    #[test]
    fn a_response_without_a_date_gets_one_and_another_keeps_its_own() {
        for mut headers in both(&[]) {
            add(&mut headers);
            let said = headers.value(DATE).unwrap();
            let said = httpdate::parse_http_date(said.to_str().unwrap()).unwrap();
            assert!(said.elapsed().unwrap() < Duration::from_secs(3));
            headers.insert(DATE, &HeaderValue::from_static("then"));
            add(&mut headers);
            assert!(headers.get_all(DATE).eq([b"then"]));
        }
    }
}
