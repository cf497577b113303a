//! What the client can ask of a function, command by command.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::messages::{Fields, MAXIMUM_DESCRIPTORS, MAXIMUM_TRANSFER};
use super::transport::Message;
use crate::pci::{BAR_COUNT, BarMemory, Function, Interrupts};

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const DEVICE_GET_INFO: u16 = 4;
const DEVICE_GET_REGION_INFO: u16 = 5;
const DEVICE_GET_IRQ_INFO: u16 = 7;
const DEVICE_SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const DEVICE_RESET: u16 = 13;

/// Regions by index: six BARs, expansion ROM, configuration space, VGA (VFIO_PCI_*_REGION_INDEX).
const REGION_COUNT: u32 = 9;
const REGION_CONFIGURATION: u32 = 7;

/// Interrupts by index: INTx, MSI, MSI-X, error, request (VFIO_PCI_*_IRQ_INDEX).
const IRQ_COUNT: u32 = 5;
const IRQ_MSI: u32 = 1;
const IRQ_MSIX: u32 = 2;

const DEVICE_FLAG_RESET: u32 = 1 << 0;
const DEVICE_FLAG_PCI: u32 = 1 << 1;
const REGION_FLAG_READ: u32 = 1 << 0;
const REGION_FLAG_WRITE: u32 = 1 << 1;
const REGION_FLAG_MMAP: u32 = 1 << 2;
const REGION_FLAG_CAPABILITIES: u32 = 1 << 3;
/// A list of the parts of a region that can be mapped (VFIO_REGION_INFO_CAP_SPARSE_MMAP), version 1.
const REGION_CAPABILITY_SPARSE_MMAP: u32 = 1 | 1 << 16;
/// Bytes of what is said of a region, and of the capability with one part.
const REGION_INFO_SIZE: u32 = 32;
const SPARSE_MMAP_SIZE: u32 = 32;
const IRQ_FLAG_EVENTFD: u32 = 1 << 0;
const IRQ_FLAG_NORESIZE: u32 = 1 << 3;
const MAP_FLAG_WRITE: u32 = 1 << 1;
const UNMAP_FLAG_ALL: u32 = 1 << 1;
const SET_DATA_NONE: u32 = 1 << 0;
const SET_DATA_BOOL: u32 = 1 << 1;
const SET_DATA_EVENTFD: u32 = 1 << 2;
const SET_ACTION_TRIGGER: u32 = 1 << 5;

/// Executes a command and appends the payload of its answer to `reply`; returns the descriptor that the
/// answer brings, if any.
///
/// # Errors
/// The error number that the client shall be told.
pub(super) fn execute<'function>(
    function: &'function Function,
    message: &Message,
    reply: &mut Vec<u8>,
) -> Result<Option<BorrowedFd<'function>>, Errno> {
    let mut fields = Fields(&message.payload);
    if message.header.command == DEVICE_GET_REGION_INFO {
        return region_info(function, &mut fields, reply).ok_or(Errno::EINVAL);
    }
    execute_plain(function, message, fields, reply).map(|()| None)
}

fn execute_plain(
    function: &Function,
    message: &Message,
    mut fields: Fields<'_>,
    reply: &mut Vec<u8>,
) -> Result<(), Errno> {
    let done = match message.header.command {
        VERSION => version(&mut fields, reply),
        DMA_MAP => return dma_map(function, fields, &message.descriptors),
        DMA_UNMAP => dma_unmap(function, &mut fields, &message.payload, reply),
        DEVICE_GET_INFO => device_info(reply),
        DEVICE_GET_IRQ_INFO => irq_info(function, &mut fields, reply),
        DEVICE_SET_IRQS => return set_irqs(function, fields, &message.descriptors),
        REGION_READ => region_read(function, &mut fields, reply),
        REGION_WRITE => region_write(function, &mut fields, reply),
        DEVICE_RESET => {
            function.reset();
            Some(())
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    // A field that is missing or a number that names nothing.
    done.ok_or(Errno::EINVAL)
}

fn version(fields: &mut Fields<'_>, reply: &mut Vec<u8>) -> Option<()> {
    let (major, _minor) = (fields.u16()?, fields.u16()?);
    if major != 0 {
        return None;
    }
    reply.extend([0; 4]);
    let capabilities = serde_json::json!({ "capabilities": {
        "max_msg_fds": MAXIMUM_DESCRIPTORS,
        "max_data_xfer_size": MAXIMUM_TRANSFER,
    }});
    reply.extend(capabilities.to_string().bytes());
    reply.push(0);
    Some(())
}

fn dma_map(function: &Function, mut fields: Fields<'_>, descriptors: &[OwnedFd]) -> Result<(), Errno> {
    let mut parse = || {
        let (_argsz, flags) = (fields.u32()?, fields.u32()?);
        Some((flags, fields.u64()?, fields.u64()?, fields.u64()?))
    };
    let (flags, offset, address, size) = parse().ok_or(Errno::EINVAL)?;
    let file = match descriptors {
        [] => None,
        [descriptor] => {
            let copy = descriptor.try_clone().map_err(|error| errno_of(&error))?;
            Some((File::from(copy), offset))
        }
        _ => return Err(Errno::EINVAL),
    };
    let writable = flags & MAP_FLAG_WRITE != 0;
    function.address_space().map(address, size, file, writable).map_err(|error| errno_of(&error))
}

fn dma_unmap(
    function: &Function,
    fields: &mut Fields<'_>,
    request: &[u8],
    reply: &mut Vec<u8>,
) -> Option<()> {
    let (_argsz, flags) = (fields.u32()?, fields.u32()?);
    let (address, size) = (fields.u64()?, fields.u64()?);
    if flags & UNMAP_FLAG_ALL != 0 {
        function.address_space().unmap_all();
    } else {
        function.address_space().unmap(address, size);
    }
    reply.extend(request.get(..24)?);
    Some(())
}

fn device_info(reply: &mut Vec<u8>) -> Option<()> {
    put(reply, &[16, DEVICE_FLAG_RESET | DEVICE_FLAG_PCI, REGION_COUNT, IRQ_COUNT]);
    Some(())
}

fn region_size(function: &Function, region: u32) -> u64 {
    match region {
        REGION_CONFIGURATION => function.configuration_size(),
        _ => function.bar_size(region as usize),
    }
}

/// Tells size and access of a region. A region with memory comes with the memory's descriptor, and if only a
/// part of it is memory, with a capability that says which; a client that left no room for it asks again.
fn region_info<'function>(
    function: &'function Function,
    fields: &mut Fields<'_>,
    reply: &mut Vec<u8>,
) -> Option<Option<BorrowedFd<'function>>> {
    let (room, _flags, region) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if region >= REGION_COUNT {
        return None;
    }
    let size = region_size(function, region);
    let mut flags = if size > 0 { REGION_FLAG_READ | REGION_FLAG_WRITE } else { 0 };
    let memory = bar(region).and_then(|bar| function.bar_memory(bar));
    let part = memory.map(|memory| &memory.range).filter(|range| **range != (0..size));
    let mut needed = REGION_INFO_SIZE;
    let mut capability_at = 0;
    if memory.is_some() {
        flags |= REGION_FLAG_MMAP;
    }
    if part.is_some() {
        flags |= REGION_FLAG_CAPABILITIES;
        needed += SPARSE_MMAP_SIZE;
        capability_at = REGION_INFO_SIZE;
    }
    let fits = room >= needed;
    // QEMU looks at the place of the capability even where it left no room for it.
    put(reply, &[needed, flags, region, capability_at]);
    reply.extend(size.to_ne_bytes());
    reply.extend(0u64.to_ne_bytes());
    if let Some(part) = part.filter(|_| fits) {
        put(reply, &[REGION_CAPABILITY_SPARSE_MMAP, 0, 1, 0]);
        reply.extend(part.start.to_ne_bytes());
        reply.extend((part.end - part.start).to_ne_bytes());
    }
    Some(memory.map(|BarMemory { memory, .. }| memory.memory().file().as_fd()))
}

fn irq_info(function: &Function, fields: &mut Fields<'_>, reply: &mut Vec<u8>) -> Option<()> {
    let (_argsz, _flags, index) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if index >= IRQ_COUNT {
        return None;
    }
    let count = if Some(index) == irq_index(function) { function.vectors().count() as u32 } else { 0 };
    put(reply, &[16, IRQ_FLAG_EVENTFD | IRQ_FLAG_NORESIZE, index, count]);
    Some(())
}

/// By which kind of interrupt the function interrupts.
fn irq_index(function: &Function) -> Option<u32> {
    match function.interrupts() {
        Interrupts::None => None,
        Interrupts::Msi => Some(IRQ_MSI),
        Interrupts::Msix(_) => Some(IRQ_MSIX),
    }
}

/// Connects vectors to descriptors. Without any the vectors named are disconnected; a count of zero
/// means all of them.
fn set_irqs(function: &Function, mut fields: Fields<'_>, descriptors: &[OwnedFd]) -> Result<(), Errno> {
    let mut parse = || {
        let (_argsz, flags) = (fields.u32()?, fields.u32()?);
        Some((flags, fields.u32()?, fields.u32()? as usize, fields.u32()? as usize))
    };
    let (flags, index, start, count) = parse().ok_or(Errno::EINVAL)?;
    if index >= IRQ_COUNT || flags & SET_DATA_BOOL != 0 || flags & SET_ACTION_TRIGGER == 0 {
        return Err(Errno::EINVAL);
    }
    if Some(index) != irq_index(function) {
        return if descriptors.is_empty() { Ok(()) } else { Err(Errno::EINVAL) };
    }
    let vectors = function.vectors().count();
    let mut events = Vec::new();
    if flags & SET_DATA_EVENTFD != 0 && !descriptors.is_empty() {
        if descriptors.len() != count {
            return Err(Errno::EINVAL);
        }
        for descriptor in descriptors {
            events.push(Some(event(descriptor)?));
        }
    } else if flags & (SET_DATA_EVENTFD | SET_DATA_NONE) != 0 {
        let count = if count == 0 { vectors.saturating_sub(start) } else { count };
        if count > vectors {
            return Err(Errno::EINVAL);
        }
        events.resize_with(count, || None);
    }
    function.set_vectors(start, events).map_err(|_| Errno::EINVAL)
}

/// The descriptor of a vector, set so that signalling it never waits.
fn event(descriptor: &OwnedFd) -> Result<File, Errno> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    descriptor.try_clone().map(File::from).map_err(|error| errno_of(&error))
}

/// Offset, region and byte count of an access.
fn access(fields: &mut Fields<'_>) -> Option<(u64, u32, u32)> {
    let access = (fields.u64()?, fields.u32()?, fields.u32()?);
    (access.2 as usize <= MAXIMUM_TRANSFER).then_some(access)
}

fn region_read(function: &Function, fields: &mut Fields<'_>, reply: &mut Vec<u8>) -> Option<()> {
    let (offset, region, count) = access(fields)?;
    reply.extend(offset.to_ne_bytes());
    put(reply, &[region, count]);
    let start = reply.len();
    reply.resize(start + count as usize, 0);
    let into = &mut reply[start..];
    let done = match region {
        REGION_CONFIGURATION => function.read_configuration(offset, into),
        _ => function.read_bar(bar(region)?, offset, into),
    };
    done.ok()
}

fn region_write(function: &Function, fields: &mut Fields<'_>, reply: &mut Vec<u8>) -> Option<()> {
    let (offset, region, count) = access(fields)?;
    let data = fields.bytes(count as usize)?;
    let done = match region {
        REGION_CONFIGURATION => function.write_configuration(offset, data),
        _ => function.write_bar(bar(region)?, offset, data),
    };
    reply.extend(offset.to_ne_bytes());
    put(reply, &[region, count]);
    done.ok()
}

fn bar(region: u32) -> Option<usize> {
    usize::try_from(region).ok().filter(|bar| *bar < BAR_COUNT)
}

fn put(reply: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| reply.extend(word.to_ne_bytes()));
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
