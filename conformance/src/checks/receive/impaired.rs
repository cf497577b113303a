//! Packets that are lost, overtake each other, or come twice.

use super::check;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::nic_under_test::Family;
use crate::peer::{Counts, Impaired, Impairment, Session, Step};
use crate::setup::{Setup, options, script};
use crate::verdict::{Figure, Finding, Outcome, Stop};

pub(super) const CHECKS: &[Check] = &[
    check(
        "lost_packets",
        "A stream of which packets are lost on the way and sent again arrives: every byte once, in order, in the buffer.",
        &[Fault::DropsBytes, Fault::SwapsFragments, Fault::LinearInstead],
        lost_packets,
    ),
    check(
        "reordered_packets",
        "A stream whose packets overtake each other arrives: every byte once, in order, in the buffer.",
        &[Fault::SwapsFragments, Fault::WrongOffset, Fault::LinearInstead],
        reordered_packets,
    ),
    check(
        "duplicated_packets",
        "A stream whose packets come twice arrives: every byte once, in order, in the buffer.",
        &[Fault::ReportsTwice, Fault::DropsBytes, Fault::LinearInstead],
        duplicated_packets,
    ),
];

/// How much is sent over one connection, in writes of less than a packet each: the more packets, the surer is that some
/// of them are impaired.
const BYTES: u64 = 512 << 10;
const CHUNK: u32 = 1400;

/// How many connections are tried until an impairment has shown.
const ROUNDS: usize = 6;

/// What is known of one connection's packets.
#[derive(Debug)]
struct Seen {
    /// By the peer's queueing discipline.
    impaired: Impaired,
    /// By TCP on the sending side.
    sender: Counts,
    /// By TCP on the receiving side.
    receiver: Counts,
}

impl Seen {
    fn figures(&self) -> Vec<Figure> {
        let figure = |name, count: u32| Figure::new(name, count.into(), "packets");
        vec![
            figure("dropped by the peer", self.impaired.dropped),
            figure("sent again", self.sender.sent_again),
            figure("arrived twice", self.sender.had_already),
            figure("arrived out of order", self.receiver.out_of_order),
        ]
    }
}

fn lost_packets(context: &Context<'_>) -> Outcome {
    let impairment = Impairment { loss: 30, ..Impairment::default() };
    impaired(context, impairment, "no packet was lost", |seen| {
        seen.impaired.dropped > 0 && seen.sender.sent_again > 0
    })
}

fn reordered_packets(context: &Context<'_>) -> Outcome {
    // Those that overtake are not delayed.
    let impairment = Impairment { reorder: 250, delay: 3, ..Impairment::default() };
    impaired(context, impairment, "no packet has overtaken another", |seen| seen.receiver.out_of_order > 0)
}

fn duplicated_packets(context: &Context<'_>) -> Outcome {
    let impairment = Impairment { duplicate: 100, ..Impairment::default() };
    impaired(context, impairment, "no packet came twice", |seen| seen.sender.had_already > 0)
}

/// Receives connections whose packets are impaired, until that has shown in one.
fn impaired(
    context: &Context<'_>,
    impairment: Impairment,
    nothing: &str,
    has_shown: fn(&Seen) -> bool,
) -> Outcome {
    let (setup, mut session) = (Setup::new(context)?, context.peer()?);
    let mut last = None;
    for _ in 0..ROUNDS {
        let seen = received(context, &setup, &mut session, impairment)?;
        if has_shown(&seen) {
            return Ok(Finding::Measured(seen.figures()));
        }
        last = Some(seen);
    }
    Err(Stop::fail(format!(
        "{nothing} in {ROUNDS} connections, so that nothing is proven; the last: {last:?}"
    )))
}

/// Receives one connection, whose packets are impaired once it is there.
fn received(
    context: &Context<'_>,
    setup: &Setup,
    session: &mut Session,
    impairment: Impairment,
) -> Result<Seen, Stop> {
    let listener = setup.listen(context, Family::V4)?;
    let address = listener.local_addr()?;
    let write = Step::Write { bytes: BYTES, chunk: CHUNK };
    let mut script = script(address, vec![Step::Barrier, write, Step::FinishWriting, Step::AwaitEnd]);
    script.no_delay = true;
    let mut connection = setup.accept(&listener, session, script, options())?;
    let impairing = session.impair(address.ip(), impairment)?;
    connection.proceed()?;
    let mut in_buffer = 0;
    while let Some(places) = connection.read(&setup.mapping)? {
        in_buffer += places.iter().map(|place| u64::from(place.length)).sum::<u64>();
        connection.incoming.release(&places)?;
    }
    ensure!(connection.position == BYTES, "{} of {BYTES} bytes arrived", connection.position);
    ensure!(in_buffer == BYTES, "of {BYTES} bytes {in_buffer} lie in the buffer");
    let receiver = Counts::of(&connection.socket)?;
    let sender = connection.ended()?.counts;
    Ok(Seen { impaired: impairing.lift()?, sender, receiver })
}
