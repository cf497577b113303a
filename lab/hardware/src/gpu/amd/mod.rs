//! Placeholder until the model lands.

use std::io;
use std::sync::Arc;

use super::{Connections, Driver, GpuConfig};
use crate::pci::{Bar, Device, Identity};

pub(super) fn identity(_config: &GpuConfig) -> Identity {
    Identity {
        vendor: 0xffff,
        device: 0xffff,
        subsystem_vendor: 0,
        subsystem: 0,
        class: 0x03_8000,
        revision: 0,
        bars: [Bar::None; 6],
        capabilities: Vec::new(),
        capabilities_at: 0x40,
        registers: Vec::new(),
    }
}

pub(super) fn build(_config: &GpuConfig, _connections: Connections) -> io::Result<Arc<dyn Device>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn drivers(_config: &GpuConfig) -> Vec<Driver> {
    Vec::new()
}
