//! What code costs, measured from outside of it: system calls by the kernel's own counter, allocations by the
//! allocator.

pub mod allocations;
mod system_calls;

pub use system_calls::SystemCallCounter;
