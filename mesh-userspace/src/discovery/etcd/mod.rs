//! A prefix of an etcd cluster: who serves what, as JSON under `PREFIX/SERVICE/INSTANCE`.
//!
//! The source lists the prefix at one revision and watches from the next one. After a lost connection it goes on where it
//! was, if etcd's history is still the one it knows; else it lists again.
//!
//! | file | question |
//! | --- | --- |
//! | `wire` | what do we say to etcd, byte by byte? |
//! | `client` | how is one thing asked of one member? |
//! | `members` | which member is asked, as whom, and when again? |
//! | `record` | what does a key with its value say? |
//! | `known` | what do all keys together say? |
//! | `list` | what stands under the prefix, and is it still the same? |
//! | `watch` | what changed since? |
//! | `registrar` | how does an instance come in, stay, and go? |

mod client;
mod known;
mod list;
mod members;
mod record;
mod registrar;
mod watch;
mod wire;

pub use record::{Record, check_id, check_service};
pub use registrar::{Lease, Registrar, Registration};
pub use watch::run;
