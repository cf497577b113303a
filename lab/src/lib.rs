//! A virtual machine with emulated NICs and GPUs, on which unmodified distribution kernels load their
//! real drivers. It needs no root and changes nothing on the host.
//!
//! [`Lab`] fetches QEMU, a kernel and the guest's libraries into a cache folder; [`Machine`] boots them
//! and runs one command; [`Outcome`] tells how that went. The program `devmem-lab` does the same from a
//! command line.
//!
//! # The guest
//!
//! The command runs as root in `/root`, with busybox, `ip`, `ss`, `tc` and `ethtool` at hand. The first
//! NIC is `eth0` with 10.77.0.1/24 and fd77::1/64. The second is `eth1` in the network namespace `peer`
//! with 10.77.0.2 and fd77::2, further ones are in `peer2`, `peer3`…; `in-peer COMMAND…` runs a program
//! there. A program can ask the emulated hardware what it saw: one line of JSON to the socket
//! `/run/devmem-lab.sock`, one line back, or `lab-ask JSON` from a shell. With `{"op":"locate","name":…}` and the
//! descriptor of a DMA-buf, the lab learns where that buffer's memory is.
//!
//! # How a run ends
//!
//! Always: with the command, with the time, or with the guest's kernel. What the kernel's log says about
//! trouble (`WARNING:`, `BUG:`, an oops, a panic, a stall) makes the run fail, and so does a driver that
//! misuses the emulated hardware.

mod cache;
mod child;
mod driver;
mod error;
mod fetch;
mod guest;
mod initramfs;
mod kernel;
mod machine;
mod packages;
mod protocol;
mod test_program;

pub use cache::{CACHE_VARIABLE, Cache};
pub use error::{Error, Result};
pub use fetch::{Lab, ListedKernel, Source};
pub use kernel::Kernel;
pub use kernel::names::Flavour;
pub use machine::{
    Accelerator, Ending, Finding, Input, KERNEL_FAILURE, KernelLog, LAB_FAILURE, Machine, Outcome, Streams,
    TIMED_OUT, Topology,
};
pub use packages::{LinesOnStandardError, NoProgress, Progress};
pub use protocol::message::Exit;
pub use test_program::{TestProgram, test_program};
