//! The user libraries of rdma-core, opened when they are first needed.
//!
//! They stay open: providers that `libibverbs` has loaded cannot be taken out again.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use devmem_provider::Result;
use libloading::Library;

use super::abi;
use super::failure::VerbsFailure;

/// Names of the libraries. The number is that of their binary interface.
const VERBS: &str = "libibverbs.so.1";
const EFA: &str = "libefa.so.1";

/// What helps where they are missing, or have no provider for a device.
pub(super) const INSTALL: &str = "install rdma-core's user libraries: the packages libibverbs1 and ibverbs-providers of \
                                  Debian and Ubuntu, libibverbs of Fedora, RHEL and SUSE";

/// A library that cannot be used.
#[derive(Debug)]
enum Unusable {
    /// It cannot be opened, in the words of the dynamic loader.
    NotOpened(String),
    /// It has no function of this name.
    Without(&'static str),
}

/// Declares the functions of a library that are used, and finds them by their names.
macro_rules! functions {
    ($(#[$about:meta])* $name:ident { $($function:ident = $symbol:literal
        ($($argument:ty),* $(,)?) $(-> $result:ty)?;)+ }) => {
        $(#[$about])*
        pub(super) struct $name {
            $(pub(super) $function: unsafe extern "C" fn($($argument),*) $(-> $result)?,)+
        }

        impl $name {
            fn of(library: &Library) -> std::result::Result<Self, Unusable> {
                Ok(Self {
                    $($function: {
                        let symbol = concat!($symbol, "\0").as_bytes();
                        // SAFETY: the function is declared as the library's header does, and the library stays open
                        // as long as this process runs.
                        let found = unsafe { library.get(symbol) };
                        *found.map_err(|_| Unusable::Without($symbol))?
                    },)+
                })
            }
        }
    };
}

functions! {
    /// The functions of `libibverbs` (`infiniband/verbs.h`).
    Verbs {
        get_device_list = "ibv_get_device_list"(*mut c_int) -> *mut *mut abi::Device;
        free_device_list = "ibv_free_device_list"(*mut *mut abi::Device);
        get_device_name = "ibv_get_device_name"(*mut abi::Device) -> *const c_char;
        open_device = "ibv_open_device"(*mut abi::Device) -> *mut abi::Context;
        close_device = "ibv_close_device"(*mut abi::Context) -> c_int;
        query_device = "ibv_query_device"(*mut abi::Context, *mut abi::DeviceAttributes) -> c_int;
        query_port = "ibv_query_port"(*mut abi::Context, u8, *mut abi::PortAttributes) -> c_int;
        alloc_pd = "ibv_alloc_pd"(*mut abi::Context) -> *mut abi::ProtectionDomain;
        dealloc_pd = "ibv_dealloc_pd"(*mut abi::ProtectionDomain) -> c_int;
        reg_mr = "ibv_reg_mr"(*mut abi::ProtectionDomain, *mut c_void, usize, c_int) -> *mut abi::MemoryRegion;
        // Since rdma-core 34.
        reg_dmabuf_mr = "ibv_reg_dmabuf_mr"(*mut abi::ProtectionDomain, u64, usize, u64, c_int, c_int)
            -> *mut abi::MemoryRegion;
        dereg_mr = "ibv_dereg_mr"(*mut abi::MemoryRegion) -> c_int;
        create_comp_channel = "ibv_create_comp_channel"(*mut abi::Context) -> *mut abi::CompletionChannel;
        destroy_comp_channel = "ibv_destroy_comp_channel"(*mut abi::CompletionChannel) -> c_int;
        create_cq = "ibv_create_cq"(*mut abi::Context, c_int, *mut c_void, *mut abi::CompletionChannel, c_int)
            -> *mut abi::CompletionQueue;
        destroy_cq = "ibv_destroy_cq"(*mut abi::CompletionQueue) -> c_int;
        get_cq_event = "ibv_get_cq_event"(*mut abi::CompletionChannel, *mut *mut abi::CompletionQueue, *mut *mut c_void)
            -> c_int;
        ack_cq_events = "ibv_ack_cq_events"(*mut abi::CompletionQueue, c_uint);
        create_qp = "ibv_create_qp"(*mut abi::ProtectionDomain, *mut abi::QueuePairInitialAttributes)
            -> *mut abi::QueuePair;
        modify_qp = "ibv_modify_qp"(*mut abi::QueuePair, *mut abi::QueuePairAttributes, c_int) -> c_int;
        destroy_qp = "ibv_destroy_qp"(*mut abi::QueuePair) -> c_int;
        qp_to_qp_ex = "ibv_qp_to_qp_ex"(*mut abi::QueuePair) -> *mut abi::ExtendedQueuePair;
        create_ah = "ibv_create_ah"(*mut abi::ProtectionDomain, *mut abi::AddressHandleAttributes)
            -> *mut abi::AddressHandle;
        destroy_ah = "ibv_destroy_ah"(*mut abi::AddressHandle) -> c_int;
    }
}

functions! {
    /// The functions of `libefa` (`infiniband/efadv.h`), for what only EFA devices have.
    Efa {
        query_device = "efadv_query_device"(*mut abi::Context, *mut abi::EfaDeviceAttributes, u32) -> c_int;
        create_qp_ex = "efadv_create_qp_ex"(*mut abi::Context, *mut abi::QueuePairInitialAttributes,
            *mut abi::EfaQueuePairAttributes, u32) -> *mut abi::QueuePair;
    }
}

/// `libibverbs`.
///
/// # Errors
///
/// [`VerbsFailure::NoLibrary`] or [`VerbsFailure::LibraryTooOld`]. The next call tries again.
pub(super) fn verbs() -> Result<&'static Verbs> {
    static LIBRARY: OnceLock<Verbs> = OnceLock::new();
    match LIBRARY.get() {
        Some(library) => Ok(library),
        None => {
            let loaded = load(VERBS, Verbs::of)?;
            Ok(LIBRARY.get_or_init(|| loaded))
        }
    }
}

/// `libefa`.
///
/// # Errors
///
/// As [`verbs`].
pub(super) fn efa() -> Result<&'static Efa> {
    static LIBRARY: OnceLock<Efa> = OnceLock::new();
    match LIBRARY.get() {
        Some(library) => Ok(library),
        None => {
            let loaded = load(EFA, Efa::of)?;
            Ok(LIBRARY.get_or_init(|| loaded))
        }
    }
}

fn load<T>(name: &'static str, of: impl FnOnce(&Library) -> std::result::Result<T, Unusable>) -> Result<T> {
    let loaded = open(name).and_then(|library| {
        let functions = of(&library)?;
        // It stays open, as the beginning of this module tells.
        std::mem::forget(library);
        Ok(functions)
    });
    loaded.map_err(|unusable| {
        let operation = "use rdma-core's library";
        match unusable {
            Unusable::NotOpened(words) => {
                VerbsFailure::NoLibrary.error(operation).on(name).because(words).remedy(INSTALL)
            }
            Unusable::Without(symbol) => VerbsFailure::LibraryTooOld
                .error(operation)
                .on(name)
                .because(format!("it has no function {symbol}"))
                .remedy("install rdma-core 34 or newer"),
        }
    })
}

fn open(name: &'static str) -> std::result::Result<Library, Unusable> {
    // SAFETY: rdma-core's libraries may be opened at any time; what they do then is to make their own data ready.
    unsafe { Library::new(name) }.map_err(|error| Unusable::NotOpened(error.to_string()))
}
