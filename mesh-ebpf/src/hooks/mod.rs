//! The places where we touch the kernel, one file each.

mod connect4;
mod connect6;
mod getpeername4;
mod getpeername6;
mod iter_tcp;
mod sock_ops;
mod sock_release;
