//! RDMA's data path: queue pairs, through the user libraries of rdma-core.
//!
//! The kernel registers memory ([`rdma`](super)), but posting requests and taking completions are a matter between a
//! program and its device, in a form that each driver has its own of. rdma-core has a provider for every one of them,
//! and its library `libibverbs` one interface for all ("verbs"). This module is that interface made safe. It is there
//! with the cargo feature `rdma-core`.
//!
//! # The library is opened at run time
//!
//! A program that uses this module starts everywhere, is built with nothing but a linker, and finds out with
//! [`Context::open`] whether the libraries are there: an error says what to install. `libefa` is opened only for EFA
//! devices, whose scalable reliable datagrams ([`Transport`]) no other interface has.
//!
//! The layouts in [`abi`] are our own, and a test compares them with rdma-core's headers where they are installed
//! (`libibverbs-dev`). The ecosystem keeps `sideway` best, and it was looked at first: it and the `rdma-mummy-sys`
//! below it open the library at run time as well, but are built with cmake and libclang. `rdma-sys` and `ibverbs-sys`
//! link the library and are built with libclang, the second with a copy of rdma-core. What is needed here is 26
//! functions that are exported, four that are found in a table, and two dozen structures, all of a binary interface
//! that rdma-core keeps and versions by symbol. That is less to keep than the requirements of a build would be to
//! everybody. `libloading`, which `ash` uses as well, opens the libraries.
//!
//! # How it is used
//!
//! ```no_run
//! use devmem_provider::{Buffer, Pin, Require};
//! use devmem_receive::rdma::{AccessFlags, Device};
//! use devmem_receive::rdma::verbs::{Context, Endpoint, QueuePairOptions, RemoteMemory, Woken};
//!
//! # fn exchange(_: Endpoint, _: RemoteMemory) -> Endpoint { unimplemented!() }
//! # fn receive(buffer: &dyn Buffer) -> devmem_provider::Result<()> {
//! let context = Context::open(&Device::first()?)?;
//! let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE;
//! let mut domain = context.protection_domain()?.with_access(access);
//! let pin = Pin::new(&mut domain, buffer, Require::DeviceLocal)?;
//!
//! let completions = context.completion_queue(64)?;
//! let pair = domain.queue_pair(&completions, &completions, QueuePairOptions::default())?;
//! pair.receive(0, pin.part(0, 4096)?)?; // taken by the peer's immediate data
//! let _peer = pair.connect(&exchange(pair.endpoint(), pin.remote()))?;
//! if let Woken::Completions(completions) = completions.wait(None, std::time::Duration::from_secs(60))? {
//!     for completion in completions {
//!         let written = completion.ok("receive")?;
//!         println!("{} bytes lie in the buffer, says {:?}", written.bytes, written.immediate);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Objects keep alive what they are made of, and are destroyed in the right order whatever order they are dropped in.

pub mod abi;
mod completion;
mod completion_queue;
mod context;
mod domain;
mod failure;
mod library;
mod queue_pair;
mod region;
mod sys;

pub use completion::{Completed, Completion, CompletionStatus};
pub use completion_queue::{CompletionQueue, Completions, Woken};
pub use context::{Capabilities, Context, Transport};
pub use domain::ProtectionDomain;
pub use failure::VerbsFailure;
pub use queue_pair::{Endpoint, Peer, QueuePair, QueuePairOptions};
pub use region::{HostRegion, MemoryRegion, Part, RemoteMemory};

use std::fs::File;
use std::io::Read;

use devmem_provider::{Error, Result};

/// A number that nobody can guess.
fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::from_io(error, "read a random number").on("/dev/urandom"))?;
    Ok(u32::from_ne_bytes(bytes))
}
