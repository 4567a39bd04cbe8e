//! What the kernel does to a connection. One file a hook in `hooks/`, each a thin entry over the plain functions here.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "core has no read-modify-write atomics on this target, only the intrinsics")]
#![feature(core_intrinsics)]

mod account;
mod atomic;
mod capture;
mod choose;
mod circuit;
mod deadline;
mod hooks;
mod maps;
mod refusal;
mod sock;
mod translate;

/// Programs that the verifier accepts cannot panic; the compiler wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are only for GPL-compatible programs; the kernel reads this section.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
