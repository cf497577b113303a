//! Bytes that arrive where they should.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use devmem_provider::dma_buf::Access;
use devmem_provider::{Importer, PeerToPeer, Pin, Placement, Request, Require, Residency};
use devmem_receive::rdma::verbs::{Completed, Transport, Woken};

use crate::harness::{Outcome, Test, ensure, tests};
use crate::sides::{LIMIT, Sides, context, everything, pattern};

pub(crate) const TESTS: &[Test] = tests! {
    srd :: { messages, writes_and_reads, writes_into_vram },
    ud :: { messages },
    waiting :: { is_woken_by_a_completion_and_by_another_descriptor },
};

mod srd {
    use super::*;

    pub(super) fn messages() -> Outcome {
        let sides = Sides::of(Transport::ScalableReliableDatagram)?;
        let Sides { one, other, to_other, to_one } = &sides;
        for (from, to, peer, immediate) in [
            (one, other, to_other, None),
            (other, one, to_one, Some(0x0102_0304)),
            (one, other, to_other, Some(0)),
        ] {
            let sent = pattern(5000, u64::from(from.pair.number()) + 1);
            from.fill(64, &sent)?;
            to.pair.receive(7, to.memory.region().part(4096, 8192)?)?;
            from.pair.send(9, from.memory.region().part(64, 5000)?, immediate, peer)?;
            let done = from.completion()?.ok("send")?;
            ensure!((done.id, done.operation) == (9, Some(Completed::Send)), "{done:?}");
            let received = to.completion()?.ok("receive")?;
            ensure!((received.id, received.operation) == (7, Some(Completed::Receive)), "{received:?}");
            ensure!((received.bytes, received.immediate) == (5000, immediate), "{received:?}");
            ensure!(received.queue_pair == to.pair.number(), "{received:?}");
            ensure!(to.read(4096, 5000)? == sent, "other bytes came");
        }
        Ok(())
    }

    pub(super) fn writes_and_reads() -> Outcome {
        let sides = Sides::of(Transport::ScalableReliableDatagram)?;
        let Sides { one, other, to_other, .. } = &sides;
        let sent = pattern(300_001, 3);
        one.fill(0, &sent)?;
        let there = other.memory.region().remote().at(4096);
        let bytes = u32::try_from(sent.len())?;
        let part = one.memory.region().part(0, bytes)?;

        // Nobody is told of the first.
        one.pair.write(1, part, there, None, to_other)?;
        ensure!(one.completion()?.ok("write")?.operation == Some(Completed::Write), "it was no write");
        ensure!(other.completions.poll()?.is_empty(), "the peer was told");
        ensure!(other.read(4096, sent.len())? == sent, "other bytes came");

        other.pair.receive(5, other.memory.region().part(0, 1)?)?;
        one.pair.write(2, part, there.at(1), Some(42), to_other)?;
        one.completion()?.ok("write")?;
        let told = other.completion()?.ok("receive")?;
        ensure!((told.id, told.operation) == (5, Some(Completed::WrittenByPeer)), "{told:?}");
        ensure!((told.bytes, told.immediate) == (bytes, Some(42)), "{told:?}");
        ensure!(other.read(4097, sent.len())? == sent, "other bytes came");

        one.fill(0, &vec![0; sent.len()])?;
        one.pair.read(3, part, there.at(1), to_other)?;
        ensure!(one.completion()?.ok("read")?.id == 3, "another request");
        ensure!(one.read(0, sent.len())? == sent, "other bytes were read");
        Ok(())
    }

    /// The domain is the importer; what a peer writes lies in the GPU's memory, and the GPU's driver still says so.
    pub(super) fn writes_into_vram() -> Outcome {
        const SIZE: u64 = 4 << 20;
        let gpu = devmem_backends::find("amdgpu")?;
        let buffer = gpu.allocate(&Request::bytes(SIZE).prefer(Placement::DeviceLocal))?;
        let sides = Sides::of(Transport::ScalableReliableDatagram)?;
        let Sides { one, other, to_other, .. } = &sides;
        let mut domain = other.domain.clone().with_access(everything());
        ensure!(Importer::peer_to_peer(&domain) == PeerToPeer::WhereReachable, "{domain:?}");
        ensure!(Importer::device(&domain).is_some(), "{domain:?}");
        let pin = Pin::new(&mut domain, &*buffer, Require::DeviceLocal)?;
        ensure!(pin.residency().residency == Residency::DeviceLocal, "{pin}");

        let sent = pattern(1 << 20, 5);
        one.fill(0, &sent)?;
        let part = one.memory.region().part(0, 1 << 20)?;
        for place in 0..4 {
            one.pair.write(place, part, pin.remote().at(place << 20), None, to_other)?;
            one.completion()?.ok("write into VRAM")?;
        }
        buffer.flush_peer_writes()?;
        let mapping = pin.dma_buf().map(Access::ReadWrite)?;
        let mut seen = vec![0; 1 << 20];
        for place in 0..4 {
            let access = mapping.read()?;
            access.copy_to(place << 20, &mut seen)?;
            access.finish()?;
            ensure!(seen == sent, "other bytes came");
        }
        // The GPU's memory is also read, and sent from.
        one.fill(0, &vec![0; 1 << 20])?;
        one.pair.read(9, part, pin.remote().at(2 << 20), to_other)?;
        one.completion()?.ok("read VRAM")?;
        ensure!(one.read(0, 1 << 20)? == sent, "other bytes were read");
        ensure!(buffer.residency()?.residency == Residency::DeviceLocal, "it moved");
        Ok(())
    }
}

mod ud {
    use super::*;

    /// Bytes before the message, of the routing header.
    const HEADER: u64 = 40;

    pub(super) fn messages() -> Outcome {
        let sides = Sides::of(Transport::UnreliableDatagram)?;
        let Sides { one, other, to_other, .. } = &sides;
        let sent = pattern(1000, 8);
        one.fill(0, &sent)?;
        other.pair.receive(1, other.memory.region().part(0, 2048)?)?;
        one.pair.send(2, one.memory.region().part(0, 1000)?, Some(7), to_other)?;
        one.completion()?.ok("send")?;
        let received = other.completion()?.ok("receive")?;
        ensure!((received.bytes, received.immediate) == (1040, Some(7)), "{received:?}");
        ensure!(other.read(HEADER, 1000)? == sent, "other bytes came");
        Ok(())
    }
}

mod waiting {
    use super::*;

    pub(super) fn is_woken_by_a_completion_and_by_another_descriptor() -> Outcome {
        let sides = Sides::of(Transport::ScalableReliableDatagram)?;
        let Sides { one, other, to_other, .. } = &sides;
        let (ours, theirs) = UnixStream::pair()?;
        let wait = |limit| other.completions.wait(Some(std::os::fd::AsFd::as_fd(&ours)), limit);
        ensure!(matches!(wait(Duration::from_millis(5))?, Woken::TimedOut), "something came");
        // Again and again: what is left of one wait must not wake the next.
        for round in 0..20 {
            other.pair.receive(round, other.memory.region().part(0, 64)?)?;
            std::thread::scope(|scope| -> Outcome {
                let waiter = scope.spawn(|| wait(LIMIT));
                one.pair.send(round, one.memory.region().part(0, 64)?, None, to_other)?;
                let Woken::Completions(found) = waiter.join().map_err(|_| "a thread panicked")?? else {
                    return Err("no completion".into());
                };
                ensure!(found.map(|completion| completion.id).eq([round]), "round {round}");
                Ok(())
            })?;
            one.completion()?.ok("send")?;
        }
        ensure!(matches!(wait(Duration::ZERO)?, Woken::TimedOut), "something came");
        drop(theirs);
        ensure!(matches!(wait(LIMIT)?, Woken::Other), "the end of the other was not seen");
        ensure!(other.completions.system_calls() > 0, "none was counted");
        let more = context("efa_0")?.capabilities().maximum_completions.saturating_add(1);
        ensure!(context("efa_0")?.completion_queue(more).is_err(), "{more} entries");
        Ok(())
    }
}
