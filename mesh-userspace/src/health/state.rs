//! What a pass or a failure makes of what is known of an endpoint.

use crate::model::{Health, HealthCheck};

/// What the checks of one endpoint have said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The verdict.
    pub health: Health,
    /// Passes in a row, up to now.
    pub passes: u32,
    /// Failures in a row, up to now.
    pub failures: u32,
}

/// The state after one more outcome.
#[must_use]
pub fn step(state: State, passed: bool, check: &HealthCheck) -> State {
    let (passes, failures) =
        if passed { (state.passes.saturating_add(1), 0) } else { (0, state.failures.saturating_add(1)) };
    let health = match state.health {
        Health::Unknown if passed => Health::Healthy,
        Health::Unhealthy if passed && passes >= check.healthy_threshold => Health::Healthy,
        Health::Unknown | Health::Healthy if !passed && failures >= check.unhealthy_threshold => Health::Unhealthy,
        same => same,
    };
    State { health, passes, failures }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_pass_makes_an_endpoint_that_was_never_checked_healthy() {
        let state = step(State::default(), true, &HealthCheck::default());
        assert_eq!(state.health, Health::Healthy);
    }

    proptest! {
        #[test]
        fn a_verdict_changes_exactly_when_its_threshold_is_reached(
            outcomes in prop::collection::vec(any::<bool>(), 0..200), up in 1u32..6, down in 1u32..6,
        ) {
            let check = HealthCheck { healthy_threshold: up, unhealthy_threshold: down, ..HealthCheck::default() };
            let mut state = State::default();
            for (at, &passed) in outcomes.iter().enumerate() {
                let row = outcomes[..=at].iter().rev().take_while(|&&one| one == passed).count();
                let before = state.health;
                state = step(state, passed, &check);
                let expected = match (before, passed) {
                    (Health::Unknown, true) => Health::Healthy,
                    (Health::Unhealthy, true) if row >= up as usize => Health::Healthy,
                    (Health::Unknown | Health::Healthy, false) if row >= down as usize => Health::Unhealthy,
                    _ => before,
                };
                prop_assert_eq!(state.health, expected);
            }
        }
    }
}
