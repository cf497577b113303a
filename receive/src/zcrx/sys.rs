//! The system calls of io_uring that the `io-uring` crate has no sound or no form of.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;

use super::uapi::{
    AREA_DMABUF, Area, CONTROL_ARM_EVENT, CONTROL_EXPORT, CONTROL_FLUSH, Control, Events, QUERY_EVENTS,
    QUERY_ZCRX, QueryEvents, QueryHeader, QueryZcrx, Queue, REGION_USER, REGISTER_CONTROL, REGISTER_IMPORT,
    REGISTER_QUERY, REGISTER_QUEUE, Region,
};
use crate::shared_memory::SharedMemory;

/// A ring with completions of 32 bytes.
pub(crate) type RawRing = IoUring<squeue::Entry, cqueue::Entry32>;

/// `io_uring_register()`.
///
/// # Safety
///
/// `argument` must be what `operation` takes: the kernel reads and writes there, and follows the addresses in it.
unsafe fn register<T>(ring: i32, operation: u32, argument: &mut T, count: u32) -> Result<i32, Errno> {
    // SAFETY: the caller answers for the argument, which is borrowed exclusively for the call.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring, operation, std::ptr::from_mut(argument), count)
    };
    Errno::result(result).map(|result| i32::try_from(result).unwrap_or(i32::MAX))
}

/// What a query may be answered with: plain numbers, of which zero is one that older kernels mean.
trait Answer: Default {
    const OPERATION: u32;
}

impl Answer for QueryZcrx {
    const OPERATION: u32 = QUERY_ZCRX;
}

impl Answer for QueryEvents {
    const OPERATION: u32 = QUERY_EVENTS;
}

fn query<T: Answer>() -> Result<T, Errno> {
    let mut answer = T::default();
    let mut header = QueryHeader {
        data: std::ptr::from_mut(&mut answer) as u64,
        operation: T::OPERATION,
        size: size_of::<T>() as u32,
        ..QueryHeader::default()
    };
    // SAFETY: the header is what this operation takes, and it names the answer with its size. Any bytes are a
    // valid answer: both types are made of integers.
    unsafe { register(-1, REGISTER_QUERY, &mut header, 0)? };
    match header.result {
        0 => Ok(answer),
        number => Err(Errno::from_raw(number.saturating_neg())),
    }
}

/// What zero-copy receive can do in this kernel.
pub(crate) fn query_zcrx() -> Result<QueryZcrx, Errno> {
    query()
}

/// Which events zero-copy receive has in this kernel.
pub(crate) fn query_events() -> Result<QueryEvents, Errno> {
    query()
}

/// What a queue receives into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AreaMemory<'memory> {
    /// All of a DMA-buf, of so many bytes.
    DmaBuf(BorrowedFd<'memory>, u64),
    /// All of some memory of this process.
    Host(&'memory SharedMemory),
}

/// Registers a receive queue, with `refill` for its refill ring. The kernel completes `queue` and `events` stay as
/// they are. Returns the area's token.
pub(crate) fn register_queue(
    ring: BorrowedFd<'_>,
    queue: &mut Queue,
    memory: AreaMemory<'_>,
    refill: &SharedMemory,
    mut events: Option<Events>,
) -> Result<u64, Errno> {
    let mut area = match memory {
        AreaMemory::DmaBuf(dma_buf, length) => Area {
            length,
            flags: AREA_DMABUF,
            dmabuf: dma_buf.as_raw_fd().cast_unsigned(),
            ..Area::default()
        },
        AreaMemory::Host(memory) => {
            Area { address: memory.address(), length: memory.length() as u64, ..Area::default() }
        }
    };
    let mut region = Region {
        address: refill.address(),
        size: refill.length() as u64,
        flags: REGION_USER,
        ..Region::default()
    };
    queue.area = std::ptr::from_mut(&mut area) as u64;
    queue.region = std::ptr::from_mut(&mut region) as u64;
    queue.events = events.as_mut().map_or(0, |events| std::ptr::from_mut(events) as u64);
    // SAFETY: the queue is what this operation takes, and names structures that live until it returns, which the
    // kernel does not keep. Region and host area are memory for sharing, whose pages the kernel holds as long as
    // it needs them.
    unsafe { register(ring.as_raw_fd(), REGISTER_QUEUE, queue, 1)? };
    Ok(area.token)
}

/// Registers a receive queue with a DMA-buf, as it is asked for: the area's flags say DMA-buf, and of `refill` no more
/// than `region_bytes` are told of. Whatever else is in it the kernel checks.
pub(crate) fn register_raw_queue(
    ring: BorrowedFd<'_>,
    queue: &mut Queue,
    area: Area,
    refill: &SharedMemory,
    region_bytes: u64,
    region_flags: u32,
) -> Result<(), Errno> {
    let mut area = Area { flags: area.flags | AREA_DMABUF, ..area };
    let mut region = Region {
        address: refill.address(),
        size: region_bytes.min(refill.length() as u64),
        flags: region_flags,
        ..Region::default()
    };
    queue.area = std::ptr::from_mut(&mut area) as u64;
    queue.region = std::ptr::from_mut(&mut region) as u64;
    queue.events = 0;
    // SAFETY: as in `register_queue()`. The kernel takes the area for a DMA-buf whatever the other members say, so that it
    // touches no memory of this process but the region's, which is not told to be larger than it is.
    unsafe { register(ring.as_raw_fd(), REGISTER_QUEUE, queue, 1).map(drop) }
}

/// Registers a queue that another ring shares. Returns its number in this ring.
pub(crate) fn import_queue(ring: BorrowedFd<'_>, shared: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut queue =
        Queue { interface: shared.as_raw_fd().cast_unsigned(), flags: REGISTER_IMPORT, ..Queue::default() };
    // SAFETY: the queue is what this operation takes, and names no other memory.
    unsafe { register(ring.as_raw_fd(), REGISTER_QUEUE, &mut queue, 1)? };
    Ok(queue.id)
}

fn control(ring: BorrowedFd<'_>, control: &mut Control) -> Result<(), Errno> {
    // SAFETY: the control is what this operation takes, and names no other memory.
    unsafe { register(ring.as_raw_fd(), REGISTER_CONTROL, control, 0).map(drop) }
}

/// Lets the kernel take what is in the refill ring.
pub(crate) fn flush_refill(ring: BorrowedFd<'_>, queue: u32) -> Result<(), Errno> {
    control(ring, &mut Control { queue, operation: CONTROL_FLUSH, ..Control::default() })
}

/// A descriptor by which other rings can share a queue.
pub(crate) fn export_queue(ring: BorrowedFd<'_>, queue: u32) -> Result<OwnedFd, Errno> {
    let mut export = Control { queue, operation: CONTROL_EXPORT, ..Control::default() };
    control(ring, &mut export)?;
    // SAFETY: the kernel has just opened this descriptor for this call, so that nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(export.argument.cast_signed()) })
}

/// Lets an event be told again.
pub(crate) fn arm_event(ring: BorrowedFd<'_>, queue: u32, event: u32) -> Result<(), Errno> {
    control(ring, &mut Control { queue, operation: CONTROL_ARM_EVENT, argument: event, ..Control::default() })
}

/// The descriptor of a ring.
pub(crate) fn descriptor<S, C>(ring: &IoUring<S, C>) -> BorrowedFd<'_>
where
    S: squeue::EntryMarker,
    C: cqueue::EntryMarker,
{
    // SAFETY: the ring keeps its descriptor open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
}

/// The NAPI instance that polled the last packet of a socket; 0 if there was none yet.
pub(crate) fn incoming_napi(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut napi: u32 = 0;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the number.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_NAPI_ID,
            (&raw mut napi).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| napi)
}

/// At once: the wait that it ends is one that has already come to its end.
static AT_ONCE: types::Timespec = types::Timespec::new();

/// Asks to receive everything that comes over a socket. Returns whether there was room for the request.
///
/// What arrives completes with `user_data`, and so does the end. A wait for many completions would not notice an
/// end that is only one more, so that a timeout of no time is linked behind it, which wakes every waiter
/// (`io_should_wake()` in `io_uring/wait.c`) and completes with `wake_data`.
pub(crate) fn push_receive(
    ring: &mut RawRing,
    socket: BorrowedFd<'_>,
    queue: u32,
    user_data: u64,
    wake_data: u64,
) -> bool {
    let receive = opcode::RecvZc::new(types::Fd(socket.as_raw_fd()), 0)
        .ifq(queue)
        .build()
        .flags(squeue::Flags::IO_HARDLINK)
        .user_data(user_data);
    let wake = opcode::Timeout::new(&raw const AT_ONCE).build().user_data(wake_data);
    // SAFETY: the first request names no memory, the second one that is never freed. The descriptor is a number,
    // which the kernel looks up by itself.
    unsafe { ring.submission().push_multiple(&[receive, wake]).is_ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_or_refused() {
        // Kernels before 6.17 do not know the question; those that do know at least one flag.
        match query_zcrx() {
            Ok(answer) => assert_ne!((answer.refill_header_size, answer.area_flags), (0, 0)),
            Err(errno) => assert!(
                [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EPERM, Errno::EBADF]
                    .contains(&errno),
                "{errno}"
            ),
        }
    }
}
