//! Notification blocks: when a queue's interrupt fires.
//!
//! An interrupt masks itself when it fires. What happens while it is masked, while its vector is not
//! in use, or sooner after the last one than the moderation interval allows, is remembered and fires
//! as soon as it may: the driver does not look again after it has enabled the interrupt.

use std::time::{Duration, Instant};

use crate::pci::Vectors;

const DOORBELL_ENABLE: u32 = 1 << 0;
const DOORBELL_CLEAR_PENDING: u32 = 1 << 1;
const DOORBELL_INTERVAL_INDEX: u32 = 0b11 << 3;
/// The interval index that says: leave the interval as it is.
const NO_INTERVAL: u32 = 0b11 << 3;
const DOORBELL_INTERVAL_SHIFT: u32 = 5;
const DOORBELL_INTERVAL_MASK: u32 = 0xfff;
/// Microseconds in one unit of the interval.
const INTERVAL_UNIT: u64 = 2;

/// The interrupt of a notification block.
#[derive(Clone, Debug, Default)]
struct Interrupt {
    enabled: bool,
    pending: bool,
    /// At least so long from one interrupt to the next.
    interval: Duration,
    last: Option<Instant>,
    /// The clock was asked to look again when the interval is over.
    waiting: bool,
}

/// The interrupts of all notification blocks of a NIC.
pub(super) struct Interrupts {
    interrupts: Vec<Interrupt>,
    /// The vector of the first notification block.
    pub(super) first_vector: usize,
    /// Interrupts that fired.
    pub(super) fired: u64,
}

/// When to call [`Interrupts::retry`], if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct RetryAt(pub(super) Option<Instant>);

impl Interrupts {
    pub(super) fn new(count: usize) -> Interrupts {
        Interrupts { interrupts: vec![Interrupt::default(); count], first_vector: 0, fired: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.interrupts.len()
    }

    /// Something happened that the driver waits for.
    pub(super) fn raise(&mut self, index: usize, vectors: &Vectors, now: Instant) -> RetryAt {
        if let Some(interrupt) = self.interrupts.get_mut(index) {
            interrupt.pending = true;
        }
        self.fire_if_due(index, vectors, now)
    }

    /// The driver wrote to the doorbell of an interrupt.
    pub(super) fn doorbell(&mut self, index: usize, value: u32, vectors: &Vectors, now: Instant) -> RetryAt {
        if let Some(interrupt) = self.interrupts.get_mut(index) {
            interrupt.enabled = value & DOORBELL_ENABLE != 0;
            if value & DOORBELL_CLEAR_PENDING != 0 {
                interrupt.pending = false;
            }
            if value & DOORBELL_INTERVAL_INDEX != NO_INTERVAL {
                let units = value >> DOORBELL_INTERVAL_SHIFT & DOORBELL_INTERVAL_MASK;
                interrupt.interval = Duration::from_micros(u64::from(units) * INTERVAL_UNIT);
            }
        }
        self.fire_if_due(index, vectors, now)
    }

    /// The interval of an interrupt is over.
    pub(super) fn retry(&mut self, index: usize, vectors: &Vectors, now: Instant) -> RetryAt {
        if let Some(interrupt) = self.interrupts.get_mut(index) {
            interrupt.waiting = false;
        }
        self.fire_if_due(index, vectors, now)
    }

    fn fire_if_due(&mut self, index: usize, vectors: &Vectors, now: Instant) -> RetryAt {
        let Some(interrupt) = self.interrupts.get_mut(index) else { return RetryAt(None) };
        if !interrupt.enabled || !interrupt.pending {
            return RetryAt(None);
        }
        if let Some(due) = interrupt.last.map(|last| last + interrupt.interval).filter(|due| *due > now) {
            let ask = !std::mem::replace(&mut interrupt.waiting, true);
            return RetryAt(ask.then_some(due));
        }
        if vectors.signal(self.first_vector + index) {
            interrupt.enabled = false;
            interrupt.pending = false;
            interrupt.last = Some(now);
            self.fired += 1;
        }
        RetryAt(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    /// One interrupt on vector 1 of 2, and the driver's end of it.
    struct Bench {
        interrupts: Interrupts,
        vectors: Vectors,
        event: std::fs::File,
    }

    impl Bench {
        fn new() -> Bench {
            let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
            let event = std::fs::File::from(std::os::fd::OwnedFd::from(event));
            let vectors = Vectors::new(2);
            let mut interrupts = Interrupts::new(1);
            interrupts.first_vector = 1;
            Bench { interrupts, vectors, event }
        }

        fn connect(&self) {
            self.vectors.set(1, vec![Some(self.event.try_clone().unwrap())]).unwrap();
        }

        fn fired(&mut self) -> u64 {
            let mut count = [0; 8];
            self.event.read(&mut count).map_or(0, |_| u64::from_ne_bytes(count))
        }
    }

    const ENABLE: u32 = DOORBELL_ENABLE | NO_INTERVAL;

    #[test]
    fn an_interrupt_masks_itself_and_remembers() {
        let (mut bench, now) = (Bench::new(), Instant::now());
        bench.connect();
        let Bench { interrupts, vectors, .. } = &mut bench;
        let _ = interrupts.raise(0, vectors, now);
        assert_eq!(bench.fired(), 0, "not enabled yet");
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, now);
        assert_eq!(bench.fired(), 1);
        for _ in 0..3 {
            let _ = bench.interrupts.raise(0, &bench.vectors, now);
        }
        assert_eq!(bench.fired(), 0, "masked");
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, now);
        assert_eq!(bench.fired(), 1, "once for all that happened");
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, now);
        assert_eq!(bench.fired(), 0, "nothing pending");
    }

    #[test]
    fn pending_can_be_cleared() {
        let (mut bench, now) = (Bench::new(), Instant::now());
        bench.connect();
        let _ = bench.interrupts.raise(0, &bench.vectors, now);
        let _ = bench.interrupts.doorbell(0, ENABLE | DOORBELL_CLEAR_PENDING, &bench.vectors, now);
        assert_eq!(bench.fired(), 0);
    }

    #[test]
    fn an_unused_vector_loses_nothing() {
        let (mut bench, now) = (Bench::new(), Instant::now());
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, now);
        let _ = bench.interrupts.raise(0, &bench.vectors, now);
        bench.connect();
        assert_eq!(bench.fired(), 0);
        let _ = bench.interrupts.retry(0, &bench.vectors, now);
        assert_eq!(bench.fired(), 1);
    }

    #[test]
    fn the_interval_is_kept() {
        let (mut bench, now) = (Bench::new(), Instant::now());
        bench.connect();
        let twenty_microseconds = DOORBELL_ENABLE | 10 << DOORBELL_INTERVAL_SHIFT;
        let _ = bench.interrupts.doorbell(0, twenty_microseconds, &bench.vectors, now);
        assert_eq!(bench.interrupts.raise(0, &bench.vectors, now), RetryAt(None));
        assert_eq!(bench.fired(), 1);
        let due = now + Duration::from_micros(20);
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, now);
        let soon = now + Duration::from_micros(5);
        assert_eq!(bench.interrupts.raise(0, &bench.vectors, soon), RetryAt(Some(due)));
        assert_eq!(bench.interrupts.raise(0, &bench.vectors, soon), RetryAt(None), "asked already");
        assert_eq!(bench.fired(), 0);
        let _ = bench.interrupts.retry(0, &bench.vectors, due);
        assert_eq!(bench.fired(), 1);
        let _ = bench.interrupts.doorbell(0, ENABLE, &bench.vectors, due);
        let next = bench.interrupts.raise(0, &bench.vectors, due);
        assert_eq!(next, RetryAt(Some(due + Duration::from_micros(20))), "and again");
    }

    #[test]
    fn there_is_no_other_interrupt() {
        let bench = &mut Bench::new();
        assert_eq!(bench.interrupts.raise(9, &bench.vectors, Instant::now()), RetryAt(None));
    }
}
