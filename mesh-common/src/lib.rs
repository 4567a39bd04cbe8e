//! What the kernel programs and the daemon agree on.
//!
//! Two kinds of things live here, and nothing else: **rows** (plain bytes in eBPF maps, one layout
//! for both sides) and **decisions** that both sides run (pure functions over rows). There is no
//! `std`, no aya and no `unsafe`: whatever compiles here compiles for the kernel too, and every
//! decision is tested on the host without a kernel.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
pub mod breaker;
pub mod capture;
pub mod client;
pub mod connection;
pub mod deadline;
pub mod endpoint;
pub mod event;
pub mod histogram;
pub mod limits;
pub mod names;
pub mod reason;
pub mod select;
pub mod service;
pub mod settings;
