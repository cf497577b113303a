//! A connection in the middle of its stream, of which all that has arrived is held.

use devmem_receive::devmem::{RawErrno, StreamOptions, TokenRange};
use nix::errno::Errno;

use crate::context::Context;
use crate::ensure;
use crate::nic_under_test::Family;
use crate::path::{Place, RawSocket};
use crate::peer::{Session, Step};
use crate::setup::{Connection, Setup, options, script, sends};
use crate::verdict::{Skip, Stop};

/// How much is held where it does not matter, in bytes.
const HELD: u64 = 256 << 10;

/// A connection of which all that has arrived is held, and whose peer waits. The order of the fields is the order of
/// release.
#[derive(Debug)]
pub(in crate::checks) struct Holding {
    pub(in crate::checks) connection: Connection,
    pub(in crate::checks) places: Vec<Place>,
    pub(in crate::checks) setup: Setup,
    pub(in crate::checks) session: Session,
    /// What the peer sends in all, in bytes.
    bytes: u64,
}

impl Holding {
    pub(in crate::checks) fn new(context: &Context<'_>) -> Result<Self, Stop> {
        Self::with(context, Setup::new(context)?, HELD, options())
    }

    /// `bytes` of twice as many are received.
    pub(in crate::checks) fn with(
        context: &Context<'_>,
        setup: Setup,
        bytes: u64,
        options: StreamOptions,
    ) -> Result<Self, Stop> {
        let mut session = context.peer()?;
        let listener = setup.listen(context, Family::V4)?;
        let mut steps = vec![Step::Write { bytes, chunk: 64 << 10 }, Step::Barrier];
        steps.extend(sends(bytes));
        let script = script(listener.local_addr()?, steps);
        let mut connection = setup.accept(&listener, &mut session, script, options)?;
        let mut places = Vec::new();
        while connection.position < bytes {
            let more = connection.read(&setup.mapping)?;
            places.extend(more.ok_or_else(|| Stop::fail("the stream ended before its end"))?);
        }
        ensure!(!places.is_empty(), "nothing came into the buffer");
        Ok(Self { connection, places, setup, session, bytes: 2 * bytes })
    }

    /// The numbers of what is held, in ascending order.
    pub(super) fn tokens(&self) -> Vec<u32> {
        let mut tokens: Vec<u32> = self.places.iter().map(|place| place.fragment.token()).collect();
        tokens.sort_unstable();
        tokens
    }

    /// What is held, in as few ranges as possible.
    pub(super) fn ranges(&self) -> Vec<TokenRange> {
        let mut ranges: Vec<TokenRange> = Vec::new();
        for token in self.tokens() {
            match ranges.last_mut() {
                Some(range) if range.start + range.count == token => range.count += 1,
                _ => ranges.push(one(token)),
            }
        }
        ranges
    }

    /// The connection's socket.
    pub(super) fn raw(&self) -> Result<Box<dyn RawSocket + '_>, Stop> {
        self.connection.incoming.raw().ok_or_else(|| Stop::Skip(no_tokens()))
    }

    /// Gives ranges back in one call, of which the kernel must take `expected` fragments.
    pub(super) fn release(&self, what: &str, ranges: &[TokenRange], expected: usize) -> Result<(), Stop> {
        counted(what, self.raw()?.release(ranges), expected)
    }

    /// Gives back all that is held, each of which the kernel must take.
    pub(super) fn release_all(&self) -> Result<(), Stop> {
        for ranges in self.ranges().chunks(devmem_receive::devmem::RELEASE_RANGES) {
            let expected = ranges.iter().map(|range| range.count as usize).sum();
            self.release("what is held", ranges, expected)?;
        }
        Ok(())
    }

    /// Receives the rest of the stream.
    pub(in crate::checks) fn goes_on(&mut self) -> Result<(), Stop> {
        self.connection.proceed()?;
        self.connection.drain(&self.setup.mapping, self.bytes)
    }
}

/// The range of one token.
pub(super) fn one(token: u32) -> TokenRange {
    TokenRange { start: token, count: 1 }
}

/// Stops unless the kernel took `expected` fragments.
pub(super) fn counted(what: &str, released: Result<usize, RawErrno>, expected: usize) -> Result<(), Stop> {
    match released {
        Ok(count) if count == expected => Ok(()),
        Ok(count) => Err(Stop::fail(format!("{what}: the kernel took {count} fragments, not {expected}"))),
        Err(error) => Err(Stop::fail(format!("{what}: {error}"))),
    }
}

/// Stops unless the kernel refused with this error.
pub(super) fn refused(what: &str, released: Result<usize, RawErrno>, errno: Errno) -> Result<(), Stop> {
    match released {
        Err(RawErrno(number)) if number == errno as i32 => Ok(()),
        Err(error) => Err(Stop::fail(format!("{what}: refused with {error}, not {errno}"))),
        Ok(count) => Err(Stop::fail(format!("{what}: not refused; {count} fragments were taken"))),
    }
}

/// Why nothing can be said of tokens.
pub(in crate::checks) fn no_tokens() -> Skip {
    Skip {
        reason: "this receive path has no tokens".to_owned(),
        found_by: "asking it for its socket".to_owned(),
        remedy: None,
    }
}
