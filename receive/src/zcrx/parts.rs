//! What one receive brought.

use std::slice;

use crate::stream::{Fragment, Part};

/// What one receive brought, in order.
#[derive(Debug, Clone)]
pub struct Parts<'stream> {
    fragments: slice::Iter<'stream, Fragment>,
    bytes: usize,
}

impl<'stream> Parts<'stream> {
    pub(crate) fn new(fragments: &'stream [Fragment]) -> Self {
        let bytes = fragments.iter().map(|fragment| fragment.length() as usize).sum();
        Self { fragments: fragments.iter(), bytes }
    }

    /// How many bytes this receive brought.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<'stream> Iterator for Parts<'stream> {
    type Item = Part<'stream>;

    fn next(&mut self) -> Option<Part<'stream>> {
        self.fragments.next().map(|&fragment| Part::Fragment(fragment))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fragments.size_hint()
    }
}
