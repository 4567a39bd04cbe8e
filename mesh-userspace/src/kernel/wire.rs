//! Rows as aya wants them.

/// Lets aya carry any row that bytemuck says is plain bytes.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Wire<T>(pub(super) T);

// SAFETY: `bytemuck::Pod` promises all that `aya::Pod` asks for: no padding, any bit pattern, no pointers.
unsafe impl<T: bytemuck::Pod> aya::Pod for Wire<T> {}
