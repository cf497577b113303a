//! Receiving one connection, whichever way its payload takes.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use devmem_measure::{SystemCallCounter, allocations};
use devmem_provider::dma_buf::{Mapping, ReadAccess};
use devmem_receive::devmem::{Binding, Stream, StreamOptions};
use devmem_receive::stream::{Fragment, Part};
use indicatif::ProgressBar;

use super::stripe::{Next, Stripe, StripeReader};
use crate::transfer::Header;

/// How much of the buffer is looked at in one copy.
const LOOK: usize = 64 << 10;

/// How long a receive gathers. A copy has no use for the first bytes of a batch before the last ones.
const LINGER: Duration = Duration::from_secs(1);

/// Receives whose allocations are not counted: buffers of the first ones grow to their size.
const WARM_UP: u64 = 2;

/// Which way the payload takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'session> {
    /// The NIC writes into the buffer that is bound.
    Device { binding: &'session Binding, mapping: &'session Mapping },
    /// The CPU copies into the buffer.
    Copy { mapping: &'session Mapping },
    /// The payload stays in host memory.
    Host,
}

/// What the connections of a session share.
#[derive(Debug)]
pub(crate) struct Session<'session> {
    pub(crate) way: Way<'session>,
    pub(crate) buffer_bytes: u64,
    /// Whether payload is looked at.
    pub(crate) look: bool,
    pub(crate) output: Option<Arc<File>>,
    pub(crate) idle_limit: Duration,
    /// How many connections share the buffer, as far as is known.
    pub(crate) connections: AtomicUsize,
    pub(crate) bar: ProgressBar,
}

/// What a connection received and what that cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) stripe: Stripe,
    /// Bytes of the TCP stream that lie in the buffer, and that arrived in host memory.
    pub(crate) fragment_bytes: u64,
    pub(crate) linear_bytes: u64,
    /// Fragments received.
    pub(crate) fragments: u64,
    /// System calls of the receive path, as it counts them itself.
    pub(crate) system_calls: u64,
    /// System calls of the receiving thread, as the kernel counts them, where it may be asked.
    pub(crate) measured_system_calls: Option<u64>,
    /// Receives after the first few, and heap allocations in them.
    pub(crate) receives: u64,
    pub(crate) allocations: u64,
}

impl Session<'_> {
    /// Receives a connection to its end. `announce` is told the header as soon as it is known.
    pub(crate) fn receive(&self, socket: TcpStream, announce: impl FnMut(&Header)) -> Result<Received> {
        let reader = StripeReader::new(self.look, self.output.clone());
        let taker = Taker { reader, scratch: vec![0; LOOK], announce, announced: false, bar: &self.bar };
        match self.way {
            Way::Device { binding, mapping } => self.receive_device(socket, binding, mapping, taker),
            Way::Copy { mapping } => self.receive_host(socket, Some(mapping), taker),
            Way::Host => self.receive_host(socket, None, taker),
        }
    }

    fn receive_device<F: FnMut(&Header)>(
        &self,
        socket: TcpStream,
        binding: &Binding,
        mapping: &Mapping,
        mut taker: Taker<'_, F>,
    ) -> Result<Received> {
        let options = StreamOptions::default().linger(LINGER).idle_limit(self.idle_limit);
        let mut stream = binding.receive(socket, options)?;
        let mut fragments: Vec<Fragment> = Vec::with_capacity(1024);
        let mut cost = Cost::start();
        loop {
            stream.limit_batch(self.batch());
            let Some(parts) = cost.of(|| stream.next())? else { break };
            // Begun only when bytes are to be looked at, and once for all fragments of a receive.
            let mut access = None;
            for part in parts {
                match part {
                    Part::Linear(bytes) => taker.take(bytes)?,
                    Part::Fragment(fragment) => {
                        taker.take_fragment(fragment.range(), mapping, &mut access)?;
                        fragments.push(fragment);
                    }
                }
            }
            if let Some(access) = access {
                access.finish()?;
            }
            cost.of(|| stream.release(fragments.drain(..)))?;
        }
        finish_device(&mut stream, taker, cost)
    }

    /// What this connection may gather now.
    fn batch(&self) -> usize {
        StreamOptions::fair_batch(self.buffer_bytes, self.connections.load(Ordering::Relaxed))
    }

    fn receive_host<F: FnMut(&Header)>(
        &self,
        mut socket: TcpStream,
        mapping: Option<&Mapping>,
        mut taker: Taker<'_, F>,
    ) -> Result<Received> {
        socket.set_read_timeout(Some(self.idle_limit)).context("cannot set the socket up for receiving")?;
        let mut bytes = vec![0; self.batch()];
        let mut offset = 0;
        let (mut calls, mut total) = (0, 0);
        let mut cost = Cost::start();
        loop {
            calls += 1;
            let length = match cost.of(|| socket.read(&mut bytes)) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    bail!("nothing arrived for {} s", self.idle_limit.as_secs())
                }
                Err(error) => return Err(error).context("the connection is lost"),
            };
            let received = &bytes[..length];
            if let Some(mapping) = mapping {
                offset = copy_into(mapping, offset, received)?;
            }
            taker.take(received)?;
            total += length as u64;
        }
        let measured = cost.counter.as_mut().and_then(SystemCallCounter::read);
        Ok(Received {
            stripe: taker.reader.finish()?,
            fragment_bytes: 0,
            linear_bytes: total,
            fragments: 0,
            system_calls: calls,
            measured_system_calls: measured,
            receives: cost.receives(),
            allocations: cost.allocations,
        })
    }
}

fn finish_device<F>(stream: &mut Stream, taker: Taker<'_, F>, mut cost: Cost) -> Result<Received> {
    let measured = cost.counter.as_mut().and_then(SystemCallCounter::read);
    let statistics = stream.statistics();
    Ok(Received {
        stripe: taker.reader.finish()?,
        fragment_bytes: statistics.fragment_bytes,
        linear_bytes: statistics.linear_bytes,
        fragments: statistics.fragments,
        system_calls: statistics.system_calls(),
        measured_system_calls: measured,
        receives: statistics.receive_calls.saturating_sub(WARM_UP),
        allocations: cost.allocations,
    })
}

/// Copies `bytes` into the buffer from `offset` on, around its end. Returns where the next bytes go.
fn copy_into(mapping: &Mapping, mut offset: usize, mut bytes: &[u8]) -> Result<usize> {
    let access = mapping.write()?;
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(mapping.length() - offset));
        access.copy_from(offset, now)?;
        offset = (offset + now.len()) % mapping.length();
        bytes = later;
    }
    access.finish()?;
    Ok(offset)
}

/// Counts what receiving costs.
#[derive(Debug)]
struct Cost {
    counter: Option<SystemCallCounter>,
    steps: u64,
    allocations: u64,
}

impl Cost {
    fn start() -> Self {
        Self { counter: SystemCallCounter::start(), steps: 0, allocations: 0 }
    }

    /// Counts the allocations of one step, unless it is among the first.
    fn of<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let before = allocations::of_this_thread();
        let result = step();
        self.steps += 1;
        if self.steps > 2 * WARM_UP {
            self.allocations += allocations::of_this_thread() - before;
        }
        result
    }

    fn receives(&self) -> u64 {
        self.steps.saturating_sub(2 * WARM_UP)
    }
}

/// Takes received bytes, wherever they lie.
struct Taker<'session, F> {
    reader: StripeReader,
    scratch: Vec<u8>,
    announce: F,
    announced: bool,
    bar: &'session ProgressBar,
}

impl<F: FnMut(&Header)> Taker<'_, F> {
    fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.bar.inc(bytes.len() as u64);
        while !bytes.is_empty() {
            let used = match self.step(bytes.len())? {
                Step::Look(length) => {
                    self.reader.take(&bytes[..length])?;
                    length
                }
                Step::Pass(length) => length,
            };
            self.announce_once();
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn take_fragment<'mapping>(
        &mut self,
        range: Range<u64>,
        mapping: &'mapping Mapping,
        access: &mut Option<ReadAccess<'mapping>>,
    ) -> Result<()> {
        self.bar.inc(range.end - range.start);
        let mut offset = usize::try_from(range.start)?;
        let end = usize::try_from(range.end)?;
        while offset < end {
            offset += match self.step(end - offset)? {
                Step::Look(length) => {
                    let length = length.min(self.scratch.len());
                    if access.is_none() {
                        *access = Some(mapping.read()?);
                    }
                    if let Some(access) = access {
                        access.copy_to(offset, &mut self.scratch[..length])?;
                    }
                    self.reader.take(&self.scratch[..length])?;
                    length
                }
                Step::Pass(length) => length,
            };
            self.announce_once();
        }
        Ok(())
    }

    /// What to do with up to `available` bytes.
    fn step(&mut self, available: usize) -> Result<Step> {
        match self.reader.next() {
            Next::Look(wanted) => Ok(Step::Look(wanted.min(available))),
            Next::Pass(wanted) => {
                let length = usize::try_from(wanted).map_or(available, |wanted| wanted.min(available));
                self.reader.pass(length as u64);
                Ok(Step::Pass(length))
            }
            Next::Nothing => bail!("the peer sent more than it announced"),
        }
    }

    fn announce_once(&mut self) {
        if let (false, Some(header)) = (self.announced, self.reader.header()) {
            (self.announce)(header);
            self.announced = true;
        }
    }
}

enum Step {
    Look(usize),
    Pass(usize),
}
