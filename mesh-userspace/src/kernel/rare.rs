//! Large rows of counters that few look at.

use super::{KernelError, Pins, error::chain, grow, summed::add, wire::Wire};
use aya::maps::{Array, Map, MapData, MapError};
use bytemuck::Pod;
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

type Table<T> = Array<MapData, Wire<T>>;

/// Rows that are all words of counters. A row costs a system call: mapped, hundreds of bytes for each endpoint there
/// may ever be would count as memory of this process.
pub(super) struct Rare<T: Pod> {
    name: &'static str,
    /// The table of now, then smaller ones before it; a row is the sum of its rows.
    tables: Vec<Mutex<Table<T>>>,
    fd: OwnedFd,
    rows: u32,
}

impl<T: Pod> Rare<T> {
    /// The rows of `now` and of smaller tables before it.
    pub(super) fn new(name: &'static str, now: MapData, pins: Option<&Pins>) -> Result<Self, KernelError> {
        let fd = now.fd().as_fd().try_clone_to_owned().map_err(|e| refuse(name, e.to_string()))?;
        let mut tables = vec![table(name, now)?];
        let earlier = pins.map(|pins| grow::earlier(pins, name)).transpose()?;
        for earlier in earlier.unwrap_or_default() {
            tables.push(table(name, earlier)?);
        }
        let rows = tables.first().map_or(0, Table::len);
        Ok(Self { name, tables: tables.into_iter().map(Mutex::new).collect(), fd, rows })
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
    pub(super) fn read(&self, row: u32) -> T {
        let mut total = T::zeroed();
        for table in &self.tables {
            // A table that was too small has nothing to add beyond its end.
            if let Ok(Wire(more)) = lock(table).get(&row, 0) {
                add(&mut total, &more);
            }
        }
        total
    }

    /// Starts row `row` again at zero. No program may be adding to it.
    pub(super) fn clear(&self, row: u32) {
        for table in &self.tables {
            match lock(table).set(row, Wire(T::zeroed()), 0) {
                Ok(()) | Err(MapError::OutOfBounds { .. }) => {}
                Err(e) => tracing::warn!("a row of {} keeps what it has: {}", self.name, chain(&e)),
            }
        }
    }
}

impl<T: Pod> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables.len();
        f.debug_struct(self.name).field("rows", &self.rows).field("tables", &tables).finish_non_exhaustive()
    }
}

fn table<T: Pod>(name: &str, map: MapData) -> Result<Table<T>, KernelError> {
    Table::try_from(Map::Array(map)).map_err(|e| refuse(name, chain(&e)))
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse(name: &str, why: String) -> KernelError {
    KernelError::Map { map: name.to_owned(), why }
}
