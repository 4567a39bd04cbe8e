//! How fast, and how long: what two looks at counters say about the time between them. Pure.

use std::time::Duration;

/// What was counted up to one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<const N: usize>(pub [u64; N]);

impl<const N: usize> Counted<N> {
    /// How much more of each there is a second than `before`, which was so long ago: to a tenth, so that a rate that stays
    /// as it is does not look like another one. `None`: no time went by.
    #[must_use]
    pub fn rates_since(&self, before: &Self, elapsed: Duration) -> Option<[f64; N]> {
        let seconds = elapsed.as_secs_f64();
        let rate = |at: usize| (grown(before.0[at], self.0[at]) as f64 / seconds * 10.0).round() / 10.0;
        (seconds > 0.0).then(|| std::array::from_fn(rate))
    }
}

/// How much a counter grew. One that is less than it was began again, or is a sum that lost a part: how much came meanwhile
/// nobody knows, and a peak that never was would be worse than none.
const fn grown(before: u64, now: u64) -> u64 {
    now.saturating_sub(before)
}

/// The percentiles that are told.
const PARTS: [f64; 3] = [0.5, 0.9, 0.99];

/// Within which time 50, 90 and 99 of 100 were done, in milliseconds, of what came into a histogram's buckets between two
/// looks. `bounds_us`: the upper bounds of the buckets; whatever is longer than all is in one more. `None`: nothing came.
///
/// Within a bucket they are taken to lie evenly, as Prometheus does; what is longer than all bounds counts as the longest.
#[must_use]
pub fn percentiles(before: &[u64], now: &[u64], bounds_us: impl Fn(usize) -> u64) -> Option<[f64; 3]> {
    let counts: Vec<u64> = before.iter().zip(now).map(|(before, now)| grown(*before, *now)).collect();
    let all: u64 = counts.iter().sum();
    let last = counts.len().checked_sub(2)?;
    let ms = |part: f64| {
        let rank = part * all as f64;
        let mut below = 0;
        for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= rank && at <= last {
                let from = if at == 0 { 0 } else { bounds_us(at - 1) };
                let share = (rank - below as f64) / *count as f64;
                return from as f64 + share * bounds_us(at).saturating_sub(from) as f64;
            }
            below += count;
        }
        bounds_us(last) as f64
    };
    (all > 0).then(|| PARTS.map(|part| ms(part).round() / 1000.0))
}

/// Counts of a histogram over the last while: what was there when it began.
///
/// Two looks are kept, so the while is between one and two times as long as asked for. A look for each second of it
/// would say the same more smoothly, and take ten times the memory.
#[derive(Clone, Debug)]
pub struct Window<const N: usize> {
    begin: Box<[u64; N]>,
    next: Box<[u64; N]>,
    next_at: Duration,
}

impl<const N: usize> Window<N> {
    /// One that begins at `now` (any clock) with these counts.
    #[must_use]
    pub fn new(counts: [u64; N], now: Duration) -> Self {
        Self { begin: Box::new(counts), next: Box::new(counts), next_at: now }
    }

    /// The counts where the while began that ends `now`, when they are `counts`.
    pub fn begin(&mut self, counts: &[u64; N], now: Duration, length: Duration) -> &[u64; N] {
        if now.saturating_sub(self.next_at) >= length {
            self.begin = std::mem::replace(&mut self.next, Box::new(*counts));
            self.next_at = now;
        }
        &self.begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_what_came_in_a_second() {
        let before = Counted([10, 100, 7]);
        let now = Counted([10, 350, 2]);
        let rates = now.rates_since(&before, SECOND * 2);
        assert_eq!(rates, Some([0.0, 125.0, 0.0]), "of a counter that is less nothing is known");
        assert_eq!(now.rates_since(&before, Duration::ZERO), None);
        let slow = Counted([1]).rates_since(&Counted([0]), SECOND * 3);
        assert_eq!(slow, Some([0.3]), "to a tenth");
    }

    /// 1, 2, 4, 8 ms.
    const fn bound(at: usize) -> u64 {
        1000 << at
    }

    #[test]
    fn percentiles_lie_within_their_buckets() {
        // 50 of up to 1 ms, 40 of up to 2 ms, 10 of up to 8 ms.
        let now = [50, 40, 0, 10, 0];
        assert_eq!(percentiles(&[0; 5], &now, bound), Some([1.0, 2.0, 7.6]));
        assert_eq!(percentiles(&[0; 5], &[100, 0, 0, 0, 0], bound), Some([0.5, 0.9, 0.99]));
        assert_eq!(percentiles(&now, &now, bound), None, "nothing came");
        let longer = [0, 0, 0, 0, 3];
        assert_eq!(percentiles(&[0; 5], &longer, bound), Some([8.0; 3]), "longer than any bound");
        assert_eq!(percentiles(&[50, 0, 0, 0, 0], &[50, 0, 4, 0, 0], bound), Some([3.0, 3.8, 3.98]));
        assert_eq!(percentiles(&[], &[], bound), None);
    }

    proptest! {
        #[test]
        fn a_higher_percentile_is_never_less(before: [u8; 5], more: [u8; 5]) {
            let before = before.map(u64::from);
            let now: [u64; 5] = std::array::from_fn(|at| before[at] + u64::from(more[at]));
            match percentiles(&before, &now, bound) {
                None => prop_assert!(more.iter().all(|n| *n == 0)),
                Some([p50, p90, p99]) => prop_assert!(0.0 <= p50 && p50 <= p90 && p90 <= p99 && p99 <= 8.0),
            }
        }
    }

    #[test]
    fn a_window_reaches_back_one_to_two_lengths() {
        let mut window = Window::new([0], SECOND * 100);
        let mut reach = Vec::new();
        for second in 101..150 {
            let now = SECOND * second;
            let begin = window.begin(&[u64::from(second) - 100], now, SECOND * 10)[0];
            reach.push(u64::from(second) - 100 - begin);
        }
        assert_eq!(reach.iter().max(), Some(&19), "{reach:?}");
        assert_eq!(reach[10..].iter().min(), Some(&10), "{reach:?}");
    }
}
