//! Counting the system calls of a thread with the kernel's own counter.
//!
//! The tracepoint `raw_syscalls:sys_enter`, opened with `perf_event_open()`, counts every system call that
//! the calling thread makes. It takes root, or a `perf_event_paranoid` of -1.

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

const TRACEPOINT_IDS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// The first published size of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`), which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config1: u64,
}

const _: () = assert!(size_of::<PerfEventAttributes>() == 64);

/// Counts the system calls of the thread that made it.
#[derive(Debug)]
pub struct SystemCallCounter(File);

impl SystemCallCounter {
    /// Starts to count. `None` where the kernel does not let this user.
    #[must_use]
    pub fn start() -> Option<Self> {
        let id = TRACEPOINT_IDS.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
        let attributes = PerfEventAttributes {
            kind: PERF_TYPE_TRACEPOINT,
            size: u32::try_from(size_of::<PerfEventAttributes>()).ok()?,
            config: id.trim().parse().ok()?,
            ..PerfEventAttributes::default()
        };
        // SAFETY: the attributes have the layout and the size that they state, and are only read. The event
        // is that of the calling thread (0) on any processor (-1), in no group (-1).
        let fd = unsafe {
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)
        };
        let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
        // SAFETY: a new descriptor that nobody else owns.
        Some(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// How many calls were made since the start, that of this question not counted.
    pub fn read(&mut self) -> Option<u64> {
        let mut count = [0; 8];
        self.0.read_exact(&mut count).ok()?;
        // The read itself has been counted when it looks.
        Some(u64::from_ne_bytes(count).saturating_sub(1))
    }
}
