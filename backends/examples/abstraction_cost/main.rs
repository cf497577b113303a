//! What the traits cost: allocate, export and free through [`Provider`], against the same ioctls written straight.
//!
//! Both run in turns in one process. System calls are counted by the kernel's own tracepoint (root, or a
//! `perf_event_paranoid` of -1), times compared by the median of the rounds' ratios. Then buffers are held exported by
//! the hundreds, to see that nothing is left of them. One JSON object is printed; the exit code is 1 if a limit is
//! broken.
//!
//! ```sh
//! cargo build --package devmem-backends --example abstraction_cost
//! cargo lab run --gpu amdgpu -- target/debug/examples/abstraction_cost
//! ```

mod leftovers;
mod straight;
#[path = "../../../examples/nic-to-gpu-copy/src/measure/system_calls.rs"]
mod system_calls;

use std::process::ExitCode;
use std::time::Instant;

use devmem_backends::discover;
use devmem_provider::{Provider, Request};
use serde_json::{Value, json};

use straight::Straight;
use system_calls::SystemCallCounter;

type Failure = Box<dyn std::error::Error>;

/// A multiple of every driver's granularity, small enough for the work on memory not to hide what calls cost.
const BYTES: u64 = 64 << 10;
/// Allocations of one round.
const CYCLES: u32 = 200;
/// Rounds of each way, in turns.
const ROUNDS: usize = 15;
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
    for _ in 0..CYCLES {
        by_traits()?;
        by_hand()?;
    }
    let calls = (count(by_traits)?, count(by_hand)?);
    let mut ratios = Vec::new();
    let mut nanoseconds = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who comes first takes turns too.
        let (traits, hand) = if round % 2 == 0 {
            let traits = time(by_traits)?;
            (traits, time(by_hand)?)
        } else {
            let hand = time(by_hand)?;
            (time(by_traits)?, hand)
        };
        ratios.push(traits / hand);
        nanoseconds.0.push(traits);
        nanoseconds.1.push(hand);
    }
    let time_ratio = median(&mut ratios);
    let call_ratio = calls.0.zip(calls.1).map(|(traits, hand)| traits / hand);
    Ok(json!({
        "system_calls": { "traits": calls.0, "straight": calls.1, "ratio": call_ratio },
        "nanoseconds": {
            "traits": median(&mut nanoseconds.0).round(),
            "straight": median(&mut nanoseconds.1).round(),
            "ratio": time_ratio,
        },
        "within_limit": time_ratio <= LIMIT && call_ratio.is_none_or(|ratio| ratio <= LIMIT),
    }))
}

/// System calls of a cycle; `None` where the kernel lets nobody count.
fn count(cycle: impl Fn() -> Result<(), Failure>) -> Result<Option<f64>, Failure> {
    let Some(mut counter) = SystemCallCounter::start() else { return Ok(None) };
    for _ in 0..CYCLES {
        cycle()?;
    }
    Ok(counter.read().map(|count| count as f64 / f64::from(CYCLES)))
}

/// Nanoseconds of a cycle.
fn time(cycle: impl Fn() -> Result<(), Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    for _ in 0..CYCLES {
        cycle()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(CYCLES))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
