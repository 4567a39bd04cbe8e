//! From a snapshot of services to rows in the kernel: the plan (pure), and applying it.

mod apply;
mod arena;
mod circuits;
mod conditions;
mod ids;
mod needs;
mod order;
mod owners;
mod plan;
mod recipe;
mod share;
mod terms;

pub use apply::Datapath;
pub use circuits::Turned;
pub use needs::needs;
pub use plan::{Change, Found, Limits, Plan, Planner, Problem, Share as EndpointShare};
pub use recipe::Standing;
pub use share::{Share, share};
