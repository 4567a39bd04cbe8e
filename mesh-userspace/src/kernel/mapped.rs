//! A mmapable array as words in our own memory: no system call a row, and a word is always written whole.

use super::KernelError;
use aya::maps::MapData;
use bytemuck::Pod;
use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

const WORD: usize = size_of::<u64>();

/// All rows of an array map, shared with the kernel.
///
/// Every access is an atomic access to one aligned 64-bit word. Rows of several words are consistent only as far as
/// their writers order the words.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    start: NonNull<AtomicU64>,
    rows: u32,
    bytes: NonZeroUsize,
    /// Keeps the map alive and findable; the mapping alone would keep its memory, but not its name.
    map: MapData,
    row: PhantomData<T>,
}

// SAFETY: the mapping is shared with the kernel anyway; all access to it is atomic.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    const WORDS: usize = size_of::<T>() / WORD;

    /// Maps `map`, whose values are `T`.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the map's values are not of this size; [`KernelError::Io`], if it cannot be mapped.
    pub(super) fn new(name: &str, map: MapData) -> Result<Self, KernelError> {
        const { assert!(size_of::<T>().is_multiple_of(WORD) && size_of::<T>() > 0, "rows are whole words") };
        let refuse = |why: String| KernelError::Map { map: name.to_owned(), why };
        let info = map.info().map_err(|e| refuse(e.to_string()))?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(refuse(format!("its values have {} bytes, not {}", info.value_size(), size_of::<T>())));
        }
        let rows = info.max_entries();
        let bytes =
            NonZeroUsize::new(rows as usize * size_of::<T>()).ok_or_else(|| refuse("it is empty".to_owned()))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            nix::sys::mman::mmap(
                None,
                bytes,
                nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
                nix::sys::mman::MapFlags::MAP_SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|e| KernelError::io(format!("mapping {name}"), io::Error::from(e)))?;
        Ok(Self { start: start.cast(), rows, bytes, map, row: PhantomData })
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// The map behind the words.
    pub(super) fn map(&self) -> &MapData {
        &self.map
    }

    fn words(&self, row: u32) -> Option<&[AtomicU64]> {
        if row >= self.rows {
            return None;
        }
        // SAFETY: inside the mapping, which lives as long as `self`; `mmap` aligns to pages.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(row as usize * Self::WORDS), Self::WORDS) })
    }

    /// Row `row` as it is, word by word; `None` beyond the end.
    pub(super) fn read(&self, row: u32) -> Option<T> {
        let mut value = T::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut value);
        for (chunk, word) in bytes.chunks_exact_mut(WORD).zip(self.words(row)?) {
            chunk.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        Some(value)
    }

    /// Writes row `row`, its words in the given order of positions. Nothing happens beyond the end.
    pub(super) fn write(&self, row: u32, value: &T, order: impl IntoIterator<Item = usize>) {
        let Some(words) = self.words(row) else { return };
        let bytes = bytemuck::bytes_of(value);
        for i in order {
            let mut word = [0; WORD];
            word.copy_from_slice(&bytes[i * WORD..(i + 1) * WORD]);
            words[i].store(u64::from_ne_bytes(word), Ordering::Release);
        }
    }

    /// Writes one word of a row.
    pub(super) fn write_word(&self, row: u32, word: usize, value: u64) {
        if let Some(words) = self.words(row) {
            words[word].store(value, Ordering::Release);
        }
    }

    /// Sets or clears bits of one word of a row, whoever changes other bits of it at the same time.
    pub(super) fn set_bits(&self, row: u32, word: usize, bits: u64, on: bool) {
        if let Some(words) = self.words(row) {
            match on {
                true => words[word].fetch_or(bits, Ordering::AcqRel),
                false => words[word].fetch_and(!bits, Ordering::AcqRel),
            };
        }
    }

    /// Replaces one word of a row, whatever it is; what it was.
    pub(super) fn replace_word(&self, row: u32, word: usize, value: u64) -> u64 {
        self.words(row).map_or(0, |words| words[word].swap(value, Ordering::AcqRel))
    }

    /// Replaces one word of a row, unless it is another one than `old` by now; whether it did.
    pub(super) fn swap_word(&self, row: u32, word: usize, old: u64, new: u64) -> bool {
        let swap = |words: &[AtomicU64]| words[word].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        self.words(row).is_some_and(|words| swap(words).is_ok())
    }

    /// Adds to one word of a row, wrapping; what it was.
    pub(super) fn add_to_word(&self, row: u32, word: usize, value: u64) -> u64 {
        self.words(row).map_or(0, |words| words[word].fetch_add(value, Ordering::AcqRel))
    }

    /// Reads one word of a row; 0 beyond the end.
    pub(super) fn read_word(&self, row: u32, word: usize) -> u64 {
        self.words(row).map_or(0, |words| words[word].load(Ordering::Acquire))
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more.
        let _ = unsafe { nix::sys::mman::munmap(self.start.cast(), self.bytes.get()) };
    }
}
