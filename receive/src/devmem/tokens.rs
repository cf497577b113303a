//! Giving fragments back to the NIC, as few calls as the kernel's interface allows.
//!
//! A call takes at most 128 ranges of tokens and releases at most 1024 fragments. Tokens are numbers that
//! the kernel hands out lowest first, so that those of one receive mostly follow each other: sorted, they
//! make few ranges.

use super::uapi::{RELEASE_FRAGMENTS, RELEASE_RANGES, TokenRange};

/// Tokens that wait to be given back. Never holds more than one call can release.
#[derive(Debug)]
pub(crate) struct PendingTokens {
    tokens: Vec<u32>,
    ranges: Vec<TokenRange>,
}

impl PendingTokens {
    pub(crate) fn new() -> Self {
        Self { tokens: Vec::with_capacity(RELEASE_FRAGMENTS), ranges: Vec::with_capacity(RELEASE_RANGES) }
    }

    /// Adds a token. Returns whether there is no room for another.
    pub(crate) fn push(&mut self, token: u32) -> bool {
        debug_assert!(self.tokens.len() < RELEASE_FRAGMENTS, "the caller releases when it is told to");
        self.tokens.push(token);
        self.tokens.len() >= RELEASE_FRAGMENTS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Hands the tokens to `release` as ranges, each call within the kernel's limits, and forgets them.
    ///
    /// `release` returns how many fragments the kernel released. On an error the tokens of that call and of
    /// the calls that were still to come are forgotten too: what the kernel did with them is unknown.
    pub(crate) fn drain<E>(
        &mut self,
        mut release: impl FnMut(&[TokenRange]) -> Result<usize, E>,
    ) -> Result<Drained, E> {
        self.tokens.sort_unstable();
        let mut drained = Drained { offered: self.tokens.len(), released: 0, calls: 0 };
        let mut result = Ok(());
        self.ranges.clear();
        let mut call = |ranges: &mut Vec<TokenRange>| {
            drained.calls += 1;
            let outcome = release(ranges).map(|released| drained.released += released);
            ranges.clear();
            outcome
        };
        for &token in &self.tokens {
            match self.ranges.last_mut() {
                Some(range) if range.start.checked_add(range.count) == Some(token) => range.count += 1,
                _ => {
                    if self.ranges.len() == RELEASE_RANGES {
                        result = call(&mut self.ranges);
                        if result.is_err() {
                            break;
                        }
                    }
                    self.ranges.push(TokenRange { start: token, count: 1 });
                }
            }
        }
        if result.is_ok() && !self.ranges.is_empty() {
            result = call(&mut self.ranges);
        }
        self.tokens.clear();
        self.ranges.clear();
        result.map(|()| drained)
    }
}

/// What [`PendingTokens::drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drained {
    /// Fragments that were to be released.
    pub(crate) offered: usize,
    /// Fragments that the kernel released.
    pub(crate) released: usize,
    /// Calls that it took.
    pub(crate) calls: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    fn drain(tokens: impl IntoIterator<Item = u32>) -> (Vec<Vec<TokenRange>>, Drained) {
        let mut pending = PendingTokens::new();
        for token in tokens {
            pending.push(token);
        }
        let mut calls = Vec::new();
        let drained = pending
            .drain(|ranges| {
                calls.push(ranges.to_vec());
                Ok::<_, Infallible>(ranges.iter().map(|range| range.count as usize).sum())
            })
            .unwrap();
        assert!(pending.is_empty());
        (calls, drained)
    }

    #[test]
    fn a_full_receive_in_any_order_is_one_range_in_one_call() {
        let (calls, drained) = drain((0..1024).rev());
        assert_eq!(calls, [[TokenRange { start: 0, count: 1024 }]]);
        assert_eq!(drained, Drained { offered: 1024, released: 1024, calls: 1 });
    }

    #[test]
    fn tokens_without_neighbours_take_calls_of_128() {
        let (calls, _) = drain((0..300).map(|token| token * 2));
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
    }

    #[test]
    fn nothing_pending_makes_no_call() {
        assert_eq!(drain([]).0.len(), 0);
    }

    #[test]
    fn the_largest_token_ends_a_range_without_overflow() {
        let (calls, _) = drain([u32::MAX, u32::MAX - 1]);
        assert_eq!(calls, [[TokenRange { start: u32::MAX - 1, count: 2 }]]);
    }

    #[test]
    fn a_refused_call_ends_it() {
        let mut pending = PendingTokens::new();
        for token in 0..300 {
            pending.push(token * 2);
        }
        let mut calls = 0;
        let result = pending.drain(|_| {
            calls += 1;
            Err(libc::EINVAL)
        });
        assert_eq!((result, calls), (Err(libc::EINVAL), 1));
        assert!(pending.is_empty());
    }

    proptest! {
        #[test]
        fn every_token_is_released_once_within_the_limits(
            tokens in prop::collection::btree_set(0u32..4096, 0..=RELEASE_FRAGMENTS)
        ) {
            let (calls, drained) = drain(tokens.iter().copied());
            let mut released = BTreeSet::new();
            for ranges in &calls {
                prop_assert!(ranges.len() <= RELEASE_RANGES);
                for range in ranges {
                    for token in range.start..range.start + range.count {
                        prop_assert!(released.insert(token));
                    }
                }
            }
            prop_assert_eq!(drained.released, tokens.len());
            prop_assert_eq!(released, tokens);
        }
    }
}
