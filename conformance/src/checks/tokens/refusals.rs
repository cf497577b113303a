//! What the kernel refuses to take.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use devmem_receive::devmem::{RELEASE_RANGES, TokenRange};
use nix::errno::Errno;

use super::holding::{Holding, no_tokens, one, refused};
use super::of_a_socket;
use crate::check::Check;
use crate::context::Context;
use crate::faults::Fault;
use crate::verdict::{Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    of_a_socket(
        "too_many_ranges",
        "More than 128 ranges in one call are refused, and nothing of them is given back.",
        &[Fault::AcceptsAnyRelease, Fault::MiscountsTokens],
        too_many_ranges,
    ),
    of_a_socket(
        "part_of_a_range",
        "A call that is not made of whole ranges is refused, and nothing of it is given back.",
        &[Fault::AcceptsAnyRelease],
        part_of_a_range,
    ),
    of_a_socket(
        "socket_of_another_protocol",
        "Only a TCP socket takes tokens.",
        &[Fault::AcceptsAnyRelease],
        socket_of_another_protocol,
    ),
];

fn too_many_ranges(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let first = holding.tokens()[0];
    let empty = TokenRange { start: first, count: 0 };
    let mut ranges = vec![one(first)];
    ranges.resize(RELEASE_RANGES + 1, empty);
    refused("129 ranges", holding.raw()?.release(&ranges), Errno::EINVAL)?;
    ranges.truncate(RELEASE_RANGES);
    holding.release("128 ranges", &ranges, 1)?;
    holding.places.retain(|place| place.fragment.token() != first);
    holding.release_all()?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn part_of_a_range(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let range = one(holding.tokens()[0]);
    let mut value = range.start.to_ne_bytes().to_vec();
    value.extend(range.count.to_ne_bytes());
    value.extend(value.clone());
    for length in [1, 4, 7, 9, 12, 15] {
        let what = format!("{length} bytes");
        refused(&what, holding.raw()?.release_bytes(&value[..length]), Errno::EINVAL)?;
    }
    holding.release_all()?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn socket_of_another_protocol(context: &Context<'_>) -> Outcome {
    let udp = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
    let unix = UnixDatagram::unbound()?;
    for (what, socket) in [("a UDP socket", udp.as_fd()), ("a UNIX socket", unix.as_fd())] {
        let raw = context.path()?.raw(socket).ok_or_else(|| Stop::Skip(no_tokens()))?;
        refused(what, raw.release(&[one(0)]), Errno::EBADF)?;
    }
    Ok(Finding::Pass)
}
