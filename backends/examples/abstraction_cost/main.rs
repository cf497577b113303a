//! What the traits cost: allocate, export and free through [`Provider`], against the same ioctls written straight.
//!
//! Both run in turns in one process, cycle by cycle, so that what disturbs one disturbs the other. System calls are
//! counted by the kernel's own tracepoint (root, or a `perf_event_paranoid` of -1), times compared by the medians of all
//! cycles. Then buffers are held exported by the hundreds, to see that nothing is left of them. One JSON object is
//! printed; the exit code is 1 if a limit is broken.
//!
//! ```sh
//! cargo build --release --package devmem-backends --example abstraction_cost
//! cargo lab run --flavour generic --gpu amdgpu --gpu i915:dg1 --gpu nouveau -- \
//!     target/release/examples/abstraction_cost
//! ```

mod leftovers;
mod straight;

use std::process::ExitCode;
use std::time::Instant;

use devmem_backends::discover;
use devmem_measure::SystemCallCounter;
use devmem_provider::{Provider, Request};
use serde_json::{Value, json};

use straight::Straight;

type Failure = Box<dyn std::error::Error>;

/// A multiple of every driver's granularity, small enough for the work on memory not to hide what calls cost.
const BYTES: u64 = 64 << 10;
/// Cycles over which system calls are counted.
const COUNTED: u32 = 100;
/// Cycles of each way that are timed.
const TIMED: usize = 3000;
/// How much more than the straight way the traits may take.
const LIMIT: f64 = 1.05;

fn main() -> ExitCode {
    match run() {
        Ok((report, true)) => {
            println!("{report:#}");
            ExitCode::SUCCESS
        }
        Ok((report, false)) => {
            println!("{report:#}");
            eprintln!("a limit is broken");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(Value, bool), Failure> {
    let mut reports = Vec::new();
    let mut within = true;
    let discovery = discover();
    for provider in &discovery.providers {
        let Some(straight) = Straight::of(&**provider, BYTES)? else { continue };
        let comparison = compare(&**provider, &straight)?;
        let leftovers = leftovers::look(&**provider)?;
        within &= comparison["within_limit"] == true && leftovers["left_over"] == 0;
        reports.push(json!({
            "provider": provider.identity().name,
            "bytes": BYTES,
            "cost": comparison,
            "exports": leftovers,
        }));
    }
    Ok((json!({ "limit": LIMIT, "providers": reports }), within))
}

/// Allocate, export, free.
fn through_the_traits(provider: &dyn Provider, request: &Request) -> Result<(), Failure> {
    let buffer = provider.allocate(request)?;
    let _dma_buf = buffer.export()?;
    Ok(())
}

fn compare(provider: &dyn Provider, straight: &Straight) -> Result<Value, Failure> {
    let request = Request::bytes(BYTES);
    let by_traits = || through_the_traits(provider, &request);
    let by_hand = || straight.cycle();
    // What is allocated once, and what the processor's caches lack at first.
    for _ in 0..COUNTED {
        by_traits()?;
        by_hand()?;
    }
    let calls = (count(by_traits)?, count(by_hand)?);
    let (mut traits, mut hand) = (Vec::with_capacity(TIMED), Vec::with_capacity(TIMED));
    for round in 0..TIMED {
        // Who comes first takes turns too.
        if round % 2 == 0 {
            traits.push(time(by_traits)?);
            hand.push(time(by_hand)?);
        } else {
            hand.push(time(by_hand)?);
            traits.push(time(by_traits)?);
        }
    }
    let nanoseconds = (median(traits), median(hand));
    let time_ratio = nanoseconds.0 as f64 / nanoseconds.1 as f64;
    let call_ratio = calls.0.zip(calls.1).map(|(traits, hand)| traits / hand);
    Ok(json!({
        "system_calls": { "traits": calls.0, "straight": calls.1, "ratio": call_ratio },
        "nanoseconds": {
            "traits": nanoseconds.0,
            "straight": nanoseconds.1,
            "ratio": time_ratio,
        },
        "within_limit": time_ratio <= LIMIT && call_ratio.is_none_or(|ratio| ratio <= LIMIT),
    }))
}

/// System calls of a cycle; `None` where the kernel lets nobody count.
fn count(cycle: impl Fn() -> Result<(), Failure>) -> Result<Option<f64>, Failure> {
    let Some(mut counter) = SystemCallCounter::start() else { return Ok(None) };
    for _ in 0..COUNTED {
        cycle()?;
    }
    Ok(counter.read().map(|count| count as f64 / f64::from(COUNTED)))
}

/// Nanoseconds of a cycle.
fn time(cycle: impl Fn() -> Result<(), Failure>) -> Result<u128, Failure> {
    let start = Instant::now();
    cycle()?;
    Ok(start.elapsed().as_nanos())
}

fn median(mut values: Vec<u128>) -> u64 {
    values.sort_unstable();
    let middle = values.get(values.len() / 2).copied().unwrap_or(u128::MAX);
    u64::try_from(middle).unwrap_or(u64::MAX)
}
