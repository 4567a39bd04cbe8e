//! The node daemon: see `docs/architecture.md` for how the layers fit together.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod discovery;
pub mod health;
pub mod kernel;
pub mod model;
pub mod policy;
pub mod proxy;
pub mod telemetry;
pub mod text;
