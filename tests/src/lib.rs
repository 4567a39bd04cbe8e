//! The harness: throw-away cgroups and network namespaces, the real `mesh` binary, backends that say who they are,
//! clients that are children of a cgroup, and readers for what the daemon says of itself.
//!
//! A test begins with [`world!`], which skips it loudly where the machine cannot run it:
//!
//! ```ignore
//! let world = world!();
//! let b1 = world.backend("B1", "10.1.0.1:8080");
//! let mesh = world.daemon(json!([service("web", &["10.96.0.10:80"], &["10.1.0.1:8080"])]));
//! assert_eq!(world.ask("10.96.0.10:80").unwrap(), "B1");
//! ```
//!
//! Nothing here moves the test's own process or threads into the cgroup: a socket belongs to the cgroup and the
//! network namespace of the task that creates it, so one small child creates the clients' sockets and the test
//! takes them over. That keeps tests right both as threads of one process and as a process each.
#![allow(clippy::expect_used, clippy::panic, reason = "in a harness a broken expectation is a failed test")]

pub mod ask;
pub mod backend;
pub mod bpffs;
pub mod browser;
pub mod certificates;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod collector;
pub mod container;
pub mod daemon;
pub mod dns;
pub mod etcd;
pub mod hammer;
pub mod haproxy;
pub mod http;
pub mod image;
pub mod kernel;
pub mod kube;
pub mod load;
pub mod machine;
pub mod manifests;
pub mod metrics;
pub mod netns;
pub mod nginx;
pub mod node;
pub mod poll;
pub mod ports;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod python;
pub mod raw;
pub mod refusal;
pub mod relay;
pub mod scripted;
pub mod seed;
pub mod serve;
pub mod services;
pub mod shape;
pub mod skip;
pub mod sockets;
pub mod tmux;
pub mod tour;
pub mod wire;
pub mod world;

pub use backend::Backend;
pub use browser::Browser;
pub use certificates::Certificates;
pub use cgroup::Cgroup;
pub use cli::Outcome;
pub use client::Client;
pub use collector::Collector;
pub use container::Container;
pub use daemon::Daemon;
pub use dns::DnsServer;
pub use etcd::Etcd;
pub use hammer::Hammer;
pub use haproxy::Haproxy;
pub use image::Image;
pub use kube::Kube;
pub use machine::Machine;
pub use netns::Netns;
pub use nginx::Nginx;
pub use node::{Node, Pod};
pub use poll::{eventually, holds};
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use python::Python;
pub use raw::{Message, Wire, get, post};
pub use relay::Relay;
pub use scripted::{Deaf, Scripted};
pub use seed::seed;
pub use serde_json::{Value, json};
pub use services::{http_service, http_with, service, weighted};
pub use tmux::Terminal;
pub use world::World;
