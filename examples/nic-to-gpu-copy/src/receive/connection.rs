//! Receiving one connection, whichever way its payload takes.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use devmem_provider::dma_buf::Mapping;
use devmem_receive::devmem::StreamOptions;
use devmem_receive::path::Binding;
use indicatif::ProgressBar;

use super::cost::Cost;
use super::gather::{Gatherer, Held, Placed, Share};
use super::stripe::{Stripe, StripeReader};
use super::taker::Taker;
use crate::rdma::Receiver;
use crate::transfer::Header;

/// How long a receive gathers. A copy has no use for the first bytes of a batch before the last ones.
const LINGER: Duration = Duration::from_secs(1);

/// Which way the payload takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'session> {
    /// The NIC writes into the buffer that is bound.
    Device { binding: &'session Binding, mapping: &'session Mapping },
    /// The sender's device writes into the buffer that is registered.
    Rdma { receiver: &'session Receiver<'session>, mapping: &'session Mapping },
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
    /// Who makes the file contiguous, if somebody does.
    pub(crate) gatherer: Option<&'session Gatherer>,
    pub(crate) idle_limit: Duration,
    /// How many connections share the buffer, as far as is known.
    pub(crate) connections: AtomicUsize,
    pub(crate) bar: ProgressBar,
}

/// What a connection received and what that cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) stripe: Stripe,
    /// Bytes of the stream that lie in the buffer, and that arrived in host memory.
    pub(crate) fragment_bytes: u64,
    pub(crate) linear_bytes: u64,
    /// Fragments received.
    pub(crate) fragments: u64,
    /// What was brought to its place in the file.
    pub(crate) placed: Placed,
    /// System calls of the receive path, as it counts them itself.
    pub(crate) system_calls: u64,
    /// System calls of the receiving thread, as the kernel counts them, where it may be asked.
    pub(crate) measured_system_calls: Option<u64>,
    /// Processor time of the receiving thread.
    pub(crate) cpu_time: Duration,
    /// Receives after the first few, and heap allocations in them.
    pub(crate) receives: u64,
    pub(crate) allocations: u64,
}

impl Session<'_> {
    /// Receives a connection to its end. `announce` is told the header as soon as it is known.
    pub(crate) fn receive(&self, socket: TcpStream, announce: impl FnMut(&Header)) -> Result<Received> {
        let reader = StripeReader::new(self.look, self.output.clone());
        let from_buffer = matches!(self.way, Way::Device { .. } | Way::Rdma { .. });
        let taker = Taker::new(reader, announce, self.gatherer, from_buffer);
        match self.way {
            Way::Device { binding, mapping } => self.receive_device(socket, binding, mapping, taker),
            Way::Rdma { receiver, mapping } => self.receive_rdma(socket, receiver, mapping, taker),
            // What is gathered goes to its place at once.
            Way::Copy { mapping } => {
                self.receive_host(socket, Some(mapping).filter(|_| self.gatherer.is_none()), taker)
            }
            Way::Host => self.receive_host(socket, None, taker),
        }
    }

    fn receive_device<F: FnMut(&Header)>(
        &self,
        socket: TcpStream,
        binding: &Binding,
        mapping: &Mapping,
        taker: Taker<'_, F>,
    ) -> Result<Received> {
        let options = StreamOptions::default().linger(LINGER).idle_limit(self.idle_limit);
        let mut stream = binding.receive(socket, options)?;
        // Dropped before the stream, on errors too: then no copy reads what the kernel takes back for the NIC.
        let mut taker = taker;
        let mut held = Held::new(self.gatherer.is_some());
        let mut cost = Cost::start(self.gatherer.is_some());
        let mut total = 0;
        loop {
            let share = self.share();
            stream.limit_batch(share.batch_bytes);
            let Some(parts) = cost.of_receive(|| stream.next())? else { break };
            let ticket = cost.of(|| taker.take_parts(parts, mapping, |fragment| held.push(fragment)))?;
            held.close(ticket);
            cost.of(|| {
                held.release_completed(taker.gathering.as_mut(), share, self.idle_limit, |fragments| {
                    Ok(stream.release(fragments)?)
                })
            })?;
            self.bar.inc(stream.statistics().bytes() - total);
            total = stream.statistics().bytes();
        }
        let placed = match taker.gathering.take() {
            Some(gathering) => gathering.finish(self.idle_limit)?,
            None => Placed::default(),
        };
        stream.release(held.take_all())?;
        stream.flush()?;
        let statistics = stream.statistics();
        Ok(Received {
            measured_system_calls: cost.system_calls(),
            cpu_time: cost.cpu_time(),
            stripe: taker.reader.finish()?,
            fragment_bytes: statistics.fragment_bytes,
            linear_bytes: statistics.linear_bytes,
            fragments: statistics.fragments,
            placed,
            system_calls: statistics.system_calls(),
            receives: cost.receives(),
            allocations: cost.allocations(),
        })
    }

    /// How much of the buffer this connection may take now.
    fn share(&self) -> Share {
        let connections = self.connections.load(Ordering::Relaxed);
        match self.gatherer {
            Some(_) => Share::with_copies(self.buffer_bytes, connections),
            None => Share::without_copies(self.buffer_bytes, connections),
        }
    }

    fn receive_host<F: FnMut(&Header)>(
        &self,
        mut socket: TcpStream,
        mapping: Option<&Mapping>,
        mut taker: Taker<'_, F>,
    ) -> Result<Received> {
        socket.set_read_timeout(Some(self.idle_limit)).context("cannot set the socket up for receiving")?;
        let mut bytes = vec![0; self.share().batch_bytes];
        let mut offset = 0;
        let (mut calls, mut total) = (0, 0);
        let mut cost = Cost::start(self.gatherer.is_some());
        loop {
            calls += 1;
            let length = match cost.of_receive(|| socket.read(&mut bytes)) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    bail!("nothing arrived for {} s", self.idle_limit.as_secs())
                }
                Err(error) => return Err(error).context("the connection is lost"),
            };
            let received = &bytes[..length];
            cost.of(|| -> Result<()> {
                if let Some(mapping) = mapping {
                    offset = copy_into(mapping, offset, received)?;
                }
                taker.take(received)
            })?;
            self.bar.inc(length as u64);
            total += length as u64;
        }
        let placed = match taker.gathering.take() {
            Some(gathering) => gathering.finish(self.idle_limit)?,
            None => Placed { by_cpu: if mapping.is_some() { total } else { 0 }, ..Placed::default() },
        };
        Ok(Received {
            measured_system_calls: cost.system_calls(),
            cpu_time: cost.cpu_time(),
            stripe: taker.reader.finish()?,
            fragment_bytes: 0,
            linear_bytes: total,
            fragments: 0,
            placed,
            system_calls: calls,
            receives: cost.receives(),
            allocations: cost.allocations(),
        })
    }
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
