//! The command line: what the user typed, and what it prints. It stands outside the door and uses nothing but
//! [`api`](crate::api); only `main` exits.
//!
//! [`parse`] understands every command of the contract. Those that need no daemon are `main`'s to dispatch, the rest is
//! for [`execute`]. Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 daemon not reachable.

mod args;
mod command;
mod events;
mod execute;
mod follow;
mod keep;
mod output;
mod rates;
mod register;
mod table;
mod top;
mod units;
mod views;
mod watch;

pub use command::{ClientCommand, Command, Show, parse};
pub use execute::{execute, report};
pub use output::harmless_lines;
pub use register::{Deregister, EtcdOptions, Register};

/// Every command with its options and what they do: for the reference, and for manual pages.
#[must_use]
pub fn definition() -> clap::Command {
    <args::Arguments as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests;
