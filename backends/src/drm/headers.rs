//! Where a system has the headers of DRM drivers.

use devmem_uapi_check::Header;

/// What a header of the kernel's `include/uapi/drm` should say: installed in `drm/` by the kernel, in `libdrm/` by
/// libdrm.
pub(crate) fn drm(name: &str) -> Header {
    let of_kernel = Header::new(leak(format!("drm/{name}")));
    let of_libdrm = Header::new(leak(format!("libdrm/{name}")));
    if !of_kernel.is_installed() && of_libdrm.is_installed() { of_libdrm } else { of_kernel }
}

fn leak(path: String) -> &'static str {
    Box::leak(path.into_boxed_str())
}
