//! Receiving one connection whose payload the sender's RDMA device writes into the buffer.

use std::net::TcpStream;

use anyhow::Result;
use devmem_provider::dma_buf::Mapping;

use super::connection::{Received, Session};
use super::cost::Cost;
use super::gather::{Held, Placed, Share};
use super::stripe::Next;
use super::taker::Taker;
use crate::rdma::Receiver;
use crate::transfer::Header;

impl Session<'_> {
    /// Receives a connection to its end.
    pub(super) fn receive_rdma<F: FnMut(&Header)>(
        &self,
        socket: TcpStream,
        receiver: &Receiver<'_>,
        mapping: &Mapping,
        taker: Taker<'_, F>,
    ) -> Result<Received> {
        let mut cost = Cost::start(self.gatherer.is_some());
        let mut landing = receiver.accept(socket, self.idle_limit)?;
        // Dropped before the landing, on errors too: then no copy reads what is not held any more.
        let mut taker = taker;
        let share = Share { batch_bytes: 0, held_fragments: landing.most_held() };
        let mut held = Held::new(self.gatherer.is_some());
        while taker.reader.next() != Next::Nothing {
            let Some(piece) = cost.of_receive(|| landing.next())? else { break };
            let ticket = cost.of(|| taker.take_extent(piece, mapping))?;
            held.push(piece);
            held.close(ticket);
            cost.of(|| {
                held.release_completed(taker.gathering.as_mut(), share, self.idle_limit, |pieces| {
                    landing.release(pieces.count() as u64)
                })
            })?;
            self.bar.inc(piece.length);
        }
        let placed = match taker.gathering.take() {
            Some(gathering) => gathering.finish(self.idle_limit)?,
            None => Placed::default(),
        };
        landing.release(held.take_all().count() as u64)?;
        let stripe = taker.reader.finish()?;
        landing.finish()?;
        Ok(Received {
            measured_system_calls: cost.system_calls(),
            cpu_time: cost.cpu_time(),
            stripe,
            fragment_bytes: landing.bytes(),
            linear_bytes: 0,
            fragments: landing.pieces(),
            placed,
            system_calls: landing.system_calls(),
            receives: cost.receives(),
            allocations: cost.allocations(),
        })
    }
}
