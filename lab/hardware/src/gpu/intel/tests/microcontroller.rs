//! The microcontroller: what `xe` does to hand it contexts.

use proptest::prelude::*;

use super::super::guc::{self, DMA_CONTROL, DOORBELL, SCRATCH as SCRATCH_REGISTERS, STATUS};
use super::super::interrupts::offsets::{IDENTITY, SELECTOR};
use super::super::registers::offsets::{RESET, RESET_GUC};
use super::bench::{Bench, COPY, SCRATCH};

/// Places of the buffers in the shown memory.
const TO_GUC_DESCRIPTOR: u64 = 0xc_0000;
const TO_HOST_DESCRIPTOR: u64 = 0xc_0040;
const TO_GUC: u64 = 0xc_1000;
const TO_HOST: u64 = 0xc_2000;
/// Words of either.
const SIZE: u64 = 64;

const REQUEST: u32 = 0;
const FAST_REQUEST: u32 = 2 << 28;
const EVENT: u32 = 9 << 28;
const SUCCESS: u32 = 0xf << 28;
const COPY_CLASS: u32 = 3;

/// The driver's side.
struct Driver {
    bench: Bench,
    tail: u64,
    head: u64,
}

impl Driver {
    fn new() -> Driver {
        let bench = Bench::new("xe");
        bench.write(DMA_CONTROL, 0x0011_0011);
        assert_eq!(bench.read(STATUS) >> 8 & 0xff, 0xf0, "ready");
        bench.enable_interrupts();
        let driver = Driver { bench, tail: 0, head: 0 };
        for (key, value) in [
            (0x902, TO_GUC),
            (0x903, TO_GUC_DESCRIPTOR),
            (0x904, SIZE * 4),
            (0x905, TO_HOST),
            (0x906, TO_HOST_DESCRIPTOR),
            (0x907, SIZE * 4),
        ] {
            assert_eq!(driver.ask(&[0x508, key << 16 | 2, value as u32, 0]), SUCCESS | 1);
        }
        assert_eq!(driver.ask(&[0x4509, 1]), SUCCESS);
        driver
    }

    /// Asks by the scratch registers.
    fn ask(&self, words: &[u32]) -> u32 {
        for (index, word) in (0..).zip(words) {
            self.bench.write(SCRATCH_REGISTERS + index * 4, *word);
        }
        self.bench.write(DOORBELL, 0);
        self.bench.read(SCRATCH_REGISTERS)
    }

    /// Puts a message into the buffer without ringing.
    fn put(&mut self, fence: u32, words: &[u32]) {
        for word in std::iter::once(&(fence << 16 | words.len() as u32)).chain(words) {
            self.bench.put(TO_GUC + self.tail * 4, &[*word]);
            self.tail = (self.tail + 1) % SIZE;
        }
        self.bench.put(TO_GUC_DESCRIPTOR + 4, &[self.tail as u32]);
    }

    fn send(&mut self, fence: u32, words: &[u32]) {
        self.put(fence, words);
        self.bench.write(DOORBELL, 0);
        assert_eq!(self.bench.word(TO_GUC_DESCRIPTOR), self.tail as u32, "all is taken");
    }

    /// Takes the next message out.
    fn take(&mut self) -> Option<Vec<u32>> {
        if self.head == u64::from(self.bench.word(TO_HOST_DESCRIPTOR + 4)) {
            return None;
        }
        let mut next = || {
            let word = self.bench.word(TO_HOST + self.head * 4);
            self.head = (self.head + 1) % SIZE;
            word
        };
        let header = next();
        let words: Vec<u32> = (0..header & 0xff).map(|_| next()).collect();
        self.bench.put(TO_HOST_DESCRIPTOR, &[self.head as u32]);
        Some([&[header >> 16][..], &words].concat())
    }

    fn register(&mut self, identifier: u32, context: u64, engines: u32) {
        let descriptor = self.bench.descriptor(context);
        let [low, high] = [descriptor as u32, (descriptor >> 32) as u32];
        let message = [FAST_REQUEST | 0x4502, 0, identifier, COPY_CLASS, engines, 0, 0, 0, 0, 0, low, high];
        self.send(0, &message);
    }
}

/// Stores a word into memory, as a context's commands.
fn store(at: u64, value: u32) -> [u32; 4] {
    [0x20 << 23 | 1 << 22 | 2, at as u32, 0, value]
}

#[test]
fn the_firmware_says_of_itself_what_drivers_check() {
    let file = guc::firmware();
    let word = |index: usize| u32::from_le_bytes(file[index * 4..][..4].try_into().unwrap());
    let [header, size, signature, modulus, exponent] = [1, 6, 7, 8, 9].map(word);
    assert_eq!(header - signature - modulus - exponent, 32);
    assert!((128 + (size - header + signature) * 4) as usize <= file.len());
    assert_eq!((word(16) >> 16, word(17)), (70, 0x1_0600));
}

#[test]
fn a_context_runs_when_switched_on_and_when_scheduled() {
    let mut driver = Driver::new();
    driver.bench.put_context(0, 0, &store(SCRATCH, 1));
    driver.register(5, 0, 1);
    driver.send(0, &[FAST_REQUEST | 0x1000, 5]);
    assert_eq!(driver.bench.word(SCRATCH), 0, "not switched on");
    driver.send(0, &[FAST_REQUEST | 0x1001, 5, 1]);
    assert_eq!(driver.bench.word(SCRATCH), 1);
    assert_eq!(driver.take(), Some(vec![0, EVENT | 0x1002, 5, 1]));
    driver.bench.put_context(0, 16, &store(SCRATCH, 2));
    driver.send(0, &[FAST_REQUEST | 0x1000, 5]);
    assert_eq!((driver.bench.word(SCRATCH), driver.take()), (2, None));
    driver.send(0, &[FAST_REQUEST | 0x1001, 5, 0]);
    driver.send(0, &[FAST_REQUEST | 0x4503, 5]);
    assert_eq!(driver.take(), Some(vec![0, EVENT | 0x1002, 5, 0]));
    assert_eq!(driver.take(), Some(vec![0, EVENT | 0x4600, 5]));
    driver.send(0, &[FAST_REQUEST | 0x1000, 5]);
    assert_eq!(driver.bench.misuse().len(), 2, "scheduled when it was not switched on, and when it was gone");
    assert_eq!(driver.bench.context_status(COPY).1, [0; 12], "nobody else is told of switches");
}

#[test]
fn engines_of_a_class_are_counted() {
    let mut driver = Driver::new();
    driver.bench.put_context(0, 0, &[0x0100_0000, 0]);
    driver.register(1, 0, 2);
    driver.send(0, &[FAST_REQUEST | 0x1001, 1, 1]);
    driver.bench.write(SELECTOR, 1 << 23);
    assert_eq!(driver.bench.read(IDENTITY) >> 16, 1 << 15 | 8 << 4 | 3, "the second copy engine is number 8");
}

#[test]
fn requests_are_answered_and_told_of_by_an_interrupt() {
    let mut driver = Driver::new();
    assert_eq!(driver.bench.messages(), 0);
    driver.send(77, &[REQUEST | 0x550e, 0, 0, 0]);
    assert_eq!((driver.take(), driver.bench.messages()), (Some(vec![77, SUCCESS]), 1));
    driver.bench.write(SELECTOR, 1 << 25);
    assert_eq!(driver.bench.read(IDENTITY), 1 << 31 | 4 << 16 | 1 << 15);
    driver.send(0, &[FAST_REQUEST | 0x7000, 9, 3]);
    assert_eq!(driver.take(), Some(vec![0, EVENT | 0x7001, 9]));
}

#[test]
fn the_power_controller_says_that_it_runs() {
    let mut driver = Driver::new();
    driver.send(0, &[FAST_REQUEST | 0x3003, 2, SCRATCH as u32, 0]);
    assert_eq!((driver.bench.word(SCRATCH + 4), driver.bench.word(SCRATCH + 132)), (3, 24 << 8 | 144));
}

#[test]
fn the_hardware_configuration_is_asked_for_by_size_and_then_written() {
    let driver = Driver::new();
    let size = driver.ask(&[0x4100, 0, 0, 0]) & 0xfff_ffff;
    assert_eq!(driver.bench.word(SCRATCH), 0);
    driver.ask(&[0x4100, SCRATCH as u32, 0, size]);
    assert_eq!([0, 4, 8].map(|at| driver.bench.word(SCRATCH + at)), [1, 1, 1]);
}

#[test]
fn buffers_go_round_and_messages_cross_their_ends() {
    let mut driver = Driver::new();
    for number in 0..10 * SIZE as u32 {
        // Of different lengths, so that every place of the end comes up.
        let data = vec![0; 3 + number as usize % 5];
        driver.send(number & 0xffff, &[&[REQUEST | 0x550e][..], &data].concat());
        driver.send(0, &[FAST_REQUEST | 0x7000, number + 1]);
        assert_eq!(driver.take(), Some(vec![number & 0xffff, SUCCESS]));
        assert_eq!(driver.take(), Some(vec![0, EVENT | 0x7001, number + 1]));
    }
    assert!(driver.bench.misuse().is_empty());
}

#[test]
fn messages_that_nobody_takes_are_lost_not_kept() {
    let mut driver = Driver::new();
    for number in 0..SIZE as u32 {
        driver.send(0, &[FAST_REQUEST | 0x7000, number]);
    }
    assert_eq!(driver.bench.misuse()[0], "gpu0: no room for a message of the GuC");
    let taken = std::iter::from_fn(|| driver.take()).count() as u64;
    assert_eq!(taken, (SIZE - 1) / 3);
}

#[test]
fn a_reset_stops_it() {
    let driver = Driver::new();
    driver.bench.write(RESET, RESET_GUC);
    assert_eq!(driver.bench.read(STATUS), 1, "in reset");
    driver.bench.write(SCRATCH_REGISTERS, 0x4100);
    driver.bench.write(DOORBELL, 0);
    assert_eq!(driver.bench.read(SCRATCH_REGISTERS), 0x4100, "nobody answers");
}

#[test]
fn buffers_at_the_end_of_all_addresses_do_no_harm() {
    for key in [0x902, 0x903, 0x905, 0x906] {
        let mut driver = Driver::new();
        driver.send(0, &[REQUEST | 0x550e, 0, 0, 0]);
        driver.put(0, &[REQUEST | 0x550e, 0, 0, 0]);
        driver.ask(&[0x508, key << 16 | 2, u32::MAX - 3, u32::MAX]);
        driver.bench.write(DOORBELL, 0);
        assert_eq!(driver.ask(&[0x508, key << 16 | 2, 0, 0]), SUCCESS | 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_messages(
        words in prop::collection::vec(prop_oneof![any::<u32>(), Just(FAST_REQUEST | 0x4502), 0..16u32], 64),
        tail in any::<u32>(),
        head in any::<u32>(),
        configuration in prop::collection::vec((0x900..0x909u32, any::<u32>(), any_half()), 0..3),
    ) {
        let driver = Driver::new();
        driver.bench.put(TO_GUC, &words);
        driver.bench.put(TO_GUC_DESCRIPTOR, &[head, tail]);
        driver.bench.write(DOORBELL, 0);
        for (key, low, high) in configuration {
            driver.ask(&[0x508, key << 16 | 2, low, high]);
            driver.bench.write(DOORBELL, 0);
        }
    }
}

/// The upper half of an address.
fn any_half() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}
