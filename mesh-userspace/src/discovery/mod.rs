//! Where facts come from besides the configuration files.
//!
//! Each source watches what it knows and tells it as [`Update`]s; the [`Reducer`] joins them with what the files say to
//! the services of the node, and is the one place that merges, keeps what a lost source said last, and holds back what is
//! hard to believe. Sources know nothing of each other.
//!
//! | file | question |
//! | --- | --- |
//! | `update` | what can a source say? |
//! | `reducer` | which services follow from all that was said? |
//! | `merge` | which endpoints has a service that several sources know? |
//! | `owners` | whose is an address that two services want? |
//! | `pool` | which address gets a service that has none? |
//! | `vips` | which addresses were given before the daemon started? |
//! | `cache` | what was known before the daemon started? |
//! | `names` | what are the VIPs of a name? |
//! | `direct` | how are sources reached, past the hooks? |
//! | `own` | where does this daemon answer names itself? |
//! | `dns` | who serves a service by names of the DNS? |
//! | `kubernetes` | what does the API of a Kubernetes cluster say? |
//! | `stored` | how does a file outlive the daemon? |
//! | `settings` | what can be configured? |
//! | `etcd` | what does an etcd cluster know? |
//! | `registry` | who registered at this node? |

mod cache;
mod direct;
mod dns;
pub mod etcd;
pub mod kubernetes;
mod merge;
mod names;
mod own;
mod owners;
mod pool;
mod reducer;
pub mod registry;
mod settings;
mod stored;
mod update;
mod vips;

pub use cache::{Cache, Known};
pub use direct::Direct;
pub use dns::run as watch_dns;
pub use names::{Server as NameServer, Table as NameTable};
pub use own::Own;
pub use pool::Given;
pub use reducer::{Describe, Drawn, Place, Reducer, SourceState};
pub use settings::{Etcd, Kubernetes, Names, Registry, Resolve};
pub use stored::{Kept, Trouble};
pub use update::{Change, Description, Instance, Said, Source, Teller, Update};
pub use vips::Vips;
