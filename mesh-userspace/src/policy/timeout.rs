//! When is a request too late?

use std::time::Duration;

/// What a `grpc-timeout` header says: up to 8 digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`); `None` if it is not one.
///
/// See "Requests" in the gRPC over HTTP/2 specification.
#[must_use]
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let mut number = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// How long a request may take; `None`: for ever.
///
/// `service` is the service's own, `route` what its route has in place of it; zero of either is for ever. The client's
/// own (`grpc-timeout`) wins where it is shorter: a client that waits no longer needs no answer.
#[must_use]
pub fn limit(service: Duration, route: Option<Duration>, client: Option<Duration>) -> Option<Duration> {
    let own = Some(route.unwrap_or(service)).filter(|own| !own.is_zero());
    match (own, client) {
        (Some(own), Some(client)) => Some(own.min(client)),
        (own, client) => own.or(client),
    }
}

/// How long one try may take; `None`: for ever. `left` is what is left of the request's own limit, `per_try` the limit of
/// each try, zero: none.
#[must_use]
pub fn of_try(per_try: Duration, left: Option<Duration>) -> Option<Duration> {
    limit(per_try, None, left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_grpc_timeout_is_a_number_with_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("00000001S", Some(Duration::from_secs(1))),
            ("123456789n", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            (" 1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_route_wins_over_the_service_and_the_client_where_it_is_shorter() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(9));
        assert_eq!(limit(short, None, None), Some(short));
        assert_eq!(limit(short, Some(long), None), Some(long));
        assert_eq!(limit(short, Some(Duration::ZERO), None), None, "the route switches it off");
        assert_eq!(limit(long, None, Some(short)), Some(short));
        assert_eq!(limit(short, None, Some(long)), Some(short));
        assert_eq!(limit(Duration::ZERO, None, Some(long)), Some(long));
        assert_eq!(limit(Duration::ZERO, None, None), None);
    }

    #[test]
    fn a_try_takes_no_longer_than_what_is_left_of_the_request() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(9));
        assert_eq!(of_try(long, Some(short)), Some(short));
        assert_eq!(of_try(short, Some(long)), Some(short));
        assert_eq!(of_try(Duration::ZERO, None), None);
        assert_eq!(of_try(long, Some(Duration::ZERO)), Some(Duration::ZERO), "nothing is left");
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = grpc_timeout(&value);
        }
    }
}
