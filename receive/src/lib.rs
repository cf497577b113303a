//! The receive path of a network card into device memory.
//!
//! - [`nic`]: find a NIC, learn what it can do, set it up for receiving into device memory, and put every
//!   setting back exactly as it was, even after the process was killed.
//! - [`devmem`]: devmem TCP, the first receive path: queues bound to a DMA-buf, and [streams](mod@stream) of what arrives.
//! - [`zcrx`]: io_uring zero-copy receive, the second; [`path`]: either of them, chosen by a value.
//! - [`rdma`]: memory regions of RDMA devices, which hold a DMA-buf where peers reach it.
//! - [`netdev`] and [`ethtool`]: the kernel's two interfaces for that, as typed operations.
//! - [`netlink`]: the message layer below both.
//!
//! Everything here speaks to the kernel by system calls, netlink and `ioctl`; no program is executed.
//!
//! ```no_run
//! use std::net::TcpListener;
//!
//! use devmem_provider::{Placement, Request, Require};
//! use devmem_receive::devmem::StreamOptions;
//! use devmem_receive::nic::{Flow, Nic, Plan, Queues};
//! use devmem_receive::stream::Part;
//!
//! # fn enqueue(_: std::ops::Range<u64>) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = devmem_backends::discover().find("0000:03:00.0")?; // or "udmabuf", "dma-heap:system", …
//! let buffer = gpu.allocate(&Request::bytes(64 << 20).prefer(Placement::DeviceLocal))?;
//!
//! let nic = Nic::open("eth1")?.prepare(&Plan::new(Queues::one(), Flow::tcp_port(5201)))?;
//! // Or Require::DeviceLocal; or nic.pin_by(Path::Zcrx, …), and all that follows is the same.
//! let pin = nic.pin(&*buffer, Require::Anywhere)?;
//! println!("{pin}"); // where the memory is, where it was, and how that was seen
//!
//! let listener = TcpListener::bind("10.0.0.1:5201")?;
//! let mut stream = pin.receive(listener.accept()?.0, StreamOptions::default())?;
//! let mut finished = Vec::new();
//! while let Some(parts) = stream.next()? {
//!     for part in parts {
//!         match part {
//!             Part::Fragment(fragment) => {
//!                 enqueue(fragment.range()); // the bytes lie there, in the buffer
//!                 finished.push(fragment);
//!             }
//!             Part::Linear(bytes) => println!("{} bytes came to host memory instead", bytes.len()),
//!         }
//!     }
//!     stream.release(finished.drain(..))?; // when nothing reads them any more: back to the NIC
//! }
//! nic.restore()?; // dropping it restores as well
//! # Ok(())
//! # }
//! ```

mod deadline;
pub mod devmem;
pub mod ethtool;
pub mod netdev;
pub mod netlink;
pub mod nic;
mod parked_packets;
pub mod path;
pub mod rdma;
mod shared_memory;
pub mod stream;
pub mod zcrx;
