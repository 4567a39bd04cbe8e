//! Choosing an endpoint: the same steps in the connect hook, in `explain` and in the planner's tests.

use crate::{
    endpoint::{EndpointRow, Slot},
    reason::Reason,
    service::{Policy, SlotRange, View},
};

/// The tables a choice reads. The kernel reads maps, a test reads vectors.
pub trait Rows {
    /// The word of a service's [`View`]; 0 where there is no such service.
    fn view(&self, service: u32, view: View) -> u64;
    /// A slot of the arena; `None` beyond its end.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// An endpoint's row; `None` beyond the table's end.
    fn endpoint(&self, id: u32) -> Option<EndpointRow>;
}

/// An endpoint that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slot that named it.
    pub slot: Slot,
    /// Its row.
    pub row: EndpointRow,
}

/// How often rows that changed under a reader are read again before the connect is refused.
///
/// A change publishes new rows before it retires old ones, so one more look finds the new set.
pub const ATTEMPTS: u32 = 3;

/// Which of `count` slots `draw` means: a turn for round robin, 32 random bits for random. `count` must not be 0.
#[inline(always)]
#[must_use]
pub const fn position(policy: Policy, draw: u32, count: u32) -> u32 {
    match policy {
        Policy::RoundRobin => draw % count,
        // Multiply and shift: as even as a modulo, without a division (Lemire, ACM TOMACS 29(1), 2019).
        Policy::Random => ((draw as u64 * count as u64) >> 32) as u32,
    }
}

/// Picks an endpoint of `service` among those that `view` shows.
///
/// # Errors
/// [`Reason::NoEndpoint`] or [`Reason::FamilyMismatch`] when the view is empty, [`Reason::StaleRows`] when
/// rows kept changing. Never an endpoint of another service.
#[inline(always)]
pub fn choose<R: Rows>(rows: &R, service: u32, view: View, policy: Policy, draw: u32) -> Result<Choice, Reason> {
    for _ in 0..ATTEMPTS {
        let range = SlotRange::from_word(rows.view(service, view));
        if range.count == 0 {
            let any = SlotRange::from_word(rows.view(service, View::Any));
            return Err(if any.count == 0 { Reason::NoEndpoint } else { Reason::FamilyMismatch });
        }
        let Some(slot) = rows.slot(range.base.wrapping_add(position(policy, draw, range.count))) else { continue };
        let Some(row) = rows.endpoint(slot.id()) else { continue };
        // A row that was just freed still serves a reader that was on its way to it: only another use has another tag.
        if row.tag == slot.tag() && row.service == service {
            return Ok(Choice { slot, row });
        }
    }
    Err(Reason::StaleRows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_is_always_inside_the_range(draw: u32, count in 1..=u32::MAX) {
            prop_assert!(position(Policy::RoundRobin, draw, count) < count);
            prop_assert!(position(Policy::Random, draw, count) < count);
        }

        #[test]
        fn round_robin_visits_every_slot_once_a_turn(start in 0..u32::MAX - 5000, count in 1..500u32) {
            let mut seen = vec![0; count as usize];
            for draw in start..start + count {
                seen[position(Policy::RoundRobin, draw, count) as usize] += 1;
            }
            prop_assert!(seen.iter().all(|n| *n == 1));
        }
    }

    /// Rows whose tags never agree: what a reader sees that is always too late.
    struct Moving;
    impl Rows for Moving {
        fn view(&self, _: u32, _: View) -> u64 {
            SlotRange { base: 0, count: 1 }.word()
        }
        fn slot(&self, _: u32) -> Option<Slot> {
            Some(Slot::new(0, 7))
        }
        fn endpoint(&self, _: u32) -> Option<EndpointRow> {
            Some(EndpointRow { tag: 8, used: 1, ..EndpointRow::default() })
        }
    }

    #[test]
    fn rows_that_never_agree_are_refused_and_never_used() {
        assert_eq!(choose(&Moving, 0, View::Any, Policy::RoundRobin, 0), Err(Reason::StaleRows));
    }
}
