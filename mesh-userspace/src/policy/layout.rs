//! Weights become slots: each endpoint as often as it weighs, spread evenly over the turn.

use mesh_common::{
    endpoint::Slot,
    limits::{SLOTS_PER_ENDPOINT, SLOTS_PER_SERVICE},
};

/// How many slots [`layout`] makes of these weights.
pub fn length(weights: impl IntoIterator<Item = u64>) -> u32 {
    let present: Vec<u64> = weights.into_iter().filter(|w| *w > 0).collect();
    let turn = Turn::new(present.iter().copied(), Precision::Full);
    u32::try_from(present.iter().map(|w| turn.times(*w)).sum::<u64>()).unwrap_or(u32::MAX)
}

/// How many slots weights may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// [`SLOTS_PER_SERVICE`], or [`SLOTS_PER_ENDPOINT`] an endpoint, if that is more.
    Full,
    /// 256, or one an endpoint, if that is more: for while the arena is short.
    Coarse,
}

/// The slots of one view. Endpoints of weight 0 get none.
///
/// Shares are exact where the weights, divided by their greatest common divisor, sum up to what `precision` allows;
/// else they are rounded to that many slots, of which every endpoint keeps at least one.
pub fn layout(weighted: &[(Slot, u64)], precision: Precision) -> Vec<Slot> {
    let present: Vec<(Slot, u64)> = weighted.iter().filter(|(_, w)| *w > 0).copied().collect();
    let shares = Turn::new(present.iter().map(|(_, w)| *w), precision);
    let mut turn: Vec<(u64, usize)> = Vec::new();
    for (index, (_, weight)) in present.iter().enumerate() {
        let times = shares.times(*weight);
        // The middle of each of this endpoint's equal parts of the turn, as a fraction of 2^32.
        turn.extend((0..times).map(|part| (((2 * part + 1) << 32) / (2 * times), index)));
    }
    turn.sort_unstable();
    turn.into_iter().map(|(_, index)| present[index].0).collect()
}

/// How often an endpoint stands in a turn.
struct Turn {
    divisor: u64,
    total: u64,
    most: u64,
}

impl Turn {
    /// Of weights above 0.
    fn new(weights: impl Iterator<Item = u64> + Clone, precision: Precision) -> Self {
        let divisor = weights.clone().fold(0, gcd).max(1);
        let (total, count) = weights.fold((0, 0), |(total, count), w| (total + w / divisor, count + 1));
        let most = match precision {
            Precision::Full => u64::from(SLOTS_PER_SERVICE).max(u64::from(SLOTS_PER_ENDPOINT) * count),
            Precision::Coarse => 256.max(count),
        };
        Self { divisor, total, most }
    }

    fn times(&self, weight: u64) -> u64 {
        let exact = weight / self.divisor;
        if self.total <= self.most {
            return exact;
        }
        let rounded = u128::from(exact) * u128::from(self.most) / u128::from(self.total);
        u64::try_from(rounded).unwrap_or(u64::MAX).max(1)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(weights: &[u16]) -> Vec<u32> {
        let weighted: Vec<(Slot, u64)> = (0..).zip(weights).map(|(id, w)| (Slot::new(id, 1), u64::from(*w))).collect();
        layout(&weighted, Precision::Full).into_iter().map(Slot::id).collect()
    }

    #[test]
    fn equal_weights_take_one_slot_each() {
        assert_eq!(ids(&[7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    fn a_heavy_endpoint_is_spread_over_the_turn() {
        assert_eq!(ids(&[1, 2, 5]), [2, 1, 2, 0, 2, 2, 1, 2]);
    }

    #[test]
    fn nothing_weighs_nothing() {
        assert_eq!(ids(&[]), [0; 0]);
        assert_eq!(ids(&[0, 0]), [0; 0]);
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(0..=u16::MAX, 0..60)) {
            let slots = ids(&weights);
            prop_assert!(slots.len() <= SLOTS_PER_SERVICE as usize + weights.len());
            let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            for (id, weight) in (0..).zip(&weights) {
                let count = slots.iter().filter(|s| **s == id).count() as f64;
                let share = f64::from(*weight) / sum;
                if *weight == 0 {
                    prop_assert_eq!(count, 0.0);
                } else {
                    prop_assert!(count >= 1.0);
                    // Rounded down to whole slots, and the total moves with the others' rounding.
                    prop_assert!((count / slots.len() as f64 - share).abs() <= 1.0 / slots.len() as f64 + share * 0.02);
                }
            }
        }

        #[test]
        fn the_length_is_known_without_laying_out(weights in proptest::collection::vec(0..=u16::MAX, 0..60)) {
            prop_assert_eq!(length(weights.iter().copied().map(u64::from)) as usize, ids(&weights).len());
        }

        #[test]
        fn small_weights_are_exact(weights in proptest::collection::vec(0..50u16, 1..40)) {
            let slots = ids(&weights);
            let divisor = weights.iter().fold(0, |d, w| gcd(d, u64::from(*w))).max(1);
            for (id, weight) in (0..).zip(&weights) {
                prop_assert_eq!(slots.iter().filter(|s| **s == id).count() as u64, u64::from(*weight) / divisor);
            }
        }
    }
}
