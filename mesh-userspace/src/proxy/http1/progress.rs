//! Where a connection is, for whoever looks from outside whether it takes too long.

use std::cell::Cell;

/// Where a client's connection is. Shared with the future that serves it, which may be waiting.
#[derive(Debug, Default)]
pub struct Progress {
    stage: Cell<Stage>,
    requests: Cell<u64>,
    bytes: Cell<u64>,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The first byte of a request: it may be closed.
    #[default]
    Idle,
    /// The rest of a request's head.
    Head,
    /// The response, and perhaps the rest of the request's body.
    Exchange,
    /// That the response is written.
    Response,
    /// The rest of a body that nobody wants.
    Drain,
}

impl Progress {
    /// What it is waiting for.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Whether no byte of a request is here, and no request is being served.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.stage.get() == Stage::Idle
    }

    /// Requests that began on it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Bytes read and written. Unchanged between two looks: nothing moves.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
    }

    pub(super) fn begin_request(&self) {
        self.requests.set(self.requests.get() + 1);
        self.stage.set(Stage::Exchange);
    }

    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}
