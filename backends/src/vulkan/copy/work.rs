//! Work that is waited for.

use std::sync::Arc;

use ash::prelude::VkResult;
use devmem_provider::Result;

use super::Shared;
use crate::vulkan::sys::commands::{Commands, Progress, Recording};
use crate::vulkan::sys::device::QueueRole;

/// Records, submits and waits, again and again.
#[derive(Debug)]
pub(crate) struct Work<'shared> {
    shared: &'shared Arc<Shared>,
    operation: &'static str,
    commands: Commands,
    progress: Progress,
}

impl<'shared> Work<'shared> {
    pub(crate) fn new(
        shared: &'shared Arc<Shared>,
        queue: QueueRole,
        operation: &'static str,
    ) -> Result<Self> {
        let failed = |code| shared.failed(code, operation);
        Ok(Self {
            shared,
            operation,
            commands: Commands::new(&shared.device, queue).map_err(failed)?,
            progress: Progress::new(&shared.device).map_err(failed)?,
        })
    }

    /// Lets go of what the work before used.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.commands.clear().map_err(|code| self.shared.failed(code, self.operation))
    }

    /// Does what `record` records, and waits for it. A device that does not end it is lost, and its driver says so.
    pub(crate) fn run(&mut self, record: impl FnOnce(&mut Recording<'_>) -> VkResult<()>) -> Result<()> {
        self.try_run(record).map_err(|code| self.shared.failed(code, self.operation))
    }

    fn try_run(&mut self, record: impl FnOnce(&mut Recording<'_>) -> VkResult<()>) -> VkResult<()> {
        let mut recording = self.commands.record()?;
        record(&mut recording)?;
        recording.finish()?;
        self.commands.submit(&mut self.progress)?;
        self.commands.wait()
    }
}
