//! Execution of the commands in the control queue.

use super::Gpu;
use super::commands::{self, BlobMemory, Command, Failure, Request, Success};
use super::resources::Resources;

impl Gpu {
    /// Executes a request and gives the answer.
    pub(super) fn execute(&self, resources: &mut Resources, request: &[u8]) -> Vec<u8> {
        let (request, command) = Request::parse(request);
        let outcome = match command {
            Some(command) => self.outcome(resources, request, command),
            None => {
                self.misuse(format_args!("command {:#x} is unknown or cut short", request.number()));
                Err(Failure::Unspecified)
            }
        };
        self.trace(format_args!("{command:?} of context {}: {outcome:?}", request.context()));
        commands::answer(request, &outcome)
    }

    fn outcome(
        &self,
        resources: &mut Resources,
        request: Request<'_>,
        command: Command,
    ) -> Result<Success, Failure> {
        let id = request.resource(command);
        match command {
            Command::GetDisplayInfo => return Ok(Success::DisplayInfo),
            Command::ResourceCreate2d | Command::ResourceCreate3d => resources.create_guest(id, 0)?,
            Command::ResourceUnref => resources.unref(id)?,
            Command::ResourceFlush => resources.check_resource(id)?,
            // Nothing displays or draws from what a transfer would bring.
            Command::TransferToHost2d | Command::TransferToHost3d | Command::TransferFromHost3d => {
                resources.check_backing(id)?;
            }
            Command::ResourceAttachBacking => {
                let bytes = self.backing(request, command)?;
                resources.set_backing(id, bytes)?;
            }
            Command::ResourceDetachBacking => resources.set_backing(id, 0)?,
            Command::ResourceCreateBlob => self.create_blob(resources, request, id)?,
            Command::ResourceMapBlob => {
                resources.map(id, request.map_offset())?;
                return Ok(Success::MapInfo);
            }
            Command::ResourceUnmapBlob => resources.unmap(id)?,
            Command::ContextCreate if request.context_capset() != 0 => return Err(Failure::InvalidParameter),
            Command::ContextCreate => resources.create_context(request.context())?,
            Command::ContextDestroy => resources.destroy_context(request.context())?,
            Command::ContextAttachResource | Command::ContextDetachResource => {
                resources.check_context(request.context())?;
                resources.check_resource(id)?;
            }
            // There is no renderer, and only an empty stream of commands is executed.
            Command::Submit3d if request.stream_size() != 0 => return Err(Failure::Unspecified),
            Command::Submit3d => resources.check_context(request.context())?,
            Command::SetScanout | Command::SetScanoutBlob => return Err(Failure::InvalidScanout),
            // No set of capabilities has such a number.
            Command::GetCapsetInfo | Command::GetCapset => return Err(Failure::InvalidParameter),
            // The features were not offered, or it is the other queue's command.
            Command::GetEdid | Command::ResourceAssignUuid | Command::UpdateCursor | Command::MoveCursor => {
                return Err(Failure::Unspecified);
            }
        }
        Ok(Success::NoData)
    }

    fn create_blob(&self, resources: &mut Resources, request: Request<'_>, id: u32) -> Result<(), Failure> {
        match request.blob_memory().ok_or(Failure::InvalidParameter)? {
            // Every number of a blob in a context names new memory.
            BlobMemory::Device => {
                resources.check_context(request.context())?;
                resources.create_device(id, request.blob_size())
            }
            BlobMemory::Guest | BlobMemory::DeviceGuest => {
                let bytes = self.backing(request, Command::ResourceCreateBlob)?;
                if bytes < request.blob_size() {
                    return Err(Failure::InvalidParameter);
                }
                resources.create_guest(id, bytes)
            }
        }
    }

    /// Bytes of the driver's memory that a request tells of; all of it must be within reach.
    fn backing(&self, request: Request<'_>, command: Command) -> Result<u64, Failure> {
        let entries = request.entries(command).ok_or(Failure::InvalidParameter)?;
        let mut bytes = 0u64;
        for (address, length) in entries {
            let last = address.checked_add(u64::from(length.max(1)) - 1).ok_or(Failure::InvalidParameter)?;
            for end in [address, last] {
                if let Err(error) = self.memory.read(end, &mut [0]) {
                    self.misuse(format_args!("memory of resource {}: {error}", request.resource(command)));
                    return Err(Failure::InvalidParameter);
                }
            }
            bytes += u64::from(length);
        }
        Ok(bytes)
    }
}
