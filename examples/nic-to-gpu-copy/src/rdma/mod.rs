//! The path rdma: the sender's device writes the stream into the receiver's buffer.
//!
//! A stripe travels as the same stream as over TCP: header, payload, digest. It is cut into pieces of one length, of which
//! only the last may be shorter. A TCP connection for each stripe carries everything else:
//!
//! ```text
//! sender                                               receiver
//!   │ ─ Hello: its queue pair, which stripe ──────────→ │  makes a queue pair, posts receives
//!   │ ←───────── Offer: its queue pair, memory, pieces ─ │
//!   │ ═ RDMA write of piece n to place n mod places, ══→ │  n comes along as immediate data
//!   │ ←────────────────────── how many pieces are free ─ │  when nothing reads them any more
//!   │ ─ end of the connection, all writes completed ───→ │
//!   │ ←──────────────── end of the connection, all here ─ │
//! ```
//!
//! Writes may arrive in any order, as those of scalable reliable datagrams do. A completion at the receiver says that the
//! bytes of that piece lie in the buffer. No byte of the stream passes through the receiver's memory but those that it looks
//! at.

mod handshake;
mod receiver;
mod sender;
mod window;

pub(crate) use receiver::Receiver;
pub(crate) use sender::Sender;

use anyhow::Result;
use devmem_receive::rdma::Device;
use devmem_receive::rdma::verbs::Context;

/// The longest piece. Longer ones would wait longer for their turn, and shorter ones cost more completions.
const PIECE: u32 = 1 << 20;

/// The most pieces that are on their way, or that the receiver has not released.
const PLACES: u32 = 32;

/// The device that was named, or the first.
pub(crate) fn open(name: Option<&str>) -> Result<Context> {
    let device = match name {
        Some(name) => Device::find(name)?,
        None => Device::first()?,
    };
    Ok(Context::open(&device)?)
}
