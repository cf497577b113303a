//! Resetting a NIC, as `ethtool --reset` does.

mod sys;

use devmem_provider::{Error, ErrorKind, Result};
use devmem_receive::nic::Nic;
use nix::errno::Errno;

/// Has the driver reset a NIC: what belongs to its interface alone, or with `shared`, for drivers that cannot do
/// that, all of it, which other functions of the same card feel as well.
///
/// # Errors
///
/// [`Unsupported`](ErrorKind::Unsupported): the driver resets nothing on request.
pub(crate) fn reset(nic: &Nic, shared: bool) -> Result<()> {
    let mut result = sys::reset(nic.name(), sys::DEDICATED);
    if shared && matches!(result, Err(Errno::EOPNOTSUPP | Errno::EINVAL)) {
        result = sys::reset(nic.name(), sys::ALL);
    }
    let failed = |errno| Error::from_errno(errno, "reset the NIC").on(nic);
    match result.map_err(failed)? {
        // The driver takes the request and does nothing of what it is for.
        left if left & sys::DEDICATED == sys::DEDICATED => {
            Err(Error::new(ErrorKind::Unsupported, "reset the NIC")
                .on(nic)
                .because("the driver resets nothing"))
        }
        _ => Ok(()),
    }
}
