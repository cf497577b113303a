//! The PCI transport of virtio (Virtual I/O Device 1.2, 4.1): where what is in BAR 0, and the common
//! configuration, with which a driver agrees on features and sets up queues.

use crate::pci::Capability;

/// The BAR of the registers.
pub(super) const BAR_REGISTERS: usize = 0;
/// Bytes of that BAR.
pub(super) const REGISTERS_SIZE: u32 = 0x4000;

/// Where the structures are in the BAR; each has room for a page.
pub(super) mod at {
    pub(crate) const COMMON: u64 = 0x0000;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x1000;
    pub(crate) const DEVICE: u64 = 0x2000;
    pub(crate) const NOTIFY: u64 = 0x3000;
    /// Bytes from one structure to the next.
    pub(crate) const ROOM: u64 = 0x1000;
}

/// Bytes from one queue's notification to the next one's.
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;
/// Bytes of the common configuration.
const COMMON_SIZE: u64 = 56;
/// A vector that means: none.
pub(super) const NO_VECTOR: u16 = 0xffff;
/// Entries that a queue has at most.
pub(super) const QUEUE_SIZE: u16 = 256;

/// Bits of the device status (2.1).
pub(super) mod status {
    pub(crate) const DRIVER_OK: u8 = 1 << 2;
    pub(crate) const FEATURES_OK: u8 = 1 << 3;
    pub(crate) const NEEDS_RESET: u8 = 1 << 6;
}

/// Features of every device (6).
pub(super) mod feature {
    /// Descriptors may be in a table of their own.
    pub(crate) const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
    /// The interface of this specification.
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// Addresses are those that the platform gives to the function: its IOMMU, if any, is in the way.
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// The kinds of structures that a capability points at (4.1.4).
mod kind {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const INTERRUPT_STATUS: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI: u8 = 5;
    pub(super) const SHARED_MEMORY: u8 = 8;
}

/// The capabilities that tell where the structures are: of a device with `device_size` bytes of configuration,
/// and one region of shared memory, number `region`, that is all of a BAR.
///
/// The last one is for firmware that cannot reach the BARs. Its window is there and has no length: nothing that
/// the lab boots needs it.
pub(super) fn capabilities(device_size: u32, region: u8, bar: u8, region_size: u64) -> Vec<Capability> {
    let capability = |kind, id, bar, offset: u64, length: u64, rest: &[u8]| {
        let size = 16 + rest.len() as u8;
        let mut bytes = vec![size, kind, bar, id, 0, 0];
        bytes.extend((offset as u32).to_le_bytes());
        bytes.extend((length as u32).to_le_bytes());
        bytes.extend(rest);
        Capability::Vendor(bytes)
    };
    let multiplier = (NOTIFY_MULTIPLIER as u32).to_le_bytes();
    // The upper halves of offset and length.
    let halves = [[0; 4], ((region_size >> 32) as u32).to_le_bytes()].concat();
    vec![
        capability(kind::COMMON, 0, 0, at::COMMON, COMMON_SIZE, &[]),
        capability(kind::NOTIFY, 0, 0, at::NOTIFY, at::ROOM, &multiplier),
        capability(kind::INTERRUPT_STATUS, 0, 0, at::INTERRUPT_STATUS, at::ROOM, &[]),
        capability(kind::DEVICE, 0, 0, at::DEVICE, device_size.into(), &[]),
        capability(kind::SHARED_MEMORY, region, bar, 0, region_size, &halves),
        capability(kind::PCI, 0, 0, 0, 0, &[0; 4]),
    ]
}

/// A field of the common configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigurationVector,
    QueueCount,
    DeviceStatus,
    ConfigurationGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueDescriptors,
    QueueDriver,
    QueueDevice,
}

use Field::*;

/// The common configuration (4.1.4.3): field, offset, bytes.
const MAP: [(Field, u64, usize); 16] = [
    (DeviceFeatureSelect, 0, 4),
    (DeviceFeature, 4, 4),
    (DriverFeatureSelect, 8, 4),
    (DriverFeature, 12, 4),
    (ConfigurationVector, 16, 2),
    (QueueCount, 18, 2),
    (DeviceStatus, 20, 1),
    (ConfigurationGeneration, 21, 1),
    (QueueSelect, 22, 2),
    (QueueSize, 24, 2),
    (QueueVector, 26, 2),
    (QueueEnable, 28, 2),
    (QueueNotifyOffset, 30, 2),
    (QueueDescriptors, 32, 8),
    (QueueDriver, 40, 8),
    (QueueDevice, 48, 8),
];

/// How a driver set up a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueSetup {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Where the table of descriptors is.
    pub(super) descriptors: u64,
    /// Where the driver says what is available.
    pub(super) driver: u64,
    /// Where the device says what it used.
    pub(super) device: u64,
}

/// What a write to the common configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// The driver wants the state after power-on.
    Reset,
    /// The driver set up a queue, whose number this is.
    QueueEnabled(usize),
}

/// The common configuration of a device.
pub(super) struct Common {
    offered: u64,
    accepted: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    status: u8,
    queue_select: u16,
    vector_count: u16,
    configuration_vector: u16,
    queues: Vec<QueueSetup>,
}

impl Common {
    /// The state after power-on of a device with these features, queues and vectors.
    pub(super) fn new(offered: u64, queues: usize, vector_count: u16) -> Common {
        let setup = QueueSetup {
            size: QUEUE_SIZE,
            vector: NO_VECTOR,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        };
        Common {
            offered,
            accepted: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            status: 0,
            queue_select: 0,
            vector_count,
            configuration_vector: NO_VECTOR,
            queues: vec![setup; queues],
        }
    }

    pub(super) fn queue(&self, index: usize) -> Option<&QueueSetup> {
        self.queues.get(index)
    }

    /// Whether the driver is ready, and the device as well.
    pub(super) fn is_running(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && self.status & status::NEEDS_RESET == 0
    }

    /// Whether the driver accepted a feature.
    pub(super) fn has(&self, feature: u64) -> bool {
        self.accepted & feature == feature
    }

    /// The driver did what the device cannot go on after (2.1.2).
    pub(super) fn needs_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
    }

    /// The vector of changes of the configuration.
    pub(super) fn configuration_vector(&self) -> u16 {
        self.configuration_vector
    }

    /// Reads at an offset of the structure; what no field covers reads as zero.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            let field = MAP.iter().find(|(_, start, size)| (*start..start + *size as u64).contains(&at));
            *byte = field.map_or(0, |(field, start, _)| {
                self.get(*field).to_le_bytes().get((at - start) as usize).copied().unwrap_or(0)
            });
        }
    }

    fn get(&self, field: Field) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of_queue = |get: fn(&QueueSetup) -> u64| queue.map_or(0, get);
        match field {
            DeviceFeatureSelect => self.device_feature_select.into(),
            DeviceFeature => half(self.offered, self.device_feature_select),
            DriverFeatureSelect => self.driver_feature_select.into(),
            DriverFeature => half(self.accepted, self.driver_feature_select),
            ConfigurationVector => self.configuration_vector.into(),
            QueueCount => self.queues.len() as u64,
            DeviceStatus => self.status.into(),
            // The configuration never changes.
            ConfigurationGeneration => 0,
            QueueSelect => self.queue_select.into(),
            QueueSize => of_queue(|queue| queue.size.into()),
            QueueVector => queue.map_or(NO_VECTOR.into(), |queue| queue.vector.into()),
            QueueEnable => of_queue(|queue| queue.enabled.into()),
            QueueNotifyOffset => queue.map_or(0, |_| self.queue_select.into()),
            QueueDescriptors => of_queue(|queue| queue.descriptors),
            QueueDriver => of_queue(|queue| queue.driver),
            QueueDevice => of_queue(|queue| queue.device),
        }
    }

    /// Writes to a field; of addresses also one half alone. `None` when no field is there, or it is not one
    /// that may be written so.
    pub(super) fn write(&mut self, offset: u64, from: &[u8]) -> Option<Asked> {
        let (field, start, size) =
            *MAP.iter().find(|(_, start, size)| (*start..start + *size as u64).contains(&offset))?;
        let within = (offset - start) as usize;
        let whole = within == 0 && from.len() == size;
        let a_half = size == 8 && from.len() == 4 && within.is_multiple_of(4);
        if !whole && !a_half {
            return None;
        }
        let mut bytes = self.get(field).to_le_bytes();
        bytes.get_mut(within..within + from.len())?.copy_from_slice(from);
        self.set(field, u64::from_le_bytes(bytes))
    }

    fn set(&mut self, field: Field, value: u64) -> Option<Asked> {
        let vector = |vector_count: u16| {
            let vector = value as u16;
            if vector < vector_count { vector } else { NO_VECTOR }
        };
        let select = self.queue_select;
        let queue = self.queues.get_mut(usize::from(select));
        match field {
            DeviceFeatureSelect => self.device_feature_select = value as u32,
            DriverFeatureSelect => self.driver_feature_select = value as u32,
            DriverFeature => {
                // Features are settled once the device has said that they are.
                if self.status & status::FEATURES_OK == 0 && self.driver_feature_select < 2 {
                    let shift = self.driver_feature_select * 32;
                    self.accepted = self.accepted & !(0xffff_ffff << shift) | (value & 0xffff_ffff) << shift;
                }
            }
            ConfigurationVector => self.configuration_vector = vector(self.vector_count),
            DeviceStatus => return Some(self.set_status(value as u8)),
            QueueSelect => self.queue_select = value as u16,
            QueueSize => {
                let size = value as u16;
                let queue = queue.filter(|queue| !queue.enabled)?;
                queue.size = Some(size).filter(|size| size.is_power_of_two() && *size <= QUEUE_SIZE)?;
            }
            QueueVector => queue?.vector = vector(self.vector_count),
            QueueEnable => {
                queue.filter(|_| value == 1)?.enabled = true;
                return Some(Asked::QueueEnabled(select.into()));
            }
            QueueDescriptors => queue.filter(|queue| !queue.enabled)?.descriptors = value,
            QueueDriver => queue.filter(|queue| !queue.enabled)?.driver = value,
            QueueDevice => queue.filter(|queue| !queue.enabled)?.device = value,
            DeviceFeature | QueueCount | ConfigurationGeneration | QueueNotifyOffset => return None,
        }
        Some(Asked::Nothing)
    }

    fn set_status(&mut self, new: u8) -> Asked {
        if new == 0 {
            return Asked::Reset;
        }
        let kept = self.status & status::NEEDS_RESET;
        let mut new = new & !status::NEEDS_RESET | kept;
        // The device agrees to what it offered, if the driver knows this version.
        let agreed = self.has(feature::VERSION_1) && self.accepted & !self.offered == 0;
        if self.status & status::FEATURES_OK == 0 && !agreed {
            new &= !status::FEATURES_OK;
        }
        self.status = new;
        Asked::Nothing
    }
}

/// The 32 bits of a set of features that a selector chooses.
fn half(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}
