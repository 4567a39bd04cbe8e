//! Is anybody there, at the other end of a connection to an endpoint?

use h2::{Ping, PingPong};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use super::cork::Progress;

/// Looks at a connection now and then, and asks where it is owed something and hears nothing: a host that vanished says
/// nothing at all, and TCP takes a quarter of an hour to find that out.
#[derive(Debug)]
pub struct Watch {
    pub(super) open: Rc<Cell<u32>>,
    pub(super) progress: Rc<Progress>,
    pub(super) ping: RefCell<PingPong>,
    pub(super) account: Account,
}

impl Watch {
    /// How often [`Watch::look`] is to be called.
    pub const EVERY: Duration = Duration::from_secs(5);

    /// Looks, and asks if need be; `false`: nobody is there. Streams then fail as [timed out](super::super::FaultKind::TimedOut)
    /// when the connection is dropped.
    #[must_use]
    pub fn look(&mut self) -> bool {
        match self.account.look(self.open.get(), self.progress.read(), self.progress.written()) {
            Step::Wait => {}
            Step::Ask => {
                let ping = self.ping.get_mut();
                // The answer to the last one; all that matters of it is that something came.
                let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
                // Fails if the connection is over, or the last question is still open.
                let _ = ping.send_ping(Ping::opaque());
            }
            Step::Lost => {
                self.progress.fail(io::ErrorKind::TimedOut);
                return false;
            }
        }
        true
    }
}

/// What is done at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Ask,
    Lost,
}

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    read: u64,
    written: u64,
    /// Looks in a row at which nothing had come that was owed.
    quiet: u32,
}

impl Account {
    /// Nothing for so many looks: 5 to 10 s.
    const ASKS: u32 = 2;

    /// `open`: requests under way; `read` and `written`: bytes so far.
    fn look(&mut self, open: u32, read: u64, written: u64) -> Step {
        let came = read != self.read;
        // A request that timed out since is not open any more, and was not answered.
        let owed = open > 0 || written != self.written;
        (self.read, self.written) = (read, written);
        if came {
            self.quiet = 0;
        } else if owed || self.quiet > Self::ASKS {
            self.quiet += 1;
        }
        match self.quiet {
            Self::ASKS => Step::Ask,
            0..Self::ASKS => Step::Wait,
            _ => Step::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_owes_an_answer_and_says_nothing_is_asked_and_then_given_up() {
        let mut account = Account::default();
        assert_eq!(account.look(1, 100, 50), Step::Wait, "something came");
        assert_eq!(account.look(1, 100, 50), Step::Wait);
        assert_eq!(account.look(1, 100, 50), Step::Ask);
        assert_eq!(account.look(1, 100, 67), Step::Lost);
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let mut account = Account::default();
        for read in 1..100 {
            assert_ne!(account.look(1, read / 3, 50), Step::Lost);
        }
    }

    #[test]
    fn a_connection_at_rest_owes_nothing() {
        let mut account = Account::default();
        for _ in 0..100 {
            assert_eq!(account.look(0, 0, 0), Step::Wait);
        }
    }

    #[test]
    fn requests_that_were_given_up_count() {
        let mut account = Account::default();
        let steps: Vec<Step> = (1..=3).map(|n| account.look(0, 0, n * 50)).collect();
        assert_eq!(steps, [Step::Wait, Step::Ask, Step::Lost]);
    }
}
