//! The guest's file system: an archive that changes rarely and one for each run, one after the other.

pub(crate) mod archive;
pub(crate) mod base;
pub(crate) mod libraries;
