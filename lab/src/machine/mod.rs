//! A virtual machine that runs one command.

mod accelerator;
mod builder;
mod emulator;
mod guest_files;
mod hardware;
mod kernel_log;
mod outcome;
mod run;
mod session;
mod sys;
mod topology;
mod workspace;

pub use accelerator::Accelerator;
pub use builder::{Input, Machine, Streams};
pub(crate) use emulator::Program;
pub use kernel_log::{Finding, KernelLog};
pub use outcome::{Ending, KERNEL_FAILURE, LAB_FAILURE, Outcome, TIMED_OUT};
pub use topology::Topology;
