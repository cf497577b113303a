//! Vulkan.

mod errors;
mod import;
mod memory_properties;
mod sys;
mod usage;

/// The backend's name.
pub const NAME: &str = "vulkan";
