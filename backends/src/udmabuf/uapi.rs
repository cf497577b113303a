//! The ioctls of `/dev/udmabuf`, as `linux/udmabuf.h` defines them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{ioctl_write_ptr, request_code_write};

const IOCTL_BASE: u8 = b'u';
const FLAGS_CLOEXEC: u32 = 1;

/// The most parts of one list: the module parameter `list_limit` in its default setting. The kernel
/// judges; this only bounds what we send.
pub(super) const LIST_CAPACITY: usize = 1024;

/// `struct udmabuf_create`.
#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

/// `struct udmabuf_create_item`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CreateItem {
    memfd: u32,
    padding: u32,
    offset: u64,
    size: u64,
}

/// `struct udmabuf_create_list` without its flexible array, which follows it in memory.
#[repr(C)]
struct CreateListHead {
    flags: u32,
    count: u32,
}

/// `struct udmabuf_create_list` with room for as many parts as the kernel takes.
#[repr(C)]
struct CreateList {
    head: CreateListHead,
    items: [CreateItem; LIST_CAPACITY],
}

const _: () = {
    assert!(request_code_write!(IOCTL_BASE, 0x42, size_of::<Create>()) == 0x4018_7542);
    assert!(request_code_write!(IOCTL_BASE, 0x43, size_of::<CreateListHead>()) == 0x4008_7543);
    assert!(size_of::<CreateItem>() == 24);
    assert!(std::mem::offset_of!(CreateList, items) == 8);
};

ioctl_write_ptr!(ioctl_create, IOCTL_BASE, 0x42, Create);
ioctl_write_ptr!(ioctl_create_list, IOCTL_BASE, 0x43, CreateListHead);

/// A range of a memfd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) memfd: RawFd,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// `UDMABUF_CREATE`: the pages of one range as a DMA-buf.
pub(super) fn create(device: BorrowedFd<'_>, range: Range) -> nix::Result<OwnedFd> {
    let memfd = u32::try_from(range.memfd).map_err(|_| Errno::EBADF)?;
    let argument = Create { memfd, flags: FLAGS_CLOEXEC, offset: range.offset, size: range.size };
    // SAFETY: the kernel only reads `argument`, which has the layout asserted above.
    let fd = repeat(|| unsafe { ioctl_create(device.as_raw_fd(), &raw const argument) })?;
    // SAFETY: on success the kernel returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `UDMABUF_CREATE_LIST`: the pages of several ranges, one after the other, as one DMA-buf.
pub(super) fn create_list(device: BorrowedFd<'_>, ranges: &[Range]) -> nix::Result<OwnedFd> {
    if ranges.len() > LIST_CAPACITY {
        return Err(Errno::EINVAL);
    }
    let empty = CreateItem { memfd: 0, padding: 0, offset: 0, size: 0 };
    let count = u32::try_from(ranges.len()).map_err(|_| Errno::EINVAL)?;
    let mut list = Box::new(CreateList {
        head: CreateListHead { flags: FLAGS_CLOEXEC, count },
        items: [empty; LIST_CAPACITY],
    });
    for (item, range) in list.items.iter_mut().zip(ranges) {
        let memfd = u32::try_from(range.memfd).map_err(|_| Errno::EBADF)?;
        *item = CreateItem { memfd, padding: 0, offset: range.offset, size: range.size };
    }
    let argument = (&raw const *list).cast::<CreateListHead>();
    // SAFETY: the pointer is to the whole list, so that the `count` items the kernel reads behind the
    // head are inside it; the kernel only reads.
    let fd = repeat(|| unsafe { ioctl_create_list(device.as_raw_fd(), argument) })?;
    // SAFETY: on success the kernel returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn repeat(mut call: impl FnMut() -> nix::Result<i32>) -> nix::Result<i32> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_uapi_check::{Header, layouts};

    #[test]
    fn the_kernel_headers_agree() {
        Header::new("linux/udmabuf.h")
            .value("UDMABUF_FLAGS_CLOEXEC", FLAGS_CLOEXEC)
            .value("UDMABUF_CREATE", request_code_write!(IOCTL_BASE, 0x42, size_of::<Create>()))
            .value("UDMABUF_CREATE_LIST", request_code_write!(IOCTL_BASE, 0x43, size_of::<CreateListHead>()))
            .values(layouts! {
                Create as "udmabuf_create" { memfd, flags, offset, size }
                CreateItem as "udmabuf_create_item" { memfd, offset, size }
                CreateListHead as "udmabuf_create_list" { flags, count }
            })
            .value(
                "offsetof(struct udmabuf_create_list, list)",
                std::mem::offset_of!(CreateList, items) as u64,
            )
            .assert();
    }
}
