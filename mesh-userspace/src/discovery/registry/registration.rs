//! What may be registered.

use crate::model;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Instances of all services together.
pub const MAX_INSTANCES: usize = 100_000;
/// Bytes of the metadata of one instance, keys and values.
pub const MAX_METADATA: usize = 64 << 10;
/// Entries of the metadata of one instance.
pub const MAX_ENTRIES: usize = 256;
/// Bytes that the metadata of all instances takes in memory.
pub(super) const MAX_ALL_METADATA: usize = 256 << 20;
/// Bytes that an entry takes besides its texts: two strings in a node of a tree, and what the allocator adds.
const ENTRY: usize = 128;
/// The shortest TTL.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest TTL.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest id, in bytes.
const LONGEST: usize = 253;

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of connections; 0 gets none.
    pub weight: u16,
    /// Its zone; empty: not known.
    pub zone: String,
    /// Whatever it wants others to know.
    pub metadata: BTreeMap<String, String>,
    /// For how long it counts without being heard of: 1 s to 24 h.
    pub ttl: Duration,
}

/// Why an instance is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// Something about it makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Its metadata is too much.
    #[error("metadata: {0}")]
    Metadata(String),
    /// There is no room for it.
    #[error("the registry is full: {0}; deregister instances that are not needed")]
    Full(String),
    /// Nothing is changed for the moment.
    #[error("another daemon is taking over: try again")]
    Frozen,
}

impl Registration {
    /// Bytes that the metadata takes in memory.
    pub(super) fn metadata_size(&self) -> usize {
        self.metadata.iter().map(|(key, value)| key.len() + value.len() + ENTRY).sum()
    }

    /// Whether an instance of `service` with this `id` may say this of itself.
    pub(super) fn check(&self, service: &str, id: &str) -> Result<(), RegistrationError> {
        let invalid = |why: String| Err(RegistrationError::Invalid(why));
        if let Err(bad) = model::check_service_name(service) {
            return invalid(format!("service: {bad}"));
        }
        if !is_id(id) {
            return invalid(format!(
                "id: expected 1 to {LONGEST} printable ASCII characters other than '/', found {id:?}"
            ));
        }
        if let Err(why) = model::check_endpoint(self.address) {
            return invalid(format!("address: {}: {why}", self.address));
        }
        if let Err(expected) = model::check_place(&self.zone) {
            return invalid(format!("zone: expected {expected}"));
        }
        if !(MIN_TTL..=MAX_TTL).contains(&self.ttl) {
            return invalid(format!("ttl: expected 1s to 24h, found {:?}", self.ttl));
        }
        self.check_metadata()
    }

    fn check_metadata(&self) -> Result<(), RegistrationError> {
        let entries = self.metadata.len();
        if entries > MAX_ENTRIES {
            return Err(RegistrationError::Metadata(format!("at most {MAX_ENTRIES} entries, found {entries}")));
        }
        let bytes: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_METADATA {
            let most = MAX_METADATA >> 10;
            let why = format!("at most {most} KiB of keys and values, found {bytes} bytes");
            return Err(RegistrationError::Metadata(why));
        }
        let bad = |text: &str| text.chars().any(char::is_control);
        match self.metadata.iter().find(|(key, value)| bad(key) || bad(value)) {
            Some((key, _)) => {
                let key: String = key.chars().take(LONGEST).collect();
                Err(RegistrationError::Invalid(format!("metadata: {key:?}: expected text without control characters")))
            }
            None => Ok(()),
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}
