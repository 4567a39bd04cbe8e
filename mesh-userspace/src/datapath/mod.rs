//! From a snapshot of services to rows in the kernel: the plan (pure), and applying it.
//!
//! | file | answers |
//! | --- | --- |
//! | `plan`, `change`, `order` | which writes lead from what lies in the tables to a snapshot, in which order, and what does not fit? |
//! | `lay`, `recipe`, `terms` | how is one service laid out? |
//! | `arena`, `ids` | which slots and rows are free? |
//! | `conditions` | what is known of endpoints besides facts? |
//! | `weights` | what does each endpoint get, here or elsewhere? |
//! | `needs` | how much room do services need? |
//! | `apply`, `circuits`, `owners` | what is done with a plan, and what is learned from the kernel? |
//! | `share` | who would a connect meet, asked of the rows? |

mod apply;
mod arena;
mod change;
mod circuits;
mod conditions;
mod ids;
mod lay;
mod needs;
mod order;
mod owners;
mod plan;
mod recipe;
mod share;
mod terms;
mod weights;

pub use apply::Datapath;
pub use change::{Change, Found, Limits, Plan, Problem};
pub use circuits::Turned;
pub use needs::needs;
pub use plan::Planner;
pub use recipe::Standing;
pub use share::{Share, share, view};
pub use weights::Share as EndpointShare;
