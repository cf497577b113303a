//! Vulkan's functions, made safe: the only place of this backend that calls them.
//!
//! Objects are owned types that destroy themselves and keep their parent alive. Functions return Vulkan's own result
//! code; what it means to a person is added above.

pub(crate) mod commands;
pub(crate) mod copy_memory_indirect;
pub(crate) mod device;
pub(crate) mod instance;
pub(crate) mod loader;
pub(crate) mod mapping;
pub(crate) mod memory;
pub(crate) mod physical_device;
pub(crate) mod pipeline;
pub(crate) mod semaphore;
