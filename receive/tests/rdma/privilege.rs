//! Without privilege: another user, and a low limit on locked memory.

#[path = "../harness/privilege.rs"]
mod another_user;

use devmem_provider::{Pin, Require, Residency};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(crate) use another_user::without;

use crate::harness::{Failure, Outcome, ensure};
use crate::setup::{domain, seen_in, vram};
use crate::witness::region;

/// Runs `work` with this limit on locked memory, in bytes.
pub(crate) fn with_limit<T>(limit: u64, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, limit, hard)?;
    let result = work();
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    result
}

/// Memory of DMA-bufs is not counted as locked.
pub(crate) fn a_user_pins_48_mebibytes() -> Outcome {
    const LARGE: u64 = 48 << 20;
    let buffer = vram(LARGE)?;
    let pin = with_limit(64 << 10, || {
        without(|| {
            let mut domain = domain().map_err(|error| error.to_string())?;
            Pin::new(&mut domain, &*buffer, Require::DeviceLocal).map_err(|error| error.to_string())
        })
    })?;
    seen_in(pin.residency(), Residency::DeviceLocal)?;
    let seen = region(0)?;
    ensure!(seen.length == LARGE, "{seen:?}");
    seen.is_in(Residency::DeviceLocal)
}
