use super::*;
use proptest::prelude::*;

const SPILL: u32 = 700;

/// Usable in every way.
fn good(weight: u16, tier: Tier) -> Candidate {
    Candidate { weight, tier, healthy: true, admits: true, warmth: 1000 }
}

fn sick(weight: u16, tier: Tier) -> Candidate {
    Candidate { healthy: false, ..good(weight, tier) }
}

fn open(weight: u16, tier: Tier) -> Candidate {
    Candidate { admits: false, ..good(weight, tier) }
}

fn attended(candidates: &[Candidate]) -> Vec<u64> {
    weigh(candidates, SPILL).attended
}

/// The part of `weights` that lies in `tier`.
fn share(candidates: &[Candidate], weights: &[u64], tier: Tier) -> f64 {
    let sum = |tier: Option<Tier>| -> f64 {
        candidates.iter().zip(weights).filter(|(c, _)| tier.is_none_or(|t| t == c.tier)).map(|(_, w)| *w as f64).sum()
    };
    sum(Some(tier)) / sum(None)
}

use Tier::{Any, Node, Region, Remote, Zone};

#[test]
fn nobody_gets_nothing() {
    assert_eq!(weigh(&[], SPILL), Weights::default());
    let out = [sick(0, Zone), good(0, Remote)];
    let nothing = vec![0, 0];
    assert_eq!(
        weigh(&out, SPILL),
        Weights { attended: nothing.clone(), alone: nothing.clone(), all: nothing, panic: false }
    );
}

#[test]
fn one_endpoint_is_used_whatever_is_said_of_it() {
    for only in [good(3, Any), sick(3, Zone), open(3, Remote), Candidate { admits: false, ..sick(3, Node) }] {
        assert_eq!(attended(&[only]), [3]);
    }
}

#[test]
fn the_nearest_tier_takes_everything_while_enough_of_it_is_usable() {
    let candidates = [good(1, Zone), good(2, Zone), good(5, Region), good(5, Remote)];
    let weights = weigh(&candidates, SPILL);
    assert_eq!(weights.attended, [1, 2, 0, 0]);
    assert_eq!(weights.alone, [1, 2, 0, 0]);
    assert_eq!(weights.all, [1, 2, 5, 5]);
    // 7 of 10 are exactly enough.
    let mut ten = vec![good(1, Zone); 7];
    ten.extend([sick(1, Zone); 3]);
    ten.push(good(1, Remote));
    assert_eq!(attended(&ten), [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn the_rest_goes_to_the_next_tier_in_proportion() {
    // Half of the zone: 0.5 / 0.7 = 5/7.
    assert_eq!(attended(&[good(1, Zone), sick(1, Zone), good(1, Remote)]), [5, 0, 2]);
    // One endpoint in four: 0.25 / 0.7 = 5/14.
    let zone = [good(1, Zone), sick(1, Zone), sick(1, Zone), sick(1, Zone), good(1, Region), good(7, Remote)];
    assert_eq!(attended(&zone), [5, 0, 0, 0, 9, 0]);
}

#[test]
fn tiers_take_of_what_the_nearer_ones_left() {
    let candidates = [good(1, Node), sick(1, Node), good(1, Zone), sick(1, Zone), good(1, Remote)];
    // 5/7; 5/7 of 2/7; the rest.
    assert_eq!(attended(&candidates), [35, 0, 10, 0, 4]);
}

#[test]
fn what_the_last_tier_leaves_goes_back_in_proportion() {
    let candidates = [good(1, Zone), sick(1, Zone), good(1, Remote), sick(1, Remote)];
    // 5/7 and 10/49 of 45/49.
    assert_eq!(attended(&candidates), [7, 0, 2, 0]);
    assert_eq!(attended(&[good(1, Zone), sick(3, Zone)]), [1, 0], "one tier has nowhere to spill");
}

#[test]
fn an_open_circuit_lowers_the_share_of_its_tier_and_keeps_a_trickle() {
    // A thousandth; and of the rest 5/7 and 2/7.
    assert_eq!(attended(&[good(1, Zone), open(1, Zone), good(1, Remote)]), [4995, 7, 1998]);
}

#[test]
fn an_open_circuit_keeps_its_slots_where_its_tier_takes_everything() {
    let candidates = [good(3, Zone), open(1, Zone), good(1, Remote)];
    assert_eq!(attended(&candidates), [3, 1, 0]);
}

#[test]
fn a_tier_of_open_circuits_keeps_a_thousandth_to_be_probed() {
    let candidates = [open(1, Zone), open(1, Zone), good(1, Region), good(1, Remote)];
    assert_eq!(attended(&candidates), [1, 1, 1998, 0]);
    let candidates = [open(1, Node), open(3, Zone), sick(1, Zone), good(1, Region), open(1, Remote)];
    assert_eq!(attended(&candidates), [1, 3, 0, 3996, 0], "together, and not behind the tier that takes the rest");
}

#[test]
fn an_unhealthy_tier_keeps_nothing() {
    assert_eq!(attended(&[sick(1, Zone), sick(1, Zone), good(1, Remote)]), [0, 0, 1]);
}

#[test]
fn nobody_usable_means_all_healthy_ones() {
    let weights = weigh(&[open(1, Zone), sick(1, Zone), open(2, Remote)], SPILL);
    assert_eq!((weights.attended, weights.panic), (vec![1, 0, 2], false));
}

#[test]
fn all_unhealthy_means_that_health_is_ignored() {
    let weights = weigh(&[sick(1, Zone), sick(2, Zone), sick(1, Remote), good(0, Zone)], SPILL);
    assert_eq!((weights.attended, weights.panic), (vec![1, 2, 0, 0], true));
    assert!(!weigh(&[sick(1, Zone), open(1, Remote)], SPILL).panic, "circuits are not looked at");
}

#[test]
fn panic_still_respects_circuits() {
    let candidates = [sick(1, Zone), Candidate { admits: false, ..sick(1, Zone) }, sick(1, Remote)];
    assert_eq!(attended(&candidates), [4995, 7, 1998]);
}

#[test]
fn a_cold_endpoint_gets_less_and_equal_warmth_cancels_out() {
    let cold = |warmth| Candidate { warmth, ..good(2, Any) };
    assert_eq!(attended(&[cold(1000), cold(300)]), [20, 6]);
    assert_eq!(attended(&[cold(100), cold(100)]), [2, 2]);
    assert_eq!(weigh(&[cold(1000), cold(300)], SPILL).alone, [2, 2]);
}

#[test]
fn a_cold_endpoint_counts_whole_for_its_tier() {
    let cold = Candidate { warmth: 100, ..good(1, Zone) };
    assert_eq!(attended(&[cold, good(1, Remote)]), [1, 0]);
}

#[test]
fn numbers_out_of_range_are_brought_into_it() {
    let candidates = [Candidate { warmth: 0, ..good(1, Zone) }, sick(1, Zone), good(1, Remote)];
    assert_eq!(weigh(&candidates, 0).attended, [1, 0, 0]);
    assert_eq!(weigh(&candidates, u32::MAX).attended, [1, 0, 1]);
}

#[test]
fn ten_thousand_of_the_heaviest_do_not_overflow() {
    let all: Vec<Candidate> = (0..10_000_usize)
        .map(|i| Candidate {
            weight: u16::MAX,
            tier: Tier::ALL[1 + i % 4],
            healthy: i % 3 > 0,
            admits: i % 7 > 0,
            warmth: 1 + (i % 1000) as u16,
        })
        .collect();
    let weights = weigh(&all, 999);
    assert!(weights.attended.iter().sum::<u64>() < (1 << 45) + 10_000);
    assert!(all.iter().zip(&weights.attended).all(|(c, w)| (*w > 0) == c.healthy));
    assert_eq!(weigh(&vec![good(u16::MAX, Zone); 10_000], 999).attended, vec![65_535; 10_000]);
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let weight = prop_oneof![Just(0), 1..10_u16, any::<u16>()];
    let warmth = prop_oneof![Just(1000), 1..=1000_u16];
    (weight, 1..Tier::COUNT, prop::bool::weighted(0.7), prop::bool::weighted(0.7), warmth).prop_map(
        |(weight, tier, healthy, admits, warmth)| Candidate { weight, tier: Tier::ALL[tier], healthy, admits, warmth },
    )
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    proptest::collection::vec(candidate(), 1..12)
}

/// What connections get: those that meet an open circuit go on, so a tier of nothing else gets none.
fn traffic(candidates: &[Candidate], tier: Tier, spill_below: u32) -> f64 {
    let weights = weigh(candidates, spill_below);
    let usable = |c: &Candidate| c.weight > 0 && c.admits && (c.healthy || weights.panic);
    let reached = candidates.iter().any(|c| c.tier == tier && usable(c));
    if reached { share(candidates, &weights.attended, tier) } else { 0.0 }
}

proptest! {
    #[test]
    fn whoever_is_out_gets_nothing_and_someone_in_gets_something(all in candidates(), spill in 1..=1000_u32) {
        let weights = weigh(&all, spill);
        let someone = all.iter().any(|c| c.weight > 0);
        for set in [&weights.attended, &weights.alone, &weights.all] {
            prop_assert_eq!(set.len(), all.len());
            prop_assert!(all.iter().zip(set).all(|(c, w)| c.weight > 0 || *w == 0));
            prop_assert_eq!(set.iter().any(|w| *w > 0), someone);
        }
        prop_assert_eq!(weights.panic, someone && all.iter().all(|c| c.weight == 0 || !c.healthy));
        let sick = all.iter().zip(&weights.attended).filter(|(c, _)| !c.healthy);
        prop_assert!(weights.panic || sick.clone().all(|(_, w)| *w == 0));
    }

    #[test]
    fn alone_is_the_nearest_tier_by_weight(all in candidates(), spill in 1..=1000_u32) {
        let nearest = all.iter().filter(|c| c.weight > 0).map(|c| c.tier).min();
        let expected: Vec<u64> =
            all.iter().map(|c| if Some(c.tier) == nearest { u64::from(c.weight) } else { 0 }).collect();
        prop_assert_eq!(weigh(&all, spill).alone, expected);
    }

    #[test]
    fn nothing_special_means_the_plain_weights(plain in proptest::collection::vec(any::<u16>(), 1..50)) {
        let all: Vec<Candidate> = plain.iter().map(|w| good(*w, Any)).collect();
        let weights = weigh(&all, SPILL);
        let plain: Vec<u64> = plain.into_iter().map(u64::from).collect();
        prop_assert_eq!(&weights.attended, &plain);
        prop_assert_eq!(&weights.alone, &plain);
        prop_assert_eq!(&weights.all, &plain);
    }

    #[test]
    fn shares_of_tiers_follow_the_rule(all in candidates(), spill in 1..=1000_u32) {
        let weights = weigh(&all, spill);
        let (mut left, mut taken) = (1.0, [0.0; Tier::COUNT]);
        for tier in Tier::ALL {
            let sum = |usable: bool| -> f64 {
                all.iter()
                    .filter(|c| c.tier == tier && (!usable || c.admits && (c.healthy || weights.panic)))
                    .map(|c| f64::from(c.weight))
                    .sum()
            };
            if sum(false) > 0.0 {
                taken[tier as usize] = left * (sum(true) / sum(false) * 1000.0 / f64::from(spill)).min(1.0);
                left -= taken[tier as usize];
            }
        }
        let total: f64 = taken.iter().sum();
        prop_assume!(total > 0.0);
        for tier in Tier::ALL {
            let got = share(&all, &weights.attended, tier);
            prop_assert!((got - taken[tier as usize] / total).abs() < 0.001 + 1e-9, "{:?}: {}", tier, got);
        }
    }

    #[test]
    fn within_a_tier_weight_and_warmth_decide(all in candidates(), spill in 1..=1000_u32) {
        let weights = weigh(&all, spill);
        let usable = |tier| all.iter().any(|c| c.tier == tier && c.weight > 0 && c.admits && (c.healthy || weights.panic));
        prop_assume!(Tier::ALL.into_iter().any(usable));
        for (a, x) in all.iter().zip(&weights.attended) {
            for (b, y) in all.iter().zip(&weights.attended).filter(|(b, y)| b.tier == a.tier && a.admits && b.admits && *x > 0 && **y > 0) {
                let wanted = f64::from(a.weight) * f64::from(a.warmth) / (f64::from(b.weight) * f64::from(b.warmth));
                // Both are rounded to whole numbers.
                let room = 1e-6 + 1.0 / *x as f64 + 1.0 / *y as f64;
                prop_assert!((*x as f64 / *y as f64 / wanted - 1.0).abs() <= 2.0 * room);
            }
        }
    }

    #[test]
    fn one_more_usable_near_endpoint_never_lowers_the_near_share(
        all in candidates(), index in any::<prop::sample::Index>(), spill in 1..=1000_u32,
    ) {
        let index = index.index(all.len());
        let nearest = all.iter().filter(|c| c.weight > 0).map(|c| c.tier).min();
        prop_assume!(all[index].weight > 0 && nearest == Some(all[index].tier));
        let mut better = all.clone();
        better[index] = Candidate { healthy: true, admits: true, ..better[index] };
        let (before, after) =
            (traffic(&all, all[index].tier, spill), traffic(&better, all[index].tier, spill));
        // Within what trickles and rounding take.
        prop_assert!(after >= before - 2.0 / TRICKLE as f64, "{} then {}", before, after);
    }
}
