//! Kernel drivers that the distribution has in its kernel's source but does not build.
//!
//! They are built as the distribution would: from its source package, unchanged, with the headers package of the very
//! kernel and the compiler that the kernel was built with. That compiler is the distribution's, unpacked and run from
//! where it lies: the host's may be another one, which does not know the kernel's options.

mod build;
mod programs;
mod source;

pub(crate) use build::build;
pub(crate) use source::extract;

/// A driver in the kernel's source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceDriver {
    /// Its module.
    pub(crate) module: &'static str,
    /// Its folder in the source.
    pub(crate) folder: &'static str,
    /// The option of the kernel's configuration that builds it.
    pub(crate) option: &'static str,
}

/// The driver of Amazon's Elastic Fabric Adapter.
pub(crate) const EFA: SourceDriver =
    SourceDriver { module: "efa", folder: "drivers/infiniband/hw/efa", option: "CONFIG_INFINIBAND_EFA" };
