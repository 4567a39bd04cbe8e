//! The registry of this node: who registered, and is still heard of.
//!
//! It promises that an instance counts from its registration until it is deregistered or not heard of for its TTL, on a
//! clock that only goes forward; that a daemon which starts knows whom the one before it knew, each with its whole TTL
//! from then on; and that a heartbeat costs a look into two tables, and nothing else.
//!
//! | file | question |
//! | --- | --- |
//! | `registration` | what may be registered? |
//! | `entries` | who is registered at a moment? (pure) |
//! | `registrar` | how do those who register, the source and the file share it? |
//! | `source` | who is told? |
//! | `file` | what survives a restart? |

mod entries;
mod file;
mod registrar;
mod registration;
mod source;
#[cfg(test)]
mod tests;

pub use entries::{Listed, Put};
pub use registrar::{Made, Registrar};
pub use registration::{MAX_ENTRIES, MAX_INSTANCES, MAX_METADATA, MAX_TTL, MIN_TTL, Registration, RegistrationError};
