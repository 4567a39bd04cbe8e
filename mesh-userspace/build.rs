//! Compiles the eBPF programs and leaves the object at `$OUT_DIR/mesh.bpf.o`, for the crate to embed.

#[path = "../xtask/src/bpf_object.rs"]
mod bpf_object;

use std::process::ExitCode;

fn main() -> ExitCode {
    bpf_object::make("mesh-ebpf", "mesh.bpf.o")
}
