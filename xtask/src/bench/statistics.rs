//! Medians, and ratios that are taken within a round before anything is averaged: a minute in which the machine is slow
//! then hits both sides of the fraction.

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of what is not there in every round; none if it is there in no round.
    pub(super) fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().flatten().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { median: f64::midpoint(low, high), least, most })
    }
}

/// Round by round, `ours` by the least of `theirs` in the same round. A round counts only where all are there.
pub(super) fn ratios(ours: &[Option<f64>], theirs: &[Vec<Option<f64>>]) -> Vec<Option<f64>> {
    let least = |round: usize| {
        let all: Option<Vec<f64>> = theirs.iter().map(|peer| peer.get(round).copied().flatten()).collect();
        all?.into_iter().min_by(f64::total_cmp)
    };
    let rounds = ours.iter().enumerate();
    rounds.map(|(round, ours)| Some((*ours)? / least(round).filter(|theirs| *theirs > 0.0)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied().map(Some));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(spread(&[]), None);
        assert_eq!(Spread::of([None, Some(7.0)]), Some(Spread { median: 7.0, least: 7.0, most: 7.0 }));
    }

    #[test]
    fn a_ratio_compares_the_same_round_with_its_best_peer() {
        let peers = [vec![Some(2.0), Some(10.0)], vec![Some(4.0), Some(5.0)]];
        assert_eq!(ratios(&[Some(1.0), Some(10.0)], &peers), [Some(0.5), Some(2.0)]);
    }

    #[test]
    fn a_round_in_which_one_is_missing_or_nothing_was_measured_has_no_ratio() {
        let peers = [vec![Some(2.0), None, Some(0.0)], vec![Some(1.0); 3]];
        assert_eq!(ratios(&[None, Some(1.0), Some(1.0)], &peers), [None; 3]);
        assert_eq!(ratios(&[Some(1.0)], &[vec![]]), [None]);
    }
}
