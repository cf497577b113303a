//! What the error numbers of DRM drivers mean.

use devmem_provider::{Error, ErrorKind};
use nix::errno::Errno;

/// A DRM ioctl that failed on a node.
///
/// A device that was removed or unbound answers `ENODEV` to every ioctl (`drm_dev_is_unplugged()` in `drm_ioctl()`),
/// or, where its driver wakes it first, `EACCES`, for there is no power management any more (amdgpu). Its node is gone
/// then. A driver that has given its device up answers `EIO` (i915, amdgpu) or `ECANCELED` (xe,
/// `xe_device_wedged()`).
pub(crate) fn failed(errno: Errno, operation: impl Into<String>, node: &std::path::Path) -> Error {
    let error = Error::from_errno(errno, operation.into()).on(node.display());
    match errno {
        _ if errno == Errno::ENODEV || !node.exists() => error
            .with_kind(ErrorKind::Gone)
            .because("the GPU was removed, or its driver unbound")
            .remedy("look for providers again"),
        Errno::EIO | Errno::ECANCELED => error
            .with_kind(ErrorKind::WrongState)
            .because("the driver has declared the GPU wedged: it executes nothing any more")
            .remedy("read the kernel's log; reset the GPU by unbinding and binding its driver, or reboot"),
        Errno::ENOMEM | Errno::ENOSPC | Errno::E2BIG => error
            .with_kind(ErrorKind::OutOfMemory)
            .because("no memory of this sort is left")
            .remedy("ask for less, or free memory"),
        Errno::EACCES | Errno::EPERM => no_permission(error),
        _ => error,
    }
}

/// Adds what helps an ordinary user to a node.
pub(crate) fn no_permission(error: Error) -> Error {
    error.remedy(
        "run as root, or let an administrator add this user to the group that owns the node (\"render\" or \
         \"video\" on most systems)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn an_error_says_what_became_of_the_gpu() {
        let kind = |errno| failed(errno, "allocate", Path::new("/dev/null")).kind();
        assert_eq!(kind(Errno::ENODEV), ErrorKind::Gone);
        assert_eq!(kind(Errno::EIO), ErrorKind::WrongState);
        assert_eq!(kind(Errno::ECANCELED), ErrorKind::WrongState);
        assert_eq!(kind(Errno::ENOSPC), ErrorKind::OutOfMemory);
        assert_eq!(kind(Errno::EACCES), ErrorKind::PermissionDenied);
        let error = failed(Errno::EACCES, "allocate", Path::new("/dev/dri/removed"));
        assert_eq!(error.kind(), ErrorKind::Gone);
    }
}
