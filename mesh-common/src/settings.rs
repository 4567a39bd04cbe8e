//! What the daemon tells every hook: one row, words that are written whole.

use bytemuck::{Pod, Zeroable};

/// The one row of the settings table. Written by the daemon only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// A set of [`flags`].
    pub flags: u64,
    /// `SO_MARK` of the daemon's own upstream sockets, which pass untouched; 0 for none.
    pub mark: u64,
}

/// Bits of [`Settings::flags`].
pub mod flags {
    /// Every hook passes everything untouched.
    pub const BYPASS: u64 = 1;
    /// Count what would be translated, translate nothing.
    pub const OBSERVE: u64 = 2;
}
