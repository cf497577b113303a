//! Gathering on a device, without a NIC: against one contiguous copy, against the CPU, and what a fragment costs.
//!
//! Absolute figures depend on the machine; what is compared is measured in turns in one process. Every round is verified.

mod buffers;
mod content;
mod report;
mod sweep;
mod verification;
mod ways;

use std::sync::Arc;

use anyhow::{Result, bail};
use devmem_backends::cpu_copy::CpuCopy;
use devmem_backends::find;
use devmem_provider::device_copy::DeviceCopy;
use devmem_provider::{Extent, Placement, Provider};

use crate::arguments::GatherOptions;
use buffers::Buffers;
use content::Order;
use report::{Comparison, Report};
use verification::Reference;
use ways::{Spread, Way, fragments};

/// Measures and prints.
pub(crate) fn run(options: &GatherOptions) -> Result<()> {
    let bytes = u64::from(options.fragments).checked_mul(options.fragment_bytes);
    if bytes.is_none_or(|bytes| bytes == 0 || usize::try_from(bytes).is_err()) {
        bail!("cannot gather {} fragments of {} bytes", options.fragments, options.fragment_bytes);
    }
    let provider = find(&options.provider)?;
    let copy = provider.device_copy()?.unwrap_or_else(|| Arc::new(CpuCopy));
    let placement = options.placement.placement();
    let order = Order::shuffled(options.fragments, options.fragment_bytes, options.seed);
    let comparison = compare(&*provider, &*copy, placement, &order, options.rounds)?;
    let sweep =
        sweep::measure(&*provider, &*copy, placement, options.fragment_bytes, options.seed, options.rounds)?;
    let report = Report::new(options, provider.identity(), copy.worker(), comparison, sweep);
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// The ways in turns, each round verified.
fn compare(
    provider: &dyn Provider,
    copy: &dyn DeviceCopy,
    placement: Option<Placement>,
    order: &Order,
    rounds: u32,
) -> Result<Comparison> {
    let buffers = Buffers::new(provider, placement, order.bytes())?;
    let mut reference = Reference::new(provider, copy, placement, order.bytes())?;
    let pieces = fragments(order);
    let whole = [Extent::new(0, order.bytes())];
    let mut device = Way::new(copy, &buffers)?;
    let mut cpu = Way::new(&CpuCopy, &buffers)?;
    let mut seconds: [Vec<f64>; 4] = Default::default();
    // The first round makes ready what later ones find, and shows that the comparison sees differences.
    for round in 0..=rounds {
        let mut turns = [0, 1, 2, 3];
        if round % 2 == 1 {
            // Who comes first takes turns too. What is verified was copied over something else: a contiguous copy
            // comes between two gathers.
            turns = [2, 3, 0, 1];
        }
        for turn in turns {
            let (way, list) = match turn {
                0 => (&mut device, &whole[..]),
                1 => (&mut device, &pieces[..]),
                2 => (&mut cpu, &whole[..]),
                _ => (&mut cpu, &pieces[..]),
            };
            let time = way.time(list)?;
            if list.len() > 1 {
                reference.gathered(&buffers.destination, order, order.bytes())?;
            } else if round == 0 {
                reference.contiguous(&buffers.destination, order)?;
            }
            if round > 0 {
                seconds[turn].push(time);
            }
        }
    }
    let rates = |seconds: &[f64]| {
        let mebibytes = order.bytes() as f64 / f64::from(1 << 20);
        Spread::of(seconds.iter().map(|seconds| mebibytes / seconds.max(f64::MIN_POSITIVE)).collect())
    };
    match [rates(&seconds[0]), rates(&seconds[1]), rates(&seconds[2]), rates(&seconds[3])] {
        [Some(contiguous), Some(gather), Some(cpu_contiguous), Some(cpu_gather)] => {
            Ok(Comparison { gather, contiguous, cpu_gather, cpu_contiguous })
        }
        _ => bail!("there was no round"),
    }
}
