//! Does a client open streams only to make work?

/// How an exchange with a client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With an answer, or by us.
    Finished,
    /// The client gave it up after a while, as clients with deadlines do.
    GivenUp,
    /// The client gave it up as soon as it had begun.
    GivenUpEarly,
    /// It was none from the beginning.
    Malformed,
}

/// The account of a connection: exchanges that were no use less those that were finished.
///
/// Counting against what finishes, and not against time, lets a busy client with short deadlines live, and stops one that
/// does nothing else (CVE-2023-44487).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    early: u32,
}

impl Account {
    /// Adds an end; `false`: that was one too many.
    #[must_use]
    pub(super) fn add(&mut self, end: End, limit: u32) -> bool {
        match end {
            End::Finished => self.early = self.early.saturating_sub(1),
            End::GivenUp => {}
            End::GivenUpEarly | End::Malformed => self.early = self.early.saturating_add(1),
        }
        self.early <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_makes_only_work_is_stopped_at_the_limit() {
        for end in [End::GivenUpEarly, End::Malformed] {
            let mut account = Account::default();
            assert!((0..3).all(|_| account.add(end, 3)));
            assert!(!account.add(end, 3));
        }
    }

    #[test]
    fn a_client_that_lets_half_of_its_streams_finish_is_not_stopped() {
        let mut account = Account::default();
        assert!((0..10_000).all(|_| account.add(End::GivenUpEarly, 3) && account.add(End::Finished, 3)));
    }

    #[test]
    fn deadlines_that_pass_later_are_not_held_against_a_client() {
        let mut account = Account::default();
        assert!((0..10_000).all(|_| account.add(End::GivenUp, 0)));
    }
}
