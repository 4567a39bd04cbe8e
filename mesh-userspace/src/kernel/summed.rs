//! Counters that survive the growth of their table: the table of now, and those that were too small.

use super::{KernelError, mapped::Mapped};
use aya::maps::MapData;
use bytemuck::Pod;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Rows of counters. Programs add to one table; what they added to earlier, smaller ones stays there, and a row is the
/// sum of its rows. Nothing is ever copied, so nothing is lost or counted twice, whoever dies when.
#[derive(Debug)]
pub(super) struct Summed<T> {
    now: Mapped<T>,
    others: RwLock<Vec<Mapped<T>>>,
}

impl<T: Pod> Summed<T> {
    /// The counters of `now` and of smaller tables before it.
    ///
    /// # Errors
    /// As [`Mapped::new`].
    pub(super) fn new(name: &str, now: MapData, earlier: Vec<MapData>) -> Result<Self, KernelError> {
        let others = earlier.into_iter().map(|map| Mapped::new(name, map)).collect::<Result<_, _>>()?;
        Ok(Self { now: Mapped::new(name, now)?, others: RwLock::new(others) })
    }

    /// Adds up these as well, if they are not yet: a daemon that ended early left programs' counts in them.
    ///
    /// # Errors
    /// As [`Mapped::new`].
    pub(super) fn join(&self, name: &str, maps: Vec<MapData>) -> Result<(), KernelError> {
        let id = |map: &MapData| map.info().ok().map(|info| info.id());
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        for map in maps {
            if others.iter().chain([&self.now]).all(|known| id(known.map()) != id(&map)) {
                others.push(Mapped::new(name, map)?);
            }
        }
        Ok(())
    }

    fn others(&self) -> RwLockReadGuard<'_, Vec<Mapped<T>>> {
        self.others.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that programs add to.
    pub(super) fn now(&self) -> &Mapped<T> {
        &self.now
    }

    /// Row `row`; `None` beyond the end.
    pub(super) fn read(&self, row: u32) -> Option<T> {
        let mut total = self.now.read(row)?;
        for more in self.others().iter().filter_map(|table| table.read(row)) {
            add(&mut total, &more);
        }
        Some(total)
    }

    /// Starts row `row` again at zero. No program may be adding to it.
    pub(super) fn clear(&self, row: u32) {
        for table in self.others().iter().chain([&self.now]) {
            table.write(row, &T::zeroed(), 0..size_of::<T>() / size_of::<u64>());
        }
    }
}

/// Adds a row of counters to another, word by word.
pub(super) fn add<T: Pod>(total: &mut T, more: &T) {
    let words = bytemuck::cast_slice_mut::<u8, u64>(bytemuck::bytes_of_mut(total));
    for (word, more) in words.iter_mut().zip(bytemuck::cast_slice::<u8, u64>(bytemuck::bytes_of(more))) {
        *word = word.wrapping_add(*more);
    }
}
