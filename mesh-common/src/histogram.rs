//! Histograms that the kernel fills: buckets that double.

use bytemuck::{Pod, Zeroable};

/// Finite buckets. The last but one ends above the second SYN of a connect (1 s), so that a lost one is seen.
pub const FINITE: usize = 18;
/// The upper bound of the first bucket, in microseconds.
pub const FIRST_US: u64 = 16;

/// Durations, counted by magnitude. 160 bytes, words that only grow, added to atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Histogram {
    /// How many fell into each bucket, and not into the one before; the last takes whatever is longer.
    pub buckets: [u64; FINITE + 1],
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

/// The bucket of a duration in nanoseconds: the first whose bound is not below it.
#[inline(always)]
#[must_use]
pub const fn bucket(ns: u64) -> usize {
    let us = ns.div_ceil(1000);
    let mut bucket = 0;
    // At most 18 steps, and 2 or 3 on a fast network; a loop because BPF has no instruction for a logarithm.
    while bucket < FINITE && us > bound_us(bucket) {
        bucket += 1;
    }
    bucket
}

/// The upper bound of a finite bucket, in microseconds: 16 µs to 2.1 s.
#[inline(always)]
#[must_use]
pub const fn bound_us(bucket: usize) -> u64 {
    FIRST_US << bucket
}

impl Histogram {
    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their mean in nanoseconds; `None` if there is none.
    #[must_use]
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_duration_lies_between_the_bounds_of_its_bucket(ns: u64) {
            let bucket = bucket(ns);
            prop_assert!(bucket == FINITE || ns.div_ceil(1000) <= bound_us(bucket));
            prop_assert!(bucket == 0 || ns > bound_us(bucket - 1) * 1000);
        }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_it_ends() {
        assert_eq!((bucket(0), bucket(16_000), bucket(16_001), bucket(u64::MAX)), (0, 0, 1, FINITE));
        assert_eq!(bound_us(FINITE - 1), 2_097_152);
    }
}
