//! The compute shaders, written in WGSL and translated to SPIR-V by `naga`; `CONTRIBUTING.md` says how.

#[cfg(test)]
mod tests;

use std::ffi::CStr;

/// An entry point of a shader, and what it is called with.
///
/// Only the ones below exist. What they read and write lies in the buffers of their bindings, or is answered by the
/// driver as for any access outside (`robustBufferAccess`).
#[derive(Debug)]
pub(crate) struct Shader {
    spirv: &'static [u8],
    entry: &'static CStr,
    bindings: u32,
    immediates: u32,
}

impl Shader {
    /// The translated module.
    pub(crate) fn spirv(&self) -> &'static [u8] {
        self.spirv
    }

    pub(crate) fn entry(&self) -> &'static CStr {
        self.entry
    }

    /// How many storage buffers it has, bound from 0 on.
    pub(crate) fn bindings(&self) -> u32 {
        self.bindings
    }

    /// How many words of push constants it takes.
    pub(crate) fn immediates(&self) -> u32 {
        self.immediates
    }
}

/// Makes a contiguous range of fragments. See `gather.wgsl`.
pub(crate) static GATHER: Shader =
    Shader { spirv: include_bytes!("gather.spv"), entry: c"gather", bindings: 4, immediates: 2 };

/// Hashes many pieces. See `sha256.wgsl`.
pub(crate) static SHA256_MANY: Shader =
    Shader { spirv: include_bytes!("sha256.spv"), entry: c"sha256_many", bindings: 4, immediates: 1 };

/// Hashes few pieces. See `sha256.wgsl`.
pub(crate) static SHA256_FEW: Shader =
    Shader { spirv: include_bytes!("sha256.spv"), entry: c"sha256_few", bindings: 4, immediates: 1 };

/// Compares two pieces. See `difference.wgsl`.
pub(crate) static FIRST_DIFFERENCE: Shader = Shader {
    spirv: include_bytes!("difference.spv"),
    entry: c"first_difference",
    bindings: 3,
    immediates: 3,
};

/// The same, with one invocation a workgroup.
pub(crate) static FIRST_DIFFERENCE_ALONE: Shader = Shader {
    spirv: include_bytes!("difference.spv"),
    entry: c"first_difference_alone",
    bindings: 3,
    immediates: 3,
};
