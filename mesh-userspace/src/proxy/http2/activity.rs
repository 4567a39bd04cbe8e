//! What goes on on a client's connection, for whoever decides when it ends.

use std::{cell::Cell, rc::Rc};

/// Shared by [`serve`](super::serve), which tells, and by its `rest`, which is polled in every turn and decides.
#[derive(Debug, Default)]
pub struct Activity {
    /// Requests under way.
    pub(super) open: Rc<Cell<u32>>,
    /// Answers that wait for the client to take some of them.
    pub(super) held: Cell<u32>,
    /// Whether frames wait for the socket.
    pub(super) unwritten: Cell<bool>,
    /// Whether the client has closed its half of the connection.
    pub(super) half_closed: Cell<bool>,
    /// Whether it is to be looked at whether the client is still there.
    pub(super) touched: Cell<bool>,
    /// Whether no more requests are to be taken.
    pub(super) drained: Cell<bool>,
    /// Whether the connection is to end now.
    pub(super) cut: Cell<bool>,
}

impl Activity {
    /// Requests under way.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// Whether the client does not take what is there for it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.get() > 0 || self.unwritten.get()
    }

    /// Whether the client has closed its half of the connection, with requests under way. It may wait for their answers,
    /// or be gone: TCP does not tell.
    #[must_use]
    pub fn has_half_closed(&self) -> bool {
        self.half_closed.get()
    }

    /// Looks whether the client is still there, as far as the system has heard by now. It was sent something when it
    /// closed its half: a client that is gone has answered that by a reset.
    pub fn touch(&self) {
        self.touched.set(true);
    }

    /// Tells the client to open no more streams, and ends the connection with the last one.
    pub fn drain(&self) {
        self.drained.set(true);
    }

    /// Ends the connection now.
    pub fn cut(&self) {
        self.cut.set(true);
    }
}
