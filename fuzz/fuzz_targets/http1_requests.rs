//! Whatever a client sends: no panic, no endless loop, and what is passed on means the same.
#![no_main]

use mesh_userspace::proxy::http1::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::requests(bytes);
    assert!(fuzz::request_is_forwarded_faithfully(bytes));
});
