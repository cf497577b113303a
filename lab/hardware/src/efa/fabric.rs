//! The network between the RDMA devices of a machine: whoever has an address is reached, at once and in order.

use std::sync::{Arc, Mutex, Weak};

use super::Efa;
use super::descriptors::{CompletionStatus, RemoteMemory};
use super::queue_pair::Transport;
use crate::lock;

/// An address of a device, in network byte order.
pub(super) type Gid = [u8; 16];

/// The network.
#[derive(Default)]
pub(crate) struct Fabric {
    devices: Mutex<Vec<(Gid, Weak<Efa>)>>,
}

impl Fabric {
    /// Connects a device.
    pub(super) fn attach(&self, gid: Gid, device: Weak<Efa>) {
        lock(&self.devices).push((gid, device));
    }

    /// The device with an address. The caller holds no lock of a device's state while it uses it.
    pub(super) fn find(&self, gid: Gid) -> Option<Arc<Efa>> {
        let devices = lock(&self.devices);
        let found = devices.iter().find(|(of, _)| *of == gid);
        found.and_then(|(_, device)| device.upgrade())
    }
}

/// What one device has for a queue pair of another.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) source: Gid,
    pub(super) source_queue_pair: u16,
    pub(super) queue_pair: u16,
    pub(super) transport: Transport,
    pub(super) queue_key: u32,
    pub(super) immediate: Option<u32>,
    pub(super) content: Content,
}

/// What a message is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Send(Vec<u8>),
    Write { to: RemoteMemory, data: Vec<u8> },
    Read { from: RemoteMemory },
}

/// What the other device says to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Data(Vec<u8>),
    /// It has no posted receive for it.
    NotReady,
    Refused(CompletionStatus),
}
