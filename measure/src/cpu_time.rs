//! The processor time of a thread.

use std::time::Duration;

/// The processor time that this thread has used so far, in user space and in the kernel.
#[must_use]
pub fn of_this_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a time to the place that is borrowed exclusively for the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(result, 0, "every kernel has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_sleep_does_not() {
        let begun = of_this_thread();
        std::thread::sleep(Duration::from_millis(20));
        let slept = of_this_thread();
        assert!(slept - begun < Duration::from_millis(20), "{slept:?}");
        let mut rounds = 0u64;
        while of_this_thread() == slept {
            rounds += 1;
        }
        assert!(rounds < u64::MAX);
    }
}
