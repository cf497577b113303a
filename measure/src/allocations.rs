//! A global allocator that counts the allocations of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts: for `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

fn count() {
    // A thread that ends may allocate after its counter is gone; nobody asks for that count any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// How often this thread has allocated so far; 0 unless [`Counting`] is the program's allocator.
#[must_use]
pub fn of_this_thread() -> u64 {
    COUNT.with(Cell::get)
}

// SAFETY: every call goes to the system's allocator unchanged. Counting touches a `Cell` that needs no
// allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn counts_what_this_thread_allocates() {
        let before = of_this_thread();
        let boxed = std::hint::black_box(Box::new(1));
        assert_eq!(of_this_thread() - before, 1);
        drop(boxed);
        assert_eq!(of_this_thread() - before, 1);
    }
}
