//! From a snapshot of services to rows in the kernel: the plan (pure), and applying it.

mod apply;
mod arena;
mod ids;
mod layout;
mod needs;
mod order;
mod owners;
mod plan;

pub use apply::{Datapath, Share, share};
pub use needs::needs;
pub use plan::{Change, Found, Limits, Plan, Planner, Problem};
