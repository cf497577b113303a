//! The guest's file system: archives that change rarely and one for each run, one after the other.

pub(crate) mod archive;
pub(crate) mod base;
pub(crate) mod cached;
pub(crate) mod libraries;
pub(crate) mod rdma;
pub(crate) mod vulkan;
