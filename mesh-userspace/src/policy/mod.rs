//! Which endpoints get how much: pure decisions, without kernel, network, clock or chance.
//!
//! | file | answers |
//! | --- | --- |
//! | `tier` | how near is an endpoint? |
//! | `selection` | what is each endpoint's weight, by locality, health, circuits and warmth? |
//! | `warm_up` | how much of its share does an endpoint get that has just come? |
//! | `layout` | in what order do weighted endpoints take turns? |
//! | [`maglev`] | which endpoint does the hash of a client mean? |
//!
//! The results are weights and tables. `datapath` lays them out in slots, from which the kernel picks.

mod layout;
pub mod maglev;
mod selection;
mod tier;
mod warm_up;

pub use layout::{Precision, layout, length};
pub use selection::{Candidate, TRICKLE, Weights, weigh};
pub use tier::{Tier, tier};
pub use warm_up::{WARM, next_step, warmth};
