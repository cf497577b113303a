//! The hardware of a lab machine: PCI functions and the network between them, emulated in this process
//! and attached to QEMU over vfio-user.
//!
//! ```text
//!  guest driver ──MMIO── QEMU ──vfio-user socket──▶ pci ──▶ gve ──frames──▶ switch ──▶ gve …
//!       ▲                 │                                  │
//!       └── interrupts ◀──┴── event descriptors ◀────────────┤
//!  guest memory (shared) ◀────────────── bus ◀───────────────┘
//! ```
//!
//! - [`bus`]: guest memory, mapped from the descriptors that QEMU hands over, and memory windows of
//!   emulated devices. All DMA goes through it, so it can tell where every byte went.
//! - `vfio_user`: the protocol server; `pci`: configuration space, BARs and interrupts of a function.
//! - `gpu`: the GPU models; `gve`: the NIC model; `efa`: the RDMA device's; `ethernet`: packets, checksums, segmentation; `switch`: what joins the NICs.
//! - `ground_truth`: where received payload really went, page by page.
//!
//! Guests need nothing but their own drivers. QEMU needs, for every [`PciFunction`], the option
//! `-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"…"}}'`, and guest memory that can be
//! shared: `-object memory-backend-memfd,id=ram,size=…,share=on -machine …,memory-backend=ram`.
//!
//! Nothing a guest or a client writes makes the process panic, wait or grow without bounds. What a
//! driver does wrong is answered as hardware would and can be read from [`Hardware::misuse`].

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::expect_used, clippy::panic))]

pub mod bus;
mod clock;
pub mod config;
pub mod control;
mod efa;
mod ethernet;
mod gpu;
mod ground_truth;
mod gve;
mod hardware;
mod misuse;
mod pci;
mod switch;
mod vfio_user;

pub use config::{ConfigError, HardwareConfig, NicConfig, RdmaConfig, SwitchFaults};
pub use control::{NicFault, Request};
pub use ethernet::MacAddress;
pub use gpu::{Driver, Firmware, GpuConfig, KernelDriver, Part};
pub use hardware::{Error, Hardware, PciFunction};

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks; a thread that panicked with the lock held left nothing that others could not go on with.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for reading, as [`lock`].
fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing, as [`lock`].
fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
