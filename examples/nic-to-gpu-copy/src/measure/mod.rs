//! What a transfer costs, measured from outside the code that it measures.

pub(crate) mod allocations;
pub(crate) mod system_calls;
