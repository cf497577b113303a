//! virtio-gpu with memory of its own that the driver can map: *host-visible* memory.
//!
//! Written after Virtual I/O Device 1.2 (2.7 queues, 4.1 PCI, 5.7 GPU device). The parts, in the order in which
//! a driver meets them:
//!
//! | file | what it is |
//! |---|---|
//! | `transport` | capabilities, and the common configuration |
//! | `queue` | a virtqueue |
//! | `commands` | layout of requests and answers |
//! | `control` | their execution |
//! | `resources` | resources, blobs, and the window |
//!
//! There is no display and no renderer. A blob of the device's memory is what it was made for: the driver exports
//! it as a DMA-buf and gives every importer its bus address in the window, so that a NIC writes right into it.
//!
//! BAR 0 holds the registers, BAR 1 the MSI-X table, which QEMU keeps, and BAR 2 the window.

mod commands;
mod control;
mod queue;
mod resources;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use super::{Connections, Driver, GpuConfig};
use crate::bus::{AddressSpace, DeviceMemory};
use crate::lock;
use crate::misuse::MisuseLog;
use crate::pci::{Bar, BarMemory, Capability, Device, Identity, MsixCapability, Vectors};
use queue::{NOTIFICATION_BYTES, Queue, QueueError};
use resources::Resources;
use transport::{Asked, BAR_REGISTERS, Common, NO_VECTOR, REGISTERS_SIZE, at, feature};

const BAR_WINDOW: usize = 2;
/// The number of the shared memory region that is the window (5.7.3.2).
const REGION_HOST_VISIBLE: u8 = 1;
/// Vectors: for the configuration, and for each queue.
const VECTORS: u16 = 3;
const QUEUES: usize = 2;
const QUEUE_CONTROL: usize = 0;
/// Bytes of the device's configuration: events, their acknowledgement, scanouts and sets of capabilities. All read
/// as zero: nothing ever happens, and there is none of them.
const CONFIGURATION_SIZE: u32 = 16;

/// Features of a GPU device (5.7.3).
const FEATURE_VIRGL: u64 = 1 << 0;
const FEATURE_RESOURCE_BLOB: u64 = 1 << 3;
const FEATURE_CONTEXT_INIT: u64 = 1 << 4;
/// Blobs of the device's memory are a matter of contexts, which come with the first feature.
const FEATURES: u64 = FEATURE_VIRGL
    | FEATURE_RESOURCE_BLOB
    | FEATURE_CONTEXT_INIT
    | feature::INDIRECT_DESCRIPTORS
    | feature::VERSION_1
    | feature::ACCESS_PLATFORM;

pub(super) fn identity(config: &GpuConfig) -> Identity {
    let window = Bar::Memory64 { size: config.window, prefetchable: true };
    let msix = MsixCapability { vectors: VECTORS, bar: 1, table: 0, pending: 0x800 };
    let mut capabilities = vec![Capability::Msix(msix)];
    let bar = BAR_WINDOW as u8;
    capabilities.extend(transport::capabilities(CONFIGURATION_SIZE, REGION_HOST_VISIBLE, bar, config.window));
    Identity {
        vendor: 0x1af4,
        // 0x1040 and the number of the device type.
        device: 0x1040 + 16,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        class: 0x03_8000,
        // A device without the interface before version 1.
        revision: 1,
        bars: [Bar::Memory32(REGISTERS_SIZE), Bar::Memory32(0x1000), window, Bar::None, Bar::None, Bar::None],
        capabilities,
        capabilities_at: 0x40,
        registers: Vec::new(),
    }
}

pub(super) fn drivers(_config: &GpuConfig) -> Vec<Driver> {
    vec![Driver { module: "virtio_gpu", ..Driver::default() }]
}

pub(super) fn build(config: &GpuConfig, connections: Connections) -> io::Result<Arc<dyn Device>> {
    Ok(Arc::new(Gpu::new(config, connections)?))
}

/// A virtio-gpu.
struct Gpu {
    name: String,
    memory: Arc<AddressSpace>,
    vectors: Arc<Vectors>,
    misuse: Arc<MisuseLog>,
    window: Arc<DeviceMemory>,
    state: Mutex<State>,
}

struct State {
    common: Common,
    interrupt_status: u8,
    queues: [Option<Queue>; QUEUES],
    resources: Resources,
}

impl Gpu {
    fn new(config: &GpuConfig, connections: Connections) -> io::Result<Gpu> {
        let Connections { name, memory, vectors, bus, misuse } = connections;
        let window = bus.device_memory(&name, config.window)?;
        let resources = Resources::new(bus.device_memory(&name, config.vram)?, Arc::clone(&window));
        let common = Common::new(FEATURES, QUEUES, VECTORS);
        let queues = [const { None }; QUEUES];
        let state = Mutex::new(State { common, interrupt_status: 0, queues, resources });
        Ok(Gpu { name, memory, vectors, misuse, window, state })
    }

    fn misuse(&self, what: fmt::Arguments<'_>) {
        self.misuse.record(&self.name, what);
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        self.misuse.trace(&self.name, what);
    }

    fn write_common(&self, state: &mut State, offset: u64, from: &[u8]) {
        match state.common.write(offset, from) {
            Some(Asked::Nothing) => {}
            Some(Asked::Reset) => self.reset_state(state),
            Some(Asked::QueueEnabled(index)) => {
                let setup = state.common.queue(index).copied();
                self.trace(format_args!("queue {index} enabled: {setup:?}"));
                if let (Some(queue), Some(setup)) = (state.queues.get_mut(index), setup) {
                    *queue = Some(Queue::new(setup));
                }
            }
            None => {
                let length = from.len();
                self.misuse(format_args!(
                    "{length} bytes written to offset {offset:#x} of the configuration"
                ));
            }
        }
    }

    fn reset_state(&self, state: &mut State) {
        self.trace(format_args!("reset"));
        state.common = Common::new(FEATURES, QUEUES, VECTORS);
        state.interrupt_status = 0;
        state.queues = [const { None }; QUEUES];
        state.resources.clear();
    }

    /// The driver put requests into a queue.
    fn notify(&self, state: &mut State, index: usize) {
        let running = state.common.is_running();
        let Some(mut queue) = state.queues.get_mut(index).filter(|_| running).and_then(Option::take) else {
            return self.misuse(format_args!("notification of queue {index}, which is not in use"));
        };
        match self.serve(state, index, &mut queue) {
            Ok(Some(vector)) => self.signal(vector),
            Ok(None) => {}
            Err(error) => {
                self.misuse(format_args!("queue {index}: {error}"));
                state.common.needs_reset();
                self.signal(state.common.configuration_vector());
            }
        }
        state.queues[index] = Some(queue);
    }

    /// Executes what waits now; what comes later is notified anew. Returns the vector to signal.
    fn serve(&self, state: &mut State, index: usize, queue: &mut Queue) -> Result<Option<u16>, QueueError> {
        let waiting = queue.waiting(&self.memory)?;
        let mut left = NOTIFICATION_BYTES;
        for _ in 0..waiting {
            let chain = queue.take(&self.memory)?;
            left = left.checked_sub(chain.request.len() as u64).ok_or(QueueError::TooMuch)?;
            let answer = if index == QUEUE_CONTROL {
                self.execute(&mut state.resources, &chain.request)
            } else {
                // There is no cursor to be moved, and no answer to that.
                Vec::new()
            };
            queue.answer(&self.memory, &chain, &answer)?;
        }
        if waiting == 0 {
            return Ok(None);
        }
        state.interrupt_status |= 1;
        queue.vector_to_signal(&self.memory)
    }

    fn signal(&self, vector: u16) {
        if vector != NO_VECTOR {
            self.vectors.signal(vector.into());
        }
    }
}

impl Device for Gpu {
    fn read(&self, bar: usize, offset: u64, into: &mut [u8]) {
        into.fill(0);
        if bar != BAR_REGISTERS {
            return;
        }
        let mut state = lock(&self.state);
        match offset / at::ROOM * at::ROOM {
            at::COMMON => state.common.read(offset - at::COMMON, into),
            // Reading it tells and clears.
            at::INTERRUPT_STATUS if offset == at::INTERRUPT_STATUS => {
                let status = std::mem::take(&mut state.interrupt_status);
                into.iter_mut().take(1).for_each(|byte| *byte = status);
            }
            _ => {}
        }
    }

    fn write(&self, bar: usize, offset: u64, from: &[u8]) {
        if bar != BAR_REGISTERS {
            return;
        }
        let mut state = lock(&self.state);
        match offset / at::ROOM * at::ROOM {
            at::COMMON => self.write_common(&mut state, offset - at::COMMON, from),
            at::NOTIFY => {
                let index = (offset - at::NOTIFY) / transport::NOTIFY_MULTIPLIER;
                self.notify(&mut state, index as usize);
            }
            // An event that never happened is acknowledged.
            at::DEVICE => {}
            _ => self.misuse(format_args!("{} bytes written to offset {offset:#x} of BAR 0", from.len())),
        }
    }

    fn memory(&self) -> Vec<BarMemory> {
        let memory = Arc::clone(&self.window);
        vec![BarMemory { bar: BAR_WINDOW, range: 0..memory.memory().len(), memory }]
    }

    fn reset(&self) {
        self.reset_state(&mut lock(&self.state));
    }
}
