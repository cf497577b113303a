//! The numbers that every DRM driver's ioctls are made of (`include/uapi/drm/drm.h`).

/// `DRM_IOCTL_BASE`.
pub(crate) const BASE: u8 = b'd';

/// `DRM_COMMAND_BASE`: the first number that is a driver's own.
pub(crate) const COMMAND: u8 = 0x40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drm::headers;

    #[test]
    fn the_kernel_headers_agree() {
        headers::drm("drm.h")
            .value("DRM_IOCTL_BASE", BASE)
            .value("DRM_COMMAND_BASE", COMMAND)
            .value("DRM_CAP_PRIME", drm_ffi::DRM_CAP_PRIME)
            .assert();
    }
}
