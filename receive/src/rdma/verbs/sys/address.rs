//! Address handles: whom datagrams are for.

use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi;
use super::{Domain, object};

/// The way to a peer's device.
pub(crate) struct AddressHandle {
    domain: Arc<Domain>,
    pub(super) pointer: NonNull<abi::AddressHandle>,
}

// SAFETY: as a context.
unsafe impl Send for AddressHandle {}
// SAFETY: as above.
unsafe impl Sync for AddressHandle {}

impl AddressHandle {
    pub(crate) fn create(
        domain: &Arc<Domain>,
        mut attributes: abi::AddressHandleAttributes,
    ) -> Result<Self, Errno> {
        let create = domain.context.verbs.create_ah;
        // SAFETY: a protection domain, and a structure that is read.
        let pointer = object(unsafe { create(domain.pointer.as_ptr(), &raw mut attributes) })?;
        Ok(Self { domain: Arc::clone(domain), pointer })
    }
}

impl Drop for AddressHandle {
    fn drop(&mut self) {
        // SAFETY: an address handle that no request will name any more.
        let _ = unsafe { (self.domain.context.verbs.destroy_ah)(self.pointer.as_ptr()) };
    }
}
