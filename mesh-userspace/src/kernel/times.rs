//! How long things took at endpoints: large rows that few look at.

use super::{KernelError, Pins, error::chain, grow, wire::Wire};
use aya::maps::{Array, Map, MapData, MapError};
use mesh_common::{endpoint::EndpointTimes, names};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

type Table = Array<MapData, Wire<EndpointTimes>>;

/// The histograms of every endpoint. A row costs a system call: mapped, 320 bytes for each endpoint there may ever be
/// would count as memory of this process.
pub(super) struct Times {
    /// The table of now, then smaller ones before it; a row is the sum of its rows.
    tables: Vec<Mutex<Table>>,
    fd: OwnedFd,
    rows: u32,
}

impl Times {
    /// The histograms of `now` and of smaller tables before it.
    pub(super) fn new(now: MapData, pins: Option<&Pins>) -> Result<Self, KernelError> {
        let fd = now.fd().as_fd().try_clone_to_owned().map_err(|e| refuse(e.to_string()))?;
        let mut tables = vec![table(now)?];
        let earlier = pins.map(|pins| grow::earlier(pins, names::ENDPOINT_TIMES)).transpose()?;
        for earlier in earlier.unwrap_or_default() {
            tables.push(table(earlier)?);
        }
        let rows = tables.first().map_or(0, Table::len);
        Ok(Self { tables: tables.into_iter().map(Mutex::new).collect(), fd, rows })
    }

    /// The map of now.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How many rows the map of now has.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Row `row`; zero beyond the end.
    pub(super) fn read(&self, row: u32) -> EndpointTimes {
        let mut total = EndpointTimes::default();
        for table in &self.tables {
            // A table that was too small has nothing to add beyond its end.
            if let Ok(Wire(times)) = lock(table).get(&row, 0) {
                total.add(&times);
            }
        }
        total
    }

    /// Starts row `row` again at zero. No program may be adding to it.
    pub(super) fn clear(&self, row: u32) {
        for table in &self.tables {
            match lock(table).set(row, Wire(EndpointTimes::default()), 0) {
                Ok(()) | Err(MapError::OutOfBounds { .. }) => {}
                Err(e) => tracing::warn!("a row of {} keeps what it has: {}", names::ENDPOINT_TIMES, chain(&e)),
            }
        }
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Times").field("rows", &self.rows).field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

fn table(map: MapData) -> Result<Table, KernelError> {
    Table::try_from(Map::Array(map)).map_err(|e| refuse(chain(&e)))
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(why: String) -> KernelError {
    KernelError::Map { map: names::ENDPOINT_TIMES.to_owned(), why }
}
