//! `/dev/infiniband/uverbs*`: one ioctl with attributes, as `rdma/rdma_user_ioctl_cmds.h`, `rdma/ib_user_ioctl_cmds.h`
//! and `rdma/ib_user_verbs.h` define them.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;

use crate::sys::{Mapping, ioctl};

/// `RDMA_VERBS_IOCTL`.
const VERBS: u64 = 0xc018_1b01;
/// `RDMA_DRIVER_EFA`.
const DRIVER_EFA: u64 = 17;

/// `UVERBS_OBJECT_DEVICE`, and of its methods `UVERBS_METHOD_INVOKE_WRITE` and `UVERBS_METHOD_GET_CONTEXT`.
const DEVICE: u16 = 0;
const INVOKE_WRITE: u16 = 0;
const GET_CONTEXT: u16 = 3;
/// `UVERBS_OBJECT_CQ` and `UVERBS_METHOD_CQ_CREATE`: the older command is not there for drivers that, as EFA's since
/// Linux 7.3, have only `create_user_cq`.
const COMPLETION_QUEUE: u16 = 3;
const COMPLETION_QUEUE_CREATE: u16 = 0;
/// `UVERBS_OBJECT_MR`, and of its methods `UVERBS_METHOD_MR_DESTROY` and `UVERBS_METHOD_REG_DMABUF_MR`.
const REGION: u16 = 7;
const REGION_DESTROY: u16 = 1;
const REGION_OF_DMA_BUF: u16 = 4;

/// `UVERBS_ATTR_UHW_IN` and `UVERBS_ATTR_UHW_OUT`: what the driver's own library adds.
const DRIVER_IN: u16 = 0x1000;
const DRIVER_OUT: u16 = 0x1001;

/// `enum ib_uverbs_write_cmds`.
pub(crate) mod command {
    pub(crate) const ALLOC_PD: u32 = 3;
    pub(crate) const CREATE_AH: u32 = 5;
    pub(crate) const CREATE_QP: u32 = 24;
    pub(crate) const MODIFY_QP: u32 = 26;
}

/// `IB_ACCESS_LOCAL_WRITE`, `IB_ACCESS_REMOTE_WRITE` and `IB_ACCESS_REMOTE_READ`.
pub(crate) mod access {
    pub(crate) const LOCAL_WRITE: u64 = 1;
    pub(crate) const REMOTE_WRITE: u64 = 2;
    pub(crate) const REMOTE_READ: u64 = 4;
}

/// An attribute: a value, or the place of bytes.
#[derive(Clone, Copy)]
struct Attribute {
    id: u16,
    length: u16,
    data: u64,
}

fn value(id: u16, bytes: u16, data: u64) -> Attribute {
    Attribute { id, length: bytes, data }
}

fn place<T>(id: u16, bytes: &mut [T]) -> Attribute {
    Attribute { id, length: size_of_val(bytes) as u16, data: bytes.as_mut_ptr().expose_provenance() as u64 }
}

/// An RDMA device with a protection domain.
pub(crate) struct Device {
    file: File,
    pub(crate) domain: u32,
}

/// A memory region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    handle: u64,
    pub(crate) key: u32,
    pub(crate) remote_key: u32,
}

impl Device {
    pub(crate) fn open(index: usize) -> Device {
        let path = format!("/dev/infiniband/uverbs{index}");
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut device = Device { file, domain: 0 };
        device.call(DEVICE, GET_CONTEXT, &mut []).unwrap();
        let mut domain = [0u32];
        device.write(command::ALLOC_PD, &mut [0u64], &mut domain, None).unwrap();
        [device.domain] = domain;
        device
    }

    fn call(&self, object: u16, method: u16, attributes: &mut [Attribute]) -> Result<(), Errno> {
        let count = attributes.len();
        let header = (24 + 16 * count) as u64
            | u64::from(object) << 16
            | u64::from(method) << 32
            | (count as u64) << 48;
        let mut words = vec![header, 0, DRIVER_EFA];
        for attribute in attributes.iter() {
            // All are mandatory.
            words.push(u64::from(attribute.id) | u64::from(attribute.length) << 16 | 1 << 32);
            words.push(attribute.data);
        }
        ioctl(&self.file, VERBS, &mut words)?;
        for (index, attribute) in attributes.iter_mut().enumerate() {
            attribute.data = words[4 + 2 * index];
        }
        Ok(())
    }

    /// One of the older commands, with what the driver's library adds to it and gets.
    pub(crate) fn write<I, O>(
        &self,
        command: u32,
        input: &mut [I],
        output: &mut [O],
        driver: Option<(&mut [u32], &mut [u32])>,
    ) -> Result<(), Errno> {
        let mut attributes = vec![place(0, input)];
        if !output.is_empty() {
            attributes.push(place(1, output));
        }
        attributes.push(value(2, 8, command.into()));
        if let Some((driver_input, driver_output)) = driver {
            if !driver_input.is_empty() {
                attributes.push(place(DRIVER_IN, driver_input));
            }
            attributes.push(place(DRIVER_OUT, driver_output));
        }
        self.call(DEVICE, INVOKE_WRITE, &mut attributes)
    }

    /// Creates a completion queue without a channel; its handle.
    pub(crate) fn completion_queue(&self, entries: u32, driver: (&mut [u32], &mut [u32])) -> u32 {
        let mut actual = [0u32];
        let mut attributes = [
            value(0, 0, 0),
            value(1, 4, entries.into()),
            // What events shall carry, and on which vector.
            value(2, 8, 0),
            value(4, 4, 0),
            place(6, &mut actual),
            place(DRIVER_IN, driver.0),
            place(DRIVER_OUT, driver.1),
        ];
        self.call(COMPLETION_QUEUE, COMPLETION_QUEUE_CREATE, &mut attributes).unwrap();
        attributes[0].data as u32
    }

    /// Registers a part of a DMA-buf as a region that begins at this address.
    pub(crate) fn register(
        &self,
        buffer: &OwnedFd,
        offset: u64,
        length: u64,
        address: u64,
        access: u64,
    ) -> Result<Region, Errno> {
        let (mut key, mut remote_key) = ([0u32], [0u32]);
        let mut attributes = [
            value(0, 0, 0),
            value(1, 0, self.domain.into()),
            value(2, 8, offset),
            value(3, 8, length),
            value(4, 8, address),
            value(5, 4, u64::from(buffer.as_raw_fd().cast_unsigned())),
            value(6, 4, access),
            place(7, &mut key),
            place(8, &mut remote_key),
        ];
        self.call(REGION, REGION_OF_DMA_BUF, &mut attributes)?;
        Ok(Region { handle: attributes[0].data, key: key[0], remote_key: remote_key[0] })
    }

    pub(crate) fn deregister(&self, region: Region) {
        self.call(REGION, REGION_DESTROY, &mut [value(0, 0, region.handle)]).unwrap();
    }

    /// Maps what a driver's answer has named.
    pub(crate) fn map(&self, key: u64, length: usize) -> Mapping {
        Mapping::new(self.file.as_fd(), key, length)
    }
}
