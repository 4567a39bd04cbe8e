//! Connects to HTTP services go to a listener in the client's own network namespace, as long as there is one; and what is
//! connected for them is counted at the endpoint. The border to the kernel, without a daemon.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod clients;
mod places;
mod stage;
mod upstreams;
