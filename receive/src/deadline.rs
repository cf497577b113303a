//! Until when something is waited for.

use std::time::{Duration, Instant};

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// After `limit` from now on; never if the clock does not go so far, as for [`Duration::MAX`].
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    /// How long it is until then.
    pub(crate) fn left(self) -> Duration {
        match self.0 {
            Some(end) => end.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_may_be_none_and_without_end() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        let endless = Deadline::after(Duration::MAX);
        assert!(!endless.is_over() && endless.left() == Duration::MAX);
        assert!(Deadline::after(Duration::from_secs(600)).left() <= Duration::from_secs(600));
    }
}
