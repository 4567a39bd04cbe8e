//! The kernel's side of the daemon: programs, links, pins, tables. The only place that knows aya and `bpf(2)`.
//!
//! This layer knows what a row is, not what a service means: it speaks mesh-common rows, `std` types and
//! [`KernelError`].

mod attach;
mod btf;
mod capture;
mod cgroups;
mod circuits;
mod diag;
mod error;
mod events;
mod grow;
mod host;
mod live;
mod load;
mod loaded;
mod mapped;
mod memory;
mod namespaces;
mod netns;
mod offsets;
mod others;
mod pinned;
mod pins;
mod places;
mod probe_rows;
mod programs;
mod put_back;
mod rare;
mod runs;
mod shapes;
mod status;
mod summed;
mod sys;
mod tables;
mod verbosity;
mod versions;
mod wire;
mod work;

pub use capture::{Family, Listeners, Upstream};
pub use cgroups::CgroupPaths;
pub use error::KernelError;
pub use events::{Endings, Event, Events, Untold};
pub use host::{
    INITS_ROOT, can_mount, cgroup2_root, ensure_bpffs, mark_or_none, missing_capabilities, netns_cookie, on_bpffs,
    open_cgroup,
};
pub use live::{Connection, Live};
pub use load::{Options, adoptable, load, try_load};
pub use loaded::Kernel;
pub use memory::{Allocator, give_back_memory, use_small_pages};
pub use namespaces::{Namespace, is_in, named_namespaces, namespaces, namespaces_in, own_namespace};
pub use netns::{Netns, socket_netns};
pub use offsets::{FieldSeen, fields};
pub use others::{OtherProgram, others_than};
pub use pins::{Pins, unload};
pub use places::{Barred, Captured, Change, Place, Places, Refused};
pub use shapes::{Capacity, MAX_BYPASSED};
pub use status::{MapStatus, ProgramStatus, Verdict};
pub use tables::{Existing, Tables};
pub use versions::retire;
pub use work::Detached;

/// The eBPF object that this binary was built with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh.bpf.o"));
