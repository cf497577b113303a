//! XDP programs, which the kernel allows no memory provider beside.

mod sys;

use std::os::fd::OwnedFd;

use devmem_provider::{Error, Result};
use nix::errno::Errno;

/// How often loading is tried again that was interrupted.
const ATTEMPTS: u32 = 5;

/// A program that lets every packet pass.
#[derive(Debug)]
pub(crate) struct XdpProgram(OwnedFd);

/// A program that is attached to an interface. Dropping it detaches, and so does the end of the process.
#[derive(Debug)]
pub(crate) struct AttachedXdp {
    _link: OwnedFd,
}

impl XdpProgram {
    /// Loads a program. It takes packets in several pieces: the kernel allows no other while header split is on
    /// (`dev_xdp_install()`, net/core/dev.c).
    ///
    /// # Errors
    ///
    /// This kernel or this process may not load programs.
    pub(crate) fn that_passes() -> Result<Self> {
        let mut attempts = 0;
        let loaded = loop {
            match sys::load(&sys::PASS) {
                // The verifier gives up where the thread is to be told something (`signal_pending()` in do_check()), as
                // when a ring of io_uring is being closed.
                Err(Errno::EAGAIN) if attempts < ATTEMPTS => attempts += 1,
                result => break result,
            }
        };
        loaded.map(Self).map_err(|errno| {
            Error::from_errno(errno, "load an XDP program").remedy(
                "run as root on a kernel with CONFIG_BPF_SYSCALL that is not locked down; an unprivileged container \
                 lacks CAP_BPF and CAP_NET_ADMIN",
            )
        })
    }

    /// Attaches it between the driver and the stack (generic XDP), which no driver has a say in.
    ///
    /// # Errors
    ///
    /// `EBUSY`: the interface has a memory provider; otherwise what else the kernel objects to.
    pub(crate) fn attach(&self, ifindex: u32) -> std::result::Result<AttachedXdp, Errno> {
        sys::attach(&self.0, ifindex).map(|link| AttachedXdp { _link: link })
    }
}
