//! The libraries' functions, made safe: the only place, besides the [library](super::library) itself, that calls them.
//!
//! Objects are owned types that destroy themselves and keep alive what they are made of. Functions return the error
//! number that the library does; what it means to a person is added above. The libraries' objects may be used by
//! several threads at once, as their manual says (`ibv_open_device(3)` and others take locks of their own).

mod address;
mod completion;
mod context;
mod queue_pair;
mod region;

pub(super) use address::AddressHandle;
pub(super) use completion::Queue;
pub(super) use context::{Context, Domain, names};
pub(super) use queue_pair::{Local, Post, QueuePair, Request};
pub(super) use region::Region;

use std::ffi::c_int;
use std::ptr::NonNull;

use nix::errno::Errno;

/// What a function that returns an object returned: it sets `errno` where there is none.
fn object<T>(pointer: *mut T) -> Result<NonNull<T>, Errno> {
    NonNull::new(pointer).ok_or_else(Errno::last)
}

/// What a function that returns an error number returned: some providers return -1 and set `errno`.
fn done(result: c_int) -> Result<(), Errno> {
    match result {
        0 => Ok(()),
        ..0 => Err(Errno::last()),
        number => Err(Errno::from_raw(number)),
    }
}
