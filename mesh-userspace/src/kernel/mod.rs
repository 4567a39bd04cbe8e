//! The kernel's side of the daemon: programs, links, pins, tables. The only place that knows aya and `bpf(2)`.
//!
//! This layer knows what a row is, not what a service means: it speaks mesh-common rows, `std` types and
//! [`KernelError`].

mod attach;
mod btf;
mod cgroups;
mod diag;
mod error;
mod grow;
mod host;
mod live;
mod load;
mod mapped;
mod namespaces;
mod offsets;
mod pins;
mod put_back;
mod runs;
mod summed;
mod sys;
mod tables;
mod times;
mod versions;
mod wire;

pub use cgroups::CgroupPaths;
pub use error::KernelError;
pub use host::{cgroup2_root, ensure_bpffs, missing_capabilities, open_cgroup};
pub use live::{Connection, Live};
pub use load::{Capacity, Kernel, MAX_BYPASSED, MapStatus, Options, ProgramStatus, load, program_stats};
pub use namespaces::{Namespace, namespaces};
pub use pins::{Pins, unload};
pub use tables::{Existing, Tables};
pub use versions::retire;

/// The eBPF object that this binary was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh.bpf.o"));
