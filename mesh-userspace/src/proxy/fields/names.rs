//! Names of header lines, remembered: one that is not among the standard ones would be allocated for each message.

use std::cell::RefCell;

use http::HeaderName;

use super::super::FaultKind;

/// Places for names; a power of two. A name has two, so that two names of one place do not drive each other out.
const PLACES: usize = 128;
/// Longer names are not remembered: what strangers send stays small.
const LONGEST: usize = 64;

/// A name, by how it was spelled.
type Seen = (Box<[u8]>, HeaderName);

thread_local! {
    static SEEN: RefCell<[Option<Seen>; PLACES]> = const { RefCell::new([const { None }; PLACES]) };
}

/// The name that is spelled so.
pub(in super::super) fn name(spelled: &[u8]) -> Result<HeaderName, FaultKind> {
    let parse = || HeaderName::from_bytes(spelled).map_err(|_| FaultKind::Malformed("header name"));
    let (&[first, .., last], 2..=LONGEST) = (spelled, spelled.len()) else { return parse() };
    let place = place(first, spelled[spelled.len() / 2], last, spelled.len());
    SEEN.with_borrow_mut(|seen| {
        for place in [place, place ^ 1] {
            if let Some((same, name)) = &seen[place]
                && **same == *spelled
            {
                return Ok(name.clone());
            }
        }
        let name = parse()?;
        seen[place ^ 1] = seen[place].replace((spelled.into(), name.clone()));
        Ok(name)
    })
}

/// Where a name is remembered.
fn place(first: u8, middle: u8, last: u8, length: usize) -> usize {
    let letters = u32::from_le_bytes([first, middle, last, length as u8]);
    // Fibonacci hashing: the upper bits of the product depend on all of the factor's.
    (letters.wrapping_mul(0x9E37_79B1) >> 16) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_name_is_the_same_in_every_case() {
        for _ in 0..2 {
            for (spelled, expected) in
                [("X-Request-Id", "x-request-id"), ("x-request-ID", "x-request-id"), ("HOST", "host")]
            {
                assert_eq!(name(spelled.as_bytes()).unwrap(), expected);
            }
        }
    }

    #[test]
    fn many_names_forget_each_other_and_are_never_mixed_up() {
        for round in 0..3 {
            for number in 0..2_000 {
                let spelled = format!("x-{number}");
                assert_eq!(name(spelled.as_bytes()).unwrap().as_str(), spelled, "round {round}");
            }
        }
        let long = "x".repeat(1_000);
        assert_eq!(name(long.as_bytes()).unwrap().as_str(), long);
    }

    #[test]
    fn what_is_no_name_is_refused_though_a_similar_one_is_known() {
        name(b"x-known").unwrap();
        for wrong in ["", "x known", "x-know\n", "x-kno\u{0}n", "x:known", "x-known "] {
            assert!(name(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
