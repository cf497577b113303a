//! The agent's calls to the system that Rust cannot check.

use std::arch::asm;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::pty::Winsize;
use nix::sys::signal::{SigHandler, Signal, signal};

/// The port of QEMU's device `isa-debug-exit`.
pub(crate) const EXIT_PORT: u16 = 0xf4;

/// Errors instead of the end of the agent, when somebody closes what it writes to.
pub(super) fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal installs no function.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

/// Ends QEMU at once; by a restart, which ends it too, where there is no such device.
pub(super) fn stop_machine() -> ! {
    // SAFETY: plain system call without pointers.
    if unsafe { libc::ioperm(libc::c_ulong::from(EXIT_PORT), 4, 1) } == 0 {
        // SAFETY: the system has granted access to this port, and writing to it touches no memory.
        unsafe { asm!("out dx, al", in("dx") EXIT_PORT, in("al") 0u8, options(nomem, nostack)) };
    }
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    std::process::abort()
}

/// Makes the command, when it starts, the leader of a session whose terminal is its standard input.
pub(super) fn make_session_leader(command: &mut Command) {
    let prepare = || {
        nix::unistd::setsid()?;
        // SAFETY: descriptor 0 is open, and the request takes an integer.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the function makes only system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

pub(super) fn set_window_size(terminal: &File, size: &Winsize) {
    // SAFETY: the request reads one `winsize`, which the reference points to. Without effect on a
    // terminal that has been closed.
    unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
}

/// Takes ownership of a descriptor that the kernel has just put into this process.
pub(super) fn own_received(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the caller got the number in a control message of the kernel, which installed the
    // descriptor for this process; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// A mapping of a whole buffer that devices may write at the same time: bytes are copied in and out,
/// never borrowed.
#[derive(Debug)]
pub(super) struct SharedMapping {
    start: std::ptr::NonNull<libc::c_void>,
    size: usize,
}

impl SharedMapping {
    pub(super) fn new(buffer: &OwnedFd, size: usize) -> nix::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let length = std::num::NonZeroUsize::new(size).ok_or(nix::errno::Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses replaces none.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, buffer, 0)? };
        Ok(Self { start, size })
    }

    fn place(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.size), "within the mapping");
        self.start.as_ptr().cast::<u8>().wrapping_add(offset)
    }

    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        let place = self.place(offset, bytes.len());
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `place` checked that the range lies in the mapping.
            *byte = unsafe { place.add(index).read_volatile() };
        }
    }

    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        let place = self.place(offset, bytes.len());
        for (index, &byte) in bytes.iter().enumerate() {
            // SAFETY: `place` checked that the range lies in the mapping.
            unsafe { place.add(index).write_volatile(byte) };
        }
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own, of this size, and no reference into it exists.
        let _ = unsafe { nix::sys::mman::munmap(self.start, self.size) };
    }
}
