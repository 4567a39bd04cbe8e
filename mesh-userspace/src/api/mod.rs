//! The one door: everything an operator can ask of the daemon, and the shape of every answer.
//!
//! [`Request`] is the daemon's whole surface and [`Door`] is who answers it. HTTP ([`server`]) only translates into it,
//! [`Client`] is the other end, and the command line stands outside and uses nothing else. The types in [`types`] are
//! the contract: fields may be added, what is there stays.

mod admin_socket;
mod client;
mod door;
mod html;
mod line;
mod listen;
mod query;
mod routes;
pub mod server;
mod stream;
mod takeover;
pub mod types;

pub use client::{Client, ClientError};
pub use door::{BoxFuture, Connections, Door, Health, HealthComponent, Kind, Readiness, Refusal, Request, Response};
pub use line::{Line, LineError};
pub use listen::{Addresses, BindError, Inherited, Listeners, SocketFile};
pub use server::serve;
pub use takeover::{Estate, Farewell, Greeting, HandOver, MOST_PASSED, MorePassed, Passed, Ready, RuntimeChange};
pub use types::*;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
