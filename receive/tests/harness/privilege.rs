//! Doing something without privilege: in a thread of its own, as another user.

use crate::harness::Failure;

const NOBODY: libc::c_long = 65534;

/// Runs `work` without any capability.
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
