//! How many fragments the kernel takes back, and says that it did.

use devmem_receive::devmem::{RELEASE_FRAGMENTS, TokenRange};

use super::DETACH_LIMIT;
use super::holding::{Holding, counted, one};
use super::of_a_socket;
use crate::check::Check;
use crate::context::Context;
use crate::ensure;
use crate::faults::Fault;
use crate::setup::{Setup, options};
use crate::verdict::{Finding, Outcome};

pub(super) const CHECKS: &[Check] = &[
    of_a_socket(
        "one_by_one",
        "Each token gives exactly one fragment back.",
        &[Fault::MiscountsTokens],
        one_by_one,
    ),
    of_a_socket(
        "ranges",
        "A range of tokens gives back as many fragments as it is long.",
        &[Fault::MiscountsTokens],
        ranges,
    ),
    of_a_socket(
        "pieces_of_a_page",
        "A page that is read in pieces comes with a token for each of them, and all must be given back.",
        &[Fault::MiscountsTokens, Fault::LosesTokens],
        pieces_of_a_page,
    ),
    of_a_socket(
        "limit_of_a_call",
        "One call takes 1024 fragments, and the next one takes the rest.",
        &[Fault::MiscountsTokens],
        limit_of_a_call,
    ),
    of_a_socket(
        "given_back_whole",
        "When all tokens are given back the kernel lets go of the buffer, though the connection is open.",
        &[Fault::LosesTokens, Fault::DeniesDetached],
        given_back_whole,
    ),
    of_a_socket(
        "given_back_again",
        "A token that was given back before gives nothing back, and harms nothing.",
        &[Fault::MiscountsTokens],
        given_back_again,
    ),
    of_a_socket(
        "never_issued",
        "Tokens that were never issued, from the first to the largest, give nothing back.",
        &[Fault::MiscountsTokens],
        never_issued,
    ),
    of_a_socket(
        "range_without_end",
        "A range that is longer than all tokens gives back what is held, and ends.",
        &[Fault::MiscountsTokens],
        range_without_end,
    ),
    of_a_socket(
        "numbers_of_another_connection",
        "The numbers of one connection's tokens give nothing back on another that has none.",
        &[Fault::MiscountsTokens],
        numbers_of_another_connection,
    ),
];

fn one_by_one(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    for token in holding.tokens() {
        holding.release(&format!("token {token}"), &[one(token)], 1)?;
    }
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn ranges(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    // The kernel gives the lowest number that is free, so that what arrives together is one range.
    let ranges = holding.ranges();
    ensure!(ranges.len() < holding.places.len(), "no two tokens follow each other: {:?}", holding.tokens());
    holding.release_all()?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn pieces_of_a_page(context: &Context<'_>) -> Outcome {
    let holding = Holding::with(context, Setup::new(context)?, 64 << 10, options().batch_bytes(1000))?;
    let mut pages: Vec<u64> = holding.places.iter().map(|place| place.offset / 4096).collect();
    pages.sort_unstable();
    pages.dedup();
    let (pages, pieces) = (pages.len(), holding.places.len());
    ensure!(pieces > pages, "{pieces} pieces lie in {pages} pages");
    for token in holding.tokens() {
        holding.release(&format!("token {token}"), &[one(token)], 1)?;
    }
    lets_go(holding)
}

fn limit_of_a_call(context: &Context<'_>) -> Outcome {
    let setup = Setup::of(context, 1, 16 << 20)?;
    let bytes = RELEASE_FRAGMENTS as u64 * 5000;
    let mut holding = Holding::with(context, setup, bytes, options())?;
    let ranges = holding.ranges();
    let (count, limit) = (holding.places.len(), RELEASE_FRAGMENTS);
    ensure!(count > limit, "{bytes} bytes arrived in {count} fragments");
    ensure!(ranges.len() == 1, "the tokens are not one range: {ranges:?}");
    holding.release("more than a call takes", &ranges, limit)?;
    holding.release("the same again", &ranges[..], 0)?;
    let rest = TokenRange { start: ranges[0].start + limit as u32, count: (count - limit) as u32 };
    holding.release("the rest", &[rest], count - limit)?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn given_back_whole(context: &Context<'_>) -> Outcome {
    let holding = Holding::new(context)?;
    holding.release_all()?;
    lets_go(holding)
}

/// Detaches while the connection is open.
fn lets_go(holding: Holding) -> Outcome {
    let Holding { connection, setup, .. } = holding;
    let told = setup.pin.into_attachment().detach(DETACH_LIMIT)?;
    ensure!(told, "the kernel still holds the buffer after {} s", DETACH_LIMIT.as_secs());
    drop(connection);
    Ok(Finding::Pass)
}

fn given_back_again(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    holding.release_all()?;
    let ranges = holding.ranges();
    holding.release("the same again", &ranges[..ranges.len().min(128)], 0)?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn never_issued(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let held = holding.tokens();
    let highest = held.last().copied().unwrap_or_default();
    let never = [0, highest + 1, i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX];
    for token in never.into_iter().filter(|token| !held.contains(token)) {
        holding.release(&format!("token {token}"), &[one(token)], 0)?;
    }
    holding.release("no token", &[TokenRange { start: highest, count: 0 }], 0)?;
    holding.release_all()?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn range_without_end(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let count = holding.places.len();
    let tokens = holding.tokens();
    ensure!(tokens.last().is_some_and(|&last| last < RELEASE_FRAGMENTS as u32), "the tokens are {tokens:?}");
    holding.release("a range without end", &[TokenRange { start: 0, count: u32::MAX }], count)?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}

fn numbers_of_another_connection(context: &Context<'_>) -> Outcome {
    let mut holding = Holding::new(context)?;
    let idle = holding.setup.connect(context, &mut holding.session, crate::setup::sends(4096))?;
    let raw = idle.incoming.raw().ok_or_else(|| crate::Stop::Skip(super::holding::no_tokens()))?;
    let ranges = holding.ranges();
    counted("another connection's tokens", raw.release(&ranges[..ranges.len().min(128)]), 0)?;
    drop(raw);
    drop(idle);
    holding.release_all()?;
    holding.goes_on()?;
    Ok(Finding::Pass)
}
