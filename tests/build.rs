//! Compiles the test program of the circuit breaker into `$OUT_DIR/breaker_test.bpf.o`, for the test to load.

#[path = "../xtask/src/bpf_object.rs"]
mod bpf_object;

use std::process::ExitCode;

fn main() -> ExitCode {
    bpf_object::make("breaker_test", "breaker_test.bpf.o")
}
