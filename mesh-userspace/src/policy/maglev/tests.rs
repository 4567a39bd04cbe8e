use super::*;
use proptest::prelude::*;

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 8080))
}

fn members(weights: &[u64]) -> Vec<(u64, u64)> {
    weights.iter().enumerate().map(|(index, weight)| (key(address(index)), *weight)).collect()
}

/// How many positions each member has.
fn counts(table: &[u32], members: usize) -> Vec<u64> {
    let mut counts = vec![0; members];
    table.iter().for_each(|index| counts[*index as usize] += 1);
    counts
}

#[test]
fn without_one_of_equals_few_positions_change() {
    for count in 2..=100 {
        let all = members(&vec![1; count]);
        let before = table(&all, 16_381);
        let most = 1.0 / count as f64 + 0.02;
        let (mut rest, gone) = (all.clone(), count / 2);
        rest.remove(gone);
        let after = table(&rest, 16_381);
        let moved = before.iter().zip(&after).filter(|(b, a)| all[**b as usize] != rest[**a as usize]).count();
        let moved = moved as f64 / 16_381.0;
        assert!(moved <= most, "{moved} of {count} without {gone}");
    }
}

#[test]
fn without_the_heaviest_few_positions_of_the_others_change() {
    let all = members(&[7, 1, 1, 2, 3, 2, 1, 1, 1, 1]);
    let (before, after) = (table(&all, 16_381), table(&all[1..], 16_381));
    let moved = before.iter().zip(&after).filter(|(b, a)| **b != **a + 1).count() as f64 / 16_381.0;
    assert!((0.35..0.37 + 0.02).contains(&moved), "{moved}, of which 0.35 had to");
}

#[test]
fn light_members_get_a_position_each() {
    let counts = counts(&table(&members(&[1, u64::MAX, 1, 1]), 251), 4);
    assert_eq!(counts, [1, 248, 1, 1]);
}

#[test]
fn more_members_than_positions_fill_the_table() {
    let members = members(&vec![1; 1000]);
    let counts = counts(&table(&members, 251), 1000);
    assert_eq!(counts.iter().filter(|c| **c == 1).count(), 251);
}

#[test]
fn nobody_and_nothing_make_no_table() {
    assert_eq!(table(&[], 251), [0; 0]);
    assert_eq!(table(&[(1, 0)], 251), [0; 0]);
    assert_eq!(table(&[(1, 1)], 0), [0; 0]);
    assert_eq!(table(&[(1, 0), (2, 1)], 1), [1]);
}

#[test]
fn a_size_that_is_no_prime_is_filled_too() {
    for size in [2, 4, 100, 256, 1000, 16_384] {
        assert_eq!(table(&members(&[1, 2, 3]), size).len(), size as usize);
    }
}

#[test]
fn an_address_has_one_key_everywhere() {
    assert_eq!(key("10.0.0.1:80".parse().unwrap()), key("[::ffff:10.0.0.1]:80".parse().unwrap()));
    assert_ne!(key("10.0.0.1:80".parse().unwrap()), key("10.0.0.1:81".parse().unwrap()));
    // Nodes of other versions must agree: these numbers stay.
    assert_eq!(key("10.0.0.1:80".parse().unwrap()), KEY_V4);
    assert_eq!(key("[fd00::1]:80".parse().unwrap()), KEY_V6);
}

const KEY_V4: u64 = 109_810_148_214_038_185;
const KEY_V6: u64 = 6_627_780_394_611_467_765;

#[test]
fn primes_are_known() {
    let primes: Vec<u32> = (0..30).filter(|n| is_prime(*n)).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    assert!([251, 16_381, 65_537, 1_048_573, u32::MAX - 4].into_iter().all(is_prime));
    assert!(![16_384, 251 * 251, 1_048_575, u32::MAX].into_iter().any(is_prime));
    assert!(is_prime(*SIZES.start()) && is_prime(*SIZES.end()));
}

#[test]
#[ignore = "a measurement: run it with --release"]
fn a_thousand_members_are_laid_out_in_milliseconds() {
    for (count, size) in [(10, 16_381), (1000, 16_381), (10_000, 1_048_573)] {
        for weights in [vec![1; count], (0..count as u64).map(|i| 1 + i * i % 1000).collect()] {
            let members = members(&weights);
            let start = std::time::Instant::now();
            let table = table(&members, size);
            println!("{count} members, {} positions: {:?}", table.len(), start.elapsed());
        }
    }
}

proptest! {
    #[test]
    fn shares_follow_weights_to_two_positions(weights in proptest::collection::vec(1..1000_u64, 1..100)) {
        let total: u64 = weights.iter().sum();
        let counts = counts(&table(&members(&weights), 16_381), weights.len());
        prop_assume!(weights.iter().all(|w| w * 16_381 >= total));
        for (count, weight) in counts.iter().zip(&weights) {
            let exact = *weight as f64 / total as f64 * 16_381.0;
            prop_assert!((*count as f64 - exact).abs() < 2.0, "{} of {}", count, exact);
        }
    }

    #[test]
    fn any_weights_fill_the_table(weights in proptest::collection::vec(any::<u64>(), 1..100), size in 1..2000_u32) {
        let table = table(&members(&weights), size);
        prop_assert_eq!(table.is_empty(), weights.iter().all(|w| *w == 0));
        prop_assert!(table.is_empty() || table.len() == size as usize);
        let counts = counts(&table, weights.len());
        prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *weight > 0 || *count == 0));
        if size as usize >= 2 * weights.len() {
            prop_assert!(counts.iter().zip(&weights).all(|(count, weight)| *weight == 0 || *count > 0));
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        (weights, order) in proptest::collection::vec(1..100_u64, 1..50)
            .prop_flat_map(|w| { let order: Vec<usize> = (0..w.len()).collect(); (Just(w), Just(order).prop_shuffle()) })
    ) {
        let first = members(&weights);
        let second: Vec<(u64, u64)> = order.iter().map(|index| first[*index]).collect();
        let keys = |members: &[(u64, u64)]| -> Vec<u64> {
            table(members, 1009).into_iter().map(|index| members[index as usize].0).collect()
        };
        prop_assert_eq!(keys(&first), keys(&second));
    }

    #[test]
    fn weights_count_only_in_proportion(weights in proptest::collection::vec(1..100_u64, 1..50), factor in 1..1000_u64) {
        let more: Vec<u64> = weights.iter().map(|w| w * factor).collect();
        let (one, other) = (table(&members(&weights), 1009), table(&members(&more), 1009));
        let differ = one.iter().zip(&other).filter(|(a, b)| a != b).count();
        prop_assert!(differ <= 2 * weights.len(), "{} positions differ by rounding", differ);
    }
}
