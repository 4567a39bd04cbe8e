//! What survives a restart: a file with all instances, written as a whole or not at all.

use super::{
    super::stored::{self, Each, Kept},
    entries::Record,
    registration::Registration,
};
use crate::model::LONGEST_NAME;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The version of the format; files of another one are not read.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug)]
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join("registry.json"))
    }

    /// Who was registered; nobody where nothing was written. A file that makes no sense is set aside; whether what it says
    /// of an instance does is still to be judged.
    pub(super) fn read(&self) -> Kept<(String, String, Record)> {
        let records = |stored: Stored<Vec<Each<StoredInstance>>>| (stored.version, stored.instances);
        stored::read(&self.0, VERSION, records, |instance| Ok(instance.record()))
    }

    /// What there is to say about an instance that is left out.
    pub(super) fn left_out(&self, service: &str, id: &str, why: impl fmt::Display) -> String {
        let shown = |name: &str| name.chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect::<String>();
        stored::left_out(&self.0, format_args!("{}/{}: {why}", shown(service), shown(id)))
    }

    /// Writes who is registered.
    ///
    /// # Errors
    /// Why it cannot be written. What was written before is still there.
    pub(super) fn write(&self, records: &[(Arc<str>, Arc<str>, Arc<Record>)]) -> Result<(), String> {
        let mut instances: Vec<_> = records.iter().map(|(service, id, record)| borrowed(service, id, record)).collect();
        instances.sort_by(|a, b| (a.service, a.id).cmp(&(b.service, b.id)));
        stored::write(&self.0, &Stored { version: VERSION, instances })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored<I> {
    version: u32,
    instances: I,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredInstance {
    service: String,
    id: String,
    address: SocketAddr,
    weight: u16,
    zone: String,
    metadata: BTreeMap<String, String>,
    ttl_ms: u64,
    registered_at_ms: u64,
}

#[derive(Serialize)]
struct Borrowed<'a> {
    service: &'a str,
    id: &'a str,
    address: SocketAddr,
    weight: u16,
    zone: &'a str,
    metadata: &'a BTreeMap<String, String>,
    ttl_ms: u64,
    registered_at_ms: u64,
}

fn borrowed<'a>(service: &'a str, id: &'a str, record: &'a Record) -> Borrowed<'a> {
    let Record { registration: Registration { address, weight, zone, metadata, ttl }, registered_at } = record;
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    Borrowed {
        service,
        id,
        address: *address,
        weight: *weight,
        zone,
        metadata,
        ttl_ms,
        registered_at_ms: *registered_at,
    }
}

impl StoredInstance {
    fn record(self) -> (String, String, Record) {
        let Self { service, id, address, weight, zone, metadata, ttl_ms, registered_at_ms } = self;
        let ttl = Duration::from_millis(ttl_ms);
        let registration = Registration { address, weight, zone, metadata, ttl };
        (service, id, Record { registration, registered_at: registered_at_ms })
    }
}
