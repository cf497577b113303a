//! Registrations with io_uring that are wrong in one member.
//!
//! The kernel's checks, in their order, are in `io_register_zcrx()` and what it calls (`io_uring/zcrx.c`).

use std::os::fd::{AsFd, AsRawFd};

use devmem_provider::ErrorKind;
use devmem_receive::zcrx::{RawRegistration, RawRingKind};
use nix::errno::Errno;

use super::super::pin::settled;
use super::super::refused;
use super::bench::Bench;
use super::{REFUSALS, check};
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::need::Need;
use crate::path::{Feature, Holder, Rings};
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    of_rings(
        "wrong_registrations",
        "A registration that is wrong in one member, or with an unsuitable ring, is refused with the kernel's errno for \
         it and leaves the queue as it is; the same without the mistake is accepted.",
        wrong_registrations,
    ),
    of_rings(
        "one_queue_for_a_buffer",
        "Several queues for one buffer, whose pages each would hand out, are refused with what to do.",
        one_queue_for_a_buffer,
    ),
];

const fn of_rings(name: &'static str, proves: &'static str, run: fn(&Context<'_>) -> Outcome) -> Check {
    check(name, proves, REFUSALS, run).needing(&[Need::Nic, Need::Path(Feature::Rings)])
}

/// The path's rings.
fn rings<'run>(context: &'run Context<'_>) -> Result<Box<dyn Rings + 'run>, Stop> {
    let path = context.path()?;
    path.rings().ok_or_else(|| Stop::Skip(Feature::Rings.missing_in(path.name())))
}

/// Puts a mistake into a registration.
type Mistake = fn(&mut RawRegistration);

/// What is wrong, and what the kernel says to it.
const MISTAKES: &[(&str, Mistake, Errno)] = &[
    (
        "completions of 16 bytes (no IORING_SETUP_CQE32)",
        |wrong| wrong.ring = RawRingKind::ShortCompletions,
        Errno::EINVAL,
    ),
    (
        "work that is not deferred (no IORING_SETUP_DEFER_TASKRUN)",
        |wrong| wrong.ring = RawRingKind::UndeferredWork,
        Errno::EINVAL,
    ),
    ("a number that the kernel gives", |wrong| wrong.id = 1, Errno::EINVAL),
    ("flags that there are not", |wrong| wrong.flags = 1 << 31, Errno::EINVAL),
    ("no queue", |wrong| wrong.queue = u32::MAX, Errno::EINVAL),
    ("a refill ring without entries", |wrong| wrong.refill_entries = 0, Errno::EINVAL),
    ("a refill ring that is too long", |wrong| wrong.refill_entries = 32769, Errno::EINVAL),
    ("a refill ring that does not fit its region", |wrong| wrong.refill_entries = 1024, Errno::EINVAL),
    ("a region of half a page", |wrong| wrong.region_bytes = 2048, Errno::EINVAL),
    ("an interface that there is not", |wrong| wrong.interface = i32::MAX as u32, Errno::ENODEV),
    ("an area that begins within the DMA-buf", |wrong| wrong.area_address = 4096, Errno::EINVAL),
    ("an area without length", |wrong| wrong.area_bytes = 0, Errno::EFAULT),
    ("an area that is shorter than the DMA-buf", |wrong| wrong.area_bytes -= 4096, Errno::EINVAL),
    ("an area that is longer than the DMA-buf", |wrong| wrong.area_bytes += 4096, Errno::EINVAL),
    ("an area of half a page", |wrong| wrong.area_bytes = 2048, Errno::EINVAL),
    ("flags of the area that there are not", |wrong| wrong.area_flags = 1 << 31, Errno::EINVAL),
    ("a descriptor that is not open", |wrong| wrong.descriptor = i32::MAX, Errno::EBADF),
    ("receive buffers of 5000 bytes", |wrong| wrong.buffer_bytes = 5000, Errno::EINVAL),
    ("receive buffers of half a page", |wrong| wrong.buffer_bytes = 2048, Errno::EINVAL),
];

fn wrong_registrations(context: &Context<'_>) -> Outcome {
    let (bench, rings) = (Bench::new(context, 1)?, rings(context)?);
    let queue = bench.queues()[0];
    let right = RawRegistration::new(bench.nic.nic(), queue, &bench.dma_buf);
    let no_dma_buf = std::io::pipe()?.0;
    let mut all: Vec<(&str, RawRegistration, Errno)> = MISTAKES
        .iter()
        .map(|&(what, mistake, errno)| {
            let mut wrong = right;
            mistake(&mut wrong);
            (what, wrong, errno)
        })
        .collect();
    let mut pipe = right;
    pipe.descriptor = no_dma_buf.as_fd().as_raw_fd();
    all.push(("a descriptor that is no DMA-buf", pipe, Errno::EINVAL));
    for (what, wrong, expected) in all {
        match rings.attempt(&wrong)? {
            Err(errno) if errno == expected => {}
            Err(errno) => return Err(Stop::fail(format!("{what}: refused with {errno}, not {expected}"))),
            Ok(()) => return Err(Stop::fail(format!("{what}: was not refused"))),
        }
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "{what}: refused, and queue {queue} has {told:?}");
    }
    let accepted = rings.attempt(&right)?;
    ensure!(accepted.is_ok(), "the same without a mistake is refused: {accepted:?}");
    // The kernel closes rings in the background.
    settled(
        || Ok(bench.holder(queue)?.is_none()),
        "a ring that is closed still has the queue after a while",
    )?;
    let attached = bench.attach(&[queue])?;
    let told = bench.holder(queue)?;
    ensure!(told == Some(Holder::IoUring), "afterwards queue {queue} has {told:?}");
    drop(attached);
    Ok(Finding::Pass)
}

fn one_queue_for_a_buffer(context: &Context<'_>) -> Outcome {
    let bench = Bench::new(context, 2)?;
    for queues in [bench.queues(), &[]] {
        let what = format!("binding queues {queues:?}");
        refused(&what, bench.attach(queues), &[ErrorKind::Unsupported])?;
    }
    for &queue in bench.queues() {
        let told = bench.holder(queue)?;
        ensure!(told.is_none(), "it was refused, and queue {queue} has {told:?}");
    }
    Ok(Finding::Pass)
}
