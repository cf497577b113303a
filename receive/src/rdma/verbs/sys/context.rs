//! Devices and protection domains.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi;
use super::super::library::{Efa, Verbs};
use super::{done, object};

/// The library's list of devices.
struct Devices {
    verbs: &'static Verbs,
    list: NonNull<*mut abi::Device>,
    count: usize,
}

impl Devices {
    fn list(verbs: &'static Verbs) -> Result<Self, Errno> {
        let mut count: c_int = 0;
        // SAFETY: the count is written, and nothing else is handed over.
        let list = object(unsafe { (verbs.get_device_list)(&raw mut count) })?;
        Ok(Self { verbs, list, count: usize::try_from(count).unwrap_or(0) })
    }

    /// Each device with its name.
    fn iter(&self) -> impl Iterator<Item = (NonNull<abi::Device>, String)> {
        (0..self.count).filter_map(|index| {
            // SAFETY: the list has so many entries, and lives as long as `self`.
            let device = NonNull::new(unsafe { *self.list.add(index).as_ptr() })?;
            // SAFETY: a device of the list, whose name lives as long as it.
            let name = NonNull::new(unsafe { (self.verbs.get_device_name)(device.as_ptr()) }.cast_mut())?;
            // SAFETY: the library returns a string that ends with zero.
            let name = unsafe { CStr::from_ptr(name.as_ptr()) };
            Some((device, name.to_string_lossy().into_owned()))
        })
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: the list that the library returned, once. A device that was opened stays usable.
        unsafe { (self.verbs.free_device_list)(self.list.as_ptr()) };
    }
}

/// The names of the devices that the library has a provider for.
pub(crate) fn names(verbs: &'static Verbs) -> Result<Vec<String>, Errno> {
    Ok(Devices::list(verbs)?.iter().map(|(_, name)| name).collect())
}

/// An opened device.
pub(crate) struct Context {
    pub(super) verbs: &'static Verbs,
    pub(super) pointer: NonNull<abi::Context>,
}

// SAFETY: the library's objects may be used by any thread, and by several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the device of this name; `None` if the library does not list it.
    pub(crate) fn open(verbs: &'static Verbs, name: &str) -> Result<Option<Self>, Errno> {
        let devices = Devices::list(verbs)?;
        let Some((device, _)) = devices.iter().find(|(_, listed)| listed == name) else { return Ok(None) };
        // SAFETY: a device of a list that is not freed yet.
        let pointer = object(unsafe { (verbs.open_device)(device.as_ptr()) })?;
        Ok(Some(Self { verbs, pointer }))
    }

    pub(crate) fn attributes(&self) -> Result<abi::DeviceAttributes, Errno> {
        let mut attributes = abi::DeviceAttributes::default();
        // SAFETY: an open device, and a structure of the size that the function fills.
        done(unsafe { (self.verbs.query_device)(self.pointer.as_ptr(), &raw mut attributes) })?;
        Ok(attributes)
    }

    pub(crate) fn port(&self, number: u8) -> Result<abi::PortAttributes, Errno> {
        let mut attributes = abi::PortAttributes::default();
        // SAFETY: an open device. The exported function fills the first version of the structure, which is shorter.
        done(unsafe { (self.verbs.query_port)(self.pointer.as_ptr(), number, &raw mut attributes) })?;
        Ok(attributes)
    }

    /// What an EFA device can do. `EOPNOTSUPP` for other devices.
    pub(crate) fn efa_attributes(&self, efa: &Efa) -> Result<abi::EfaDeviceAttributes, Errno> {
        let mut attributes = abi::EfaDeviceAttributes::default();
        let size = size_of::<abi::EfaDeviceAttributes>() as u32;
        // SAFETY: an open device, and a structure of the size that is told.
        done(unsafe { (efa.query_device)(self.pointer.as_ptr(), &raw mut attributes, size) })?;
        Ok(attributes)
    }

    /// The functions of the provider.
    pub(super) fn operations(&self) -> &abi::ContextOperations {
        // SAFETY: an open device. The library writes its table of functions before it returns the device.
        unsafe { &(*self.pointer.as_ptr()).ops }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: everything that was made of it holds it, so that nothing uses it any more.
        let _ = unsafe { (self.verbs.close_device)(self.pointer.as_ptr()) };
    }
}

/// A protection domain.
pub(crate) struct Domain {
    pub(super) context: Arc<Context>,
    pub(super) pointer: NonNull<abi::ProtectionDomain>,
}

// SAFETY: as a context.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    pub(crate) fn allocate(context: &Arc<Context>) -> Result<Self, Errno> {
        // SAFETY: an open device.
        let pointer = object(unsafe { (context.verbs.alloc_pd)(context.pointer.as_ptr()) })?;
        Ok(Self { context: Arc::clone(context), pointer })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: everything that was made of it holds it, so that nothing uses it any more.
        let _ = unsafe { (self.context.verbs.dealloc_pd)(self.pointer.as_ptr()) };
    }
}
