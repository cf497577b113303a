//! What the test programs share.

pub(crate) mod every_provider;

use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};

/// What went wrong in a test.
pub(crate) type Failure = Box<dyn std::error::Error>;
pub(crate) type Outcome = Result<(), Failure>;

/// The size of a buffer where none matters: a multiple of every driver's granularity.
pub(crate) const SIZE: u64 = 1 << 20;

/// Fails a test unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!("{}: {}", stringify!($condition), format_args!($($message)+)).into());
        }
    };
}

/// Why a test cannot say anything on this kernel.
#[derive(Debug)]
struct Skip(String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a test that cannot say anything, with the reason.
pub(crate) fn skip<T>(reason: impl std::fmt::Display) -> Result<T, Failure> {
    Err(Skip(reason.to_string()).into())
}

pub(crate) fn trial(name: String, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(failure) => match failure.downcast::<Skip>() {
            Ok(skip) => Ok(Completion::ignored_with(skip.0)),
            Err(failure) => Err(Failed::from(failure.to_string())),
        },
    })
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> Result<usize, Failure> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// The memory that the guest could hand out, in bytes.
pub(crate) fn available_memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).ok_or("no MemAvailable")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? * 1024)
}

/// Drivers give memory back a little after its last user let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until less than `limit` bytes of the memory that was available `before` are gone.
pub(crate) fn memory_is_back(before: u64, limit: u64) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lost = before.saturating_sub(available_memory()?);
        if lost < limit {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("{lost} bytes are lost").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
