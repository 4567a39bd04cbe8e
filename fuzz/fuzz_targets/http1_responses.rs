//! Whatever an endpoint sends: no panic, no endless loop.
#![no_main]

use mesh_userspace::proxy::http1::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::responses(bytes);
});
