//! Sizes, each with its reason.

/// A service is laid out in at most this many slots, or [`SLOTS_PER_ENDPOINT`] for each endpoint if that is more.
///
/// Weights that do not fit are rounded: a share is off by at most 1 in this many (0.025 %), and no endpoint with a
/// weight above 0 loses its last slot. 32 KiB a service at most, for weights as awkward as 1 : 65535.
pub const SLOTS_PER_SERVICE: u32 = 4096;

/// See [`SLOTS_PER_SERVICE`].
pub const SLOTS_PER_ENDPOINT: u32 = 8;
