//! A log of what the driver did that hardware would not put up with.

use std::fmt;
use std::sync::Mutex;

use crate::lock;

/// Entries that are kept in full; later ones are only counted.
const CAPACITY: usize = 100;

/// What drivers did wrong, bounded in number.
#[derive(Debug, Default)]
pub(crate) struct MisuseLog {
    entries: Mutex<Entries>,
    trace: bool,
}

#[derive(Debug, Default)]
struct Entries {
    texts: Vec<String>,
    omitted: u64,
}

impl MisuseLog {
    /// An empty log; with `trace` every entry and every [`MisuseLog::trace`] goes to standard error too.
    pub(crate) fn new(trace: bool) -> MisuseLog {
        MisuseLog { entries: Mutex::default(), trace }
    }

    /// Records that the driver of `device` did something wrong.
    pub(crate) fn record(&self, device: &str, what: fmt::Arguments<'_>) {
        self.trace(device, format_args!("misuse: {what}"));
        let mut entries = lock(&self.entries);
        if entries.texts.len() < CAPACITY {
            entries.texts.push(format!("{device}: {what}"));
        } else {
            entries.omitted += 1;
        }
    }

    /// Tells standard error about an event, when tracing was asked for.
    pub(crate) fn trace(&self, device: &str, what: fmt::Arguments<'_>) {
        if self.trace {
            eprintln!("{device}: {what}");
        }
    }

    /// Whether tracing was asked for.
    pub(crate) fn traces(&self) -> bool {
        self.trace
    }

    /// All entries, oldest first; the last one tells how many were left out.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = lock(&self.entries);
        let mut texts = entries.texts.clone();
        if entries.omitted > 0 {
            texts.push(format!("and {} more", entries.omitted));
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded() {
        let log = MisuseLog::new(false);
        for index in 0..CAPACITY + 7 {
            log.record("nic0", format_args!("entry {index}"));
        }
        let entries = log.entries();
        assert_eq!(entries.len(), CAPACITY + 1);
        assert_eq!(entries[0], "nic0: entry 0");
        assert_eq!(entries[CAPACITY], "and 7 more");
    }
}
