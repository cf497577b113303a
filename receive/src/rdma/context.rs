//! An open RDMA device, as the kernel keeps it for a program.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use devmem_provider::{Error, Result};
use nix::errno::Errno;

use super::device::Device;
use super::driver_data;
use super::refusal::RegistrationRefusal;
use super::sys::{Argument, call};
use super::uapi::{ALLOC_PD_BYTES, ALLOC_PD_RESP_BYTES, DRIVER_IDS, attr, command, driver, method, object};

/// A context: what a program has of an RDMA device. Closed when the last that was made of it is dropped, and the kernel
/// frees then what is left of it.
#[derive(Debug)]
pub(super) struct Context {
    file: File,
    driver: u32,
    device: Device,
}

impl Context {
    /// Opens a device.
    pub(super) fn open(device: &Device) -> Result<Arc<Self>> {
        const OPERATION: &str = "open the RDMA device";
        let Some(node) = &device.node else {
            return Err(RegistrationRefusal::NoUserAccess.error(OPERATION, device, None));
        };
        let file = OpenOptions::new().read(true).write(true).open(node).map_err(|error| {
            let errno = error.raw_os_error().map(Errno::from_raw);
            let refusal = errno.map_or(RegistrationRefusal::Other, RegistrationRefusal::of_open);
            refusal.error(format!("{OPERATION} by {}", node.display()), device, errno)
        })?;
        let driver = driver_of(&file).ok_or_else(|| {
            RegistrationRefusal::NeedsLibrary.error(
                "find the number of its driver",
                device,
                Some(Errno::EINVAL),
            )
        })?;
        let context = Self { file, driver, device: device.clone() };
        let request = driver_data::for_context(driver);
        let mut answer = [0; driver_data::ANSWER_BYTES];
        let mut arguments = Vec::from([Argument::Output(attr::UHW_OUT, &mut answer)]);
        if !request.is_empty() {
            arguments.push(Argument::Input(attr::UHW_IN, &request));
        }
        context
            .call(object::DEVICE, method::GET_CONTEXT, &mut arguments)
            .map_err(|errno| context.refused(errno, "get a context"))?;
        Ok(Arc::new(context))
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Calls a method.
    pub(super) fn call(
        &self,
        object: u16,
        method: u16,
        arguments: &mut [Argument<'_>],
    ) -> std::result::Result<(), Errno> {
        call(self.file.as_fd(), self.driver, object, method, arguments)
    }

    /// Calls one of the commands that are older than methods.
    pub(super) fn command(
        &self,
        command: u64,
        request: &[u8],
        answer: &mut [u8],
    ) -> std::result::Result<(), Errno> {
        let mut driver_answer = [0; driver_data::ANSWER_BYTES];
        let arguments = &mut [
            Argument::Input(attr::CORE_IN, request),
            Argument::Output(attr::CORE_OUT, answer),
            Argument::U64(attr::WRITE_CMD, command),
            Argument::Output(attr::UHW_OUT, &mut driver_answer),
        ];
        self.call(object::DEVICE, method::INVOKE_WRITE, arguments)
    }

    /// Makes a protection domain; its handle.
    pub(super) fn allocate_domain(&self) -> Result<u32> {
        let mut handle = [0; ALLOC_PD_RESP_BYTES];
        self.command(command::ALLOC_PD, &[0; ALLOC_PD_BYTES], &mut handle)
            .map_err(|errno| self.refused(errno, "make a protection domain"))?;
        Ok(u32::from_ne_bytes(handle))
    }

    /// Makes a channel of the device's events.
    pub(super) fn event_channel(&self) -> Result<OwnedFd> {
        const OPERATION: &str = "make a channel of events";
        let mut descriptor = None;
        let mut arguments = [Argument::NewDescriptor(attr::ASYNC_EVENT_ALLOC_FD_HANDLE, &mut descriptor)];
        self.call(object::ASYNC_EVENT, method::ASYNC_EVENT_ALLOC, &mut arguments)
            .map_err(|errno| self.refused(errno, OPERATION))?;
        descriptor.ok_or_else(|| self.refused(Errno::EPROTO, OPERATION))
    }

    fn refused(&self, errno: Errno, operation: &'static str) -> Error {
        RegistrationRefusal::of_object(errno).error(operation, &self.device, Some(errno))
    }
}

/// The number of a device's driver, which every call names: the kernel answers `EINVAL` to any other, and only then looks
/// for the method.
fn driver_of(file: &File) -> Option<u32> {
    // Those that are wanted most, first.
    let known = [driver::MLX5, driver::EFA];
    known.into_iter().chain(DRIVER_IDS).find(|&number| {
        call(file.as_fd(), number, object::DEVICE, method::NONE, &mut []) == Err(Errno::EPROTONOSUPPORT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdma::sysfs;
    use crate::rdma::sysfs::tests::Recording;

    fn efa(node: Option<&str>) -> Device {
        let [mut device] = sysfs::devices(Recording::with_efa().root()).unwrap().try_into().unwrap();
        device.node = node.map(Into::into);
        device
    }

    #[test]
    fn a_node_that_is_missing_is_told_from_one_that_the_kernel_does_not_offer() {
        use devmem_provider::ErrorKind;
        for (node, expected) in [
            (None, RegistrationRefusal::NoUserAccess),
            (Some("/nonexistent/uverbs0"), RegistrationRefusal::MissingNode),
        ] {
            let error = Context::open(&efa(node)).unwrap_err();
            assert_eq!(RegistrationRefusal::of(&error), Some(expected), "{error}");
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.remedy_text().is_some(), "{error}");
        }
    }

    #[test]
    fn another_device_is_no_rdma_device() {
        let error = Context::open(&efa(Some("/dev/null"))).unwrap_err();
        assert_eq!(RegistrationRefusal::of(&error), Some(RegistrationRefusal::NeedsLibrary), "{error}");
    }
}
