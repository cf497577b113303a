//! The ioctl of `/dev/infiniband/uverbs*`, and reading its events.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::uapi::{ATTR_F_MANDATORY, AsyncEventDesc, Attribute, Header, VERBS_IOCTL};

/// The most attributes that a call here has.
const CAPACITY: usize = 12;

/// What the kernel reads in place, not by address.
const INLINE: usize = size_of::<u64>();

/// An argument of a method: its attribute, and what it is.
#[derive(Debug)]
pub(crate) enum Argument<'a> {
    /// A number that the kernel reads.
    U32(u16, u32),
    /// A number that the kernel reads.
    U64(u16, u64),
    /// A descriptor that the kernel reads, of any kind and also one that is not open.
    Descriptor(u16, i32),
    /// Bytes that the kernel reads.
    Input(u16, &'a [u8]),
    /// Bytes that the kernel writes.
    Output(u16, &'a mut [u8]),
    /// A number that the kernel writes.
    OutputU32(u16, &'a mut u32),
    /// An object that exists.
    Handle(u16, u32),
    /// An object that the method makes.
    NewHandle(u16, &'a mut u32),
    /// A descriptor that the method makes.
    NewDescriptor(u16, &'a mut Option<OwnedFd>),
}

#[repr(C)]
struct Message {
    header: Header,
    attributes: [Attribute; CAPACITY],
}

const _: () = assert!(std::mem::offset_of!(Message, attributes) == size_of::<Header>());

/// Calls a method of an object. `driver` must be the device's.
pub(crate) fn call(
    file: BorrowedFd<'_>,
    driver: u32,
    object: u16,
    method: u16,
    arguments: &mut [Argument<'_>],
) -> Result<(), Errno> {
    let count = arguments.len();
    if count > CAPACITY {
        return Err(Errno::E2BIG);
    }
    let mut message = Message {
        header: Header {
            // Less than a page, as there are few attributes.
            length: (size_of::<Header>() + count * size_of::<Attribute>()) as u16,
            object_id: object,
            method_id: method,
            num_attrs: count as u16,
            driver_id: driver,
            ..Header::default()
        },
        attributes: [Attribute::default(); CAPACITY],
    };
    for (attribute, argument) in message.attributes.iter_mut().zip(arguments.iter_mut()) {
        *attribute = argument.attribute()?;
    }
    // A wait of the exporter's may be interrupted; nothing is registered then.
    loop {
        // SAFETY: the header says how many attributes follow it, which are initialised. Each one with an address
        // has it of a slice or number that `arguments` borrows, for reading or exclusively for writing, with its
        // size; the kernel keeps none of them beyond the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), VERBS_IOCTL, &raw mut message) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    for (attribute, argument) in message.attributes.iter().zip(arguments) {
        match argument {
            Argument::NewHandle(_, handle) => **handle = attribute.data as u32,
            Argument::NewDescriptor(_, descriptor) => {
                // SAFETY: the method has succeeded and has opened this descriptor for this call, so that nobody
                // else owns it.
                **descriptor = Some(unsafe { OwnedFd::from_raw_fd(attribute.data as i32) });
            }
            _ => {}
        }
    }
    Ok(())
}

impl Argument<'_> {
    fn attribute(&mut self) -> Result<Attribute, Errno> {
        let with = |attr_id: u16, bytes: usize, data: u64| {
            let len = u16::try_from(bytes).map_err(|_| Errno::E2BIG)?;
            Ok(Attribute { attr_id, len, flags: ATTR_F_MANDATORY, attr_data: 0, data })
        };
        match self {
            Self::U32(id, value) => with(*id, size_of::<u32>(), u64::from(*value)),
            Self::U64(id, value) => with(*id, size_of::<u64>(), *value),
            Self::Descriptor(id, number) => with(*id, size_of::<i32>(), u64::from(number.cast_unsigned())),
            Self::Input(id, bytes) if bytes.len() <= INLINE => {
                let mut data = [0; INLINE];
                data[..bytes.len()].copy_from_slice(bytes);
                with(*id, bytes.len(), u64::from_ne_bytes(data))
            }
            Self::Input(id, bytes) => with(*id, bytes.len(), bytes.as_ptr().expose_provenance() as u64),
            Self::Output(id, bytes) => with(*id, bytes.len(), bytes.as_mut_ptr().expose_provenance() as u64),
            Self::OutputU32(id, value) => {
                with(*id, size_of::<u32>(), std::ptr::from_mut(*value).expose_provenance() as u64)
            }
            Self::Handle(id, handle) => with(*id, 0, u64::from(*handle)),
            Self::NewHandle(id, _) | Self::NewDescriptor(id, _) => with(*id, 0, 0),
        }
    }
}

/// Makes reading a descriptor return at once where there is nothing.
pub(crate) fn set_nonblocking(descriptor: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// The next event of a device; `None` if there is none now.
pub(crate) fn read_event(mut events: &File) -> Result<Option<AsyncEventDesc>, Errno> {
    let mut bytes = [0; size_of::<AsyncEventDesc>()];
    loop {
        match events.read(&mut bytes) {
            Ok(length) if length == bytes.len() => return Ok(Some(AsyncEventDesc::from_bytes(bytes))),
            Ok(_) => return Err(Errno::EPROTO),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}
