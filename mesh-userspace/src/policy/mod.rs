//! Which endpoints get how much, and what becomes of requests: pure decisions, without kernel, network, clock or chance.
//!
//! | file | answers |
//! | --- | --- |
//! | `tier` | how near is an endpoint? |
//! | `selection` | what is each endpoint's weight, by locality, health, circuits and warmth? |
//! | `warm_up` | how much of its share does an endpoint get that has just come? |
//! | `layout` | in what order do weighted endpoints take turns? |
//! | [`maglev`] | which endpoint does the hash of a client mean? |
//! | [`hash`](mod@hash) | what of a request is hashed? |
//! | [`ewma`] | which of two endpoints is likely to answer sooner? |
//! | [`route`] | which route is a request for, and what does that change? |
//! | [`query`] | what does the query of a request say? |
//! | [`rate`] | is one more request within a service's rate? |
//! | [`retry`](mod@retry) | is a request to be tried again, and when? |
//! | [`success_rate`] | do too few of an endpoint's requests succeed? |
//! | [`timeout`] | when is a request too late? |
//!
//! For connections the results are weights and tables, which `datapath` lays out in slots, from which the kernel picks.
//! For requests `proxy` asks for each of them; what is counted for that is shared by its workers, and takes no lock.

pub mod ewma;
pub mod hash;
mod layout;
pub mod maglev;
pub mod query;
pub mod rate;
pub mod retry;
pub mod route;
mod selection;
pub mod success_rate;
mod tier;
pub mod timeout;
mod warm_up;
mod window;

pub use ewma::Ewma;
pub use hash::hash;
pub use layout::{Precision, layout, length};
pub use rate::Bucket;
pub use retry::{Again, Budget, Failure, backoff, is_idempotent, verdict as retry};
pub use route::{CompiledRoute, Router, hits};
pub use selection::{Candidate, TRICKLE, Weights, weigh};
pub use success_rate::SuccessRate;
pub use tier::{Tier, tier};
pub use warm_up::{WARM, next_step, warmth};
