//! The one door: everything an operator can ask of the daemon, and the shape of every answer.
//!
//! [`Request`] is the daemon's whole surface and [`Door`] is who answers it. HTTP ([`server`]) only translates into it,
//! [`Client`] is the other end, and the command line stands outside and uses nothing else. The types in [`types`] are
//! the contract: fields may be added, what is there stays.

mod admin_socket;
mod client;
mod door;
mod events;
mod feed;
mod host;
mod line;
mod listen;
mod live;
mod logs;
mod page;
mod query;
mod registration;
mod routes;
mod scrape;
pub mod server;
mod strangers;
mod stream;
mod takeover;
mod token;
pub mod types;
mod unique;

pub use client::{Client, ClientError, Events};
pub use door::{
    BoxFuture, Connections, Door, Health, HealthComponent, Kind, Readiness, Refusal, Registration, Request, Response,
    Traces,
};
pub use events::Received;
pub use feed::{Event, Feed, KEPT, Read, Reader, Source as EventSource};
pub use line::{Line, LineError};
pub use listen::{Addresses, BindError, Inherited, Listeners, SocketFile, in_place_of};
pub use live::{Screen, Viewer};
pub use logs::{DEFAULT_LIMIT, DurationBound, FilterError, Logs, Methods, PathPattern, Since, Statuses, TraceStart};
pub use server::{RegistryDoor, serve, serve_registry};
pub use takeover::{
    Discovered, Estate, Farewell, Greeting, HandOver, MOST_PASSED, MorePassed, Passed, Ready, RuntimeChange,
};
pub use types::*;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod registry_tests;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod scrape_tests;
#[cfg(test)]
mod tests;
