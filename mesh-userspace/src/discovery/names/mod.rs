//! A DNS server for the names of services: their VIPs for whoever dials by name, and a forwarder for the rest.
//!
//! | file | question |
//! | --- | --- |
//! | `table` | which service has a name? |
//! | `answer` | what is the answer to a question? |
//! | `forward` | what do other servers answer? |
//! | `server` | who asks, and how is it said? |

mod answer;
mod forward;
mod server;
mod table;

pub use server::Server;
pub use table::Table;
