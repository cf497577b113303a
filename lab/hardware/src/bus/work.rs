//! How much an emulated device does, for tests that bound it: counted, because a time would say more of the machine
//! that the test runs on.

use std::cell::Cell;

/// What an access costs however short it is, in bytes that could have been copied instead.
const ACCESS: u64 = 64;

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Counts an access to memory.
pub(super) fn count(bytes: usize) {
    DONE.set(DONE.get() + ACCESS + bytes as u64);
}

/// The work that this thread does in `what`, in bytes.
pub(crate) fn of(what: impl FnOnce()) -> u64 {
    let before = DONE.get();
    what();
    DONE.get() - before
}
