//! Without privilege: another user, and a low limit on locked memory.

use devmem_provider::{Pin, Require, Residency};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{Failure, Outcome, ensure};
use crate::setup::{domain, seen_in, vram};
use crate::witness::region;

const NOBODY: libc::c_long = 65534;

/// Runs `work` without any capability, as another user.
pub(crate) fn without<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: the system call itself changes the calling thread only, unlike the C library's
                // function of that name; the thread ends with `work`.
                let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
                if result != 0 {
                    return Err(std::io::Error::last_os_error().to_string());
                }
                work()
            })
            .join()
            .map_err(|_| Failure::from("the thread panicked"))?
            .map_err(Failure::from)
    })
}

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
