//! How the time that a connect may take is spent.

/// The kernel's own wait for an answer to the first SYN, in milliseconds (RFC 6298, 2.1).
const USUAL_MS: u64 = 1000;
/// No longer than a fifth of that: a black hole is seen five times sooner.
const SOON_MS: u64 = USUAL_MS / 5;

/// After how many milliseconds without an answer the first SYN is sent again, where a connect may take `timeout_ms` and
/// lately took `usual_ms`; `None`: as the kernel does it.
///
/// A fifth of the timeout, and no more than 200 ms. An endpoint far away gets three times what it usually takes: SYNs
/// that are sent again speak against it.
#[inline(always)]
#[must_use]
pub const fn first_syn_ms(timeout_ms: u32, usual_ms: u64) -> Option<u32> {
    if timeout_ms == 0 {
        return None;
    }
    let fifth = timeout_ms as u64 / 5;
    let soon = if fifth < SOON_MS { fifth } else { SOON_MS };
    let far = if usual_ms > USUAL_MS / 3 { USUAL_MS } else { 3 * usual_ms };
    let ms = if far > soon { far } else { soon };
    Some(if ms == 0 { 1 } else { ms as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_black_hole_is_seen_five_times_sooner_and_a_far_endpoint_is_given_time() {
        assert_eq!(first_syn_ms(0, 0), None);
        assert_eq!(first_syn_ms(1000, 0), Some(200));
        assert_eq!(first_syn_ms(10_000, 2), Some(200));
        assert_eq!(first_syn_ms(100, 2), Some(20));
        assert_eq!(first_syn_ms(1000, 150), Some(450));
        assert_eq!(first_syn_ms(1000, u64::MAX), Some(1000));
        assert_eq!(first_syn_ms(3, 0), Some(1));
    }
}
