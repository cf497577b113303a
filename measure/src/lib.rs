//! What code costs, measured from outside of it: system calls by the kernel's own counter, allocations by the
//! allocator, processor time by the kernel's clock.

pub mod allocations;
pub mod cpu_time;
mod system_calls;

pub use system_calls::SystemCallCounter;
