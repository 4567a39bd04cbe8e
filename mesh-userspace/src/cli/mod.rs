//! The command line: what the user typed, and what it prints. It stands outside the door and uses nothing but
//! [`api`](crate::api); only `main` exits.
//!
//! [`parse`] understands every command of the contract. Those that need no daemon are `main`'s to dispatch, the rest is
//! for [`execute`]. Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 daemon not reachable.

mod args;
mod command;
mod execute;
mod output;
mod rates;
mod table;
mod units;
mod views;
mod watch;

pub use command::{ClientCommand, Command, Show, parse};
pub use execute::{execute, report};

#[cfg(test)]
mod tests;
