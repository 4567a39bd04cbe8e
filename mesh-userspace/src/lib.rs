//! The node daemon.

pub mod api;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod kernel;
pub mod model;
