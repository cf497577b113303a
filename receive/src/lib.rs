//! The receive path of a network card into device memory.
//!
//! - [`nic`]: find a NIC, learn what it can do, set it up for receiving into device memory, and put every
//!   setting back exactly as it was, even after the process was killed.
//! - [`netdev`] and [`ethtool`]: the kernel's two interfaces for that, as typed operations.
//! - [`netlink`]: the message layer below both.
//!
//! Everything here speaks to the kernel by netlink and `ioctl`; no program is executed.
//!
//! ```no_run
//! use devmem_receive::nic::{Flow, Nic, Plan, Queues};
//!
//! let prepared = Nic::open("eth1")?.prepare(&Plan::new(Queues::one(), Flow::tcp_port(5201)))?;
//! println!("packets for port 5201 arrive on queues {:?}", prepared.queues());
//! let report = prepared.restore()?; // dropping it restores as well
//! assert!(report.is_complete());
//! # Ok::<(), devmem_provider::Error>(())
//! ```

pub mod devmem;
pub mod ethtool;
pub mod netdev;
pub mod netlink;
pub mod nic;
pub mod stream;
