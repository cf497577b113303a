//! Counting what receiving costs.

use std::time::Duration;

use devmem_measure::{SystemCallCounter, allocations, cpu_time};

/// Receives whose allocations are not counted: buffers of the first ones grow to their size.
const WARM_UP: u64 = 2;

/// The same where copies are submitted: each of those that may be in flight has lists of its own.
const WARM_UP_WITH_COPIES: u64 = 6;

/// What the receiving thread does.
#[derive(Debug)]
pub(super) struct Cost {
    counter: Option<SystemCallCounter>,
    started: Duration,
    warm_up: u64,
    receives: u64,
    allocations: u64,
}

impl Cost {
    pub(super) fn start(copies: bool) -> Self {
        let warm_up = if copies { WARM_UP_WITH_COPIES } else { WARM_UP };
        let started = cpu_time::of_this_thread();
        Self { counter: SystemCallCounter::start(), started, warm_up, receives: 0, allocations: 0 }
    }

    /// Receives: counts the allocations, unless it is among the first.
    pub(super) fn of_receive<T>(&mut self, receive: impl FnOnce() -> T) -> T {
        self.receives += 1;
        self.of(receive)
    }

    /// Does something with what the last receive returned: counts the allocations as for that.
    pub(super) fn of<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let before = allocations::of_this_thread();
        let result = step();
        if self.receives > self.warm_up {
            self.allocations += allocations::of_this_thread() - before;
        }
        result
    }

    /// Receives whose allocations were counted.
    pub(super) fn receives(&self) -> u64 {
        self.receives.saturating_sub(self.warm_up)
    }

    pub(super) fn allocations(&self) -> u64 {
        self.allocations
    }

    /// Processor time of the thread so far.
    pub(super) fn cpu_time(&self) -> Duration {
        cpu_time::of_this_thread().saturating_sub(self.started)
    }

    /// System calls of the thread so far, as the kernel counts them, where it may be asked.
    pub(super) fn system_calls(&mut self) -> Option<u64> {
        self.counter.as_mut().and_then(SystemCallCounter::read)
    }
}
