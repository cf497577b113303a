//! Requests that fail: each with its own reason.

use devmem_provider::{Error, ErrorKind};
use devmem_receive::rdma::AccessFlags;
use devmem_receive::rdma::verbs::{
    CompletionStatus, QueuePairOptions, RemoteMemory, Transport, VerbsFailure,
};

use crate::harness::{Failure, Outcome, Test, ensure, tests};
use crate::sides::{MEMORY, Side, Sides, context};

pub(crate) const TESTS: &[Test] = tests! {
    peers_memory :: { wrong_key, beyond_its_end, without_access, deregistered },
    peers :: { gone, that_do_not_know_this_side, without_receives_of_that_length },
    own :: { memory_that_may_not_be_written, queues_that_are_full, queues_that_fail },
    devices :: { without_rdma, without_connections, with_less_room },
};

const SRD: Transport = Transport::ScalableReliableDatagram;

/// The next completion of a side failed, for this reason.
fn fails(side: &Side, expected: CompletionStatus) -> Result<Error, Failure> {
    let completion = side.completion()?;
    ensure!(completion.status == expected, "{completion:?}");
    let Err(error) = completion.ok("do it") else { return Err("it succeeded".into()) };
    ensure!(VerbsFailure::of(&error) == Some(VerbsFailure::Request(expected)), "{error}");
    Ok(error)
}

mod peers_memory {
    use super::*;

    /// A write, and a read, of 4096 bytes there; and afterwards the queue pair still works.
    fn access(sides: &Sides, there: RemoteMemory) -> Outcome {
        let Sides { one, other, to_other, .. } = sides;
        let part = one.memory.region().part(0, 4096)?;
        one.pair.write(1, part, there, None, to_other)?;
        let error = fails(one, CompletionStatus::RemoteAccess)?;
        ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        ensure!(error.to_string().contains("remote access error"), "{error}");
        one.pair.read(2, part, there, to_other)?;
        fails(one, CompletionStatus::RemoteAccess)?;
        one.pair.write(3, part, other.memory.region().remote(), None, to_other)?;
        one.completion()?.ok("write")?;
        Ok(())
    }

    pub(super) fn wrong_key() -> Outcome {
        let sides = Sides::of(SRD)?;
        let there = sides.other.memory.region().remote();
        access(&sides, RemoteMemory { key: there.key ^ 1 << 7, ..there })
    }

    pub(super) fn beyond_its_end() -> Outcome {
        let sides = Sides::of(SRD)?;
        access(&sides, sides.other.memory.region().remote().at(MEMORY as u64 - 4095))
    }

    pub(super) fn without_access() -> Outcome {
        let sides = Sides::of(SRD)?;
        let closed = sides.other.domain.host_memory(4096, AccessFlags::LOCAL_WRITE)?;
        access(&sides, closed.region().remote())
    }

    pub(super) fn deregistered() -> Outcome {
        let sides = Sides::of(SRD)?;
        let region = sides.other.domain.host_memory(4096, crate::sides::everything())?;
        let there = region.region().remote();
        drop(region);
        access(&sides, there)
    }
}

mod peers {
    use super::*;

    pub(super) fn gone() -> Outcome {
        let Sides { one, other, to_other, .. } = Sides::of(SRD)?;
        let there = other.memory.region().remote();
        let Side { pair, memory, completions, domain } = other;
        drop(pair);
        one.pair.write(1, one.memory.region().part(0, 64)?, there, None, &to_other)?;
        let error = fails(&one, CompletionStatus::NoSuchQueuePair)?;
        ensure!(error.kind() == ErrorKind::Gone, "{error}");
        drop((memory, completions, domain));
        Ok(())
    }

    /// RDMA takes an address handle on both sides.
    pub(super) fn that_do_not_know_this_side() -> Outcome {
        let (one, other) = (Side::of("efa_0", SRD)?, Side::of("efa_1", SRD)?);
        let to_other = one.pair.connect(&other.pair.endpoint())?;
        let part = one.memory.region().part(0, 64)?;
        one.pair.write(1, part, other.memory.region().remote(), None, &to_other)?;
        let error = fails(&one, CompletionStatus::UnknownToPeer)?;
        ensure!(error.kind() == ErrorKind::WrongState, "{error}");
        let _to_one = other.pair.connect(&one.pair.endpoint())?;
        one.pair.write(2, part, other.memory.region().remote(), None, &to_other)?;
        one.completion()?.ok("write")?;
        Ok(())
    }

    pub(super) fn without_receives_of_that_length() -> Outcome {
        let sides = Sides::of(SRD)?;
        let Sides { one, other, to_other, .. } = &sides;
        other.pair.receive(1, other.memory.region().part(0, 100)?)?;
        one.pair.send(1, one.memory.region().part(0, 101)?, None, to_other)?;
        fails(one, CompletionStatus::RemoteInvalidRequest)?;
        fails(other, CompletionStatus::LocalLength)?;
        let too_long = context("efa_0")?.capabilities().maximum_message_bytes + 1;
        one.pair.send(2, one.memory.region().part(0, too_long)?, None, to_other)?;
        fails(one, CompletionStatus::LocalLength)?;
        Ok(())
    }
}

mod own {
    use super::*;

    pub(super) fn memory_that_may_not_be_written() -> Outcome {
        let one = Side::with("efa_0", SRD, AccessFlags::empty())?;
        let sides = Sides::between(one, Side::of("efa_1", SRD)?)?;
        let Sides { one, other, to_other, .. } = &sides;
        let part = one.memory.region().part(0, 64)?;
        one.pair.read(1, part, other.memory.region().remote(), to_other)?;
        fails(one, CompletionStatus::LocalProtection)?;
        for (offset, length) in [(MEMORY as u64, 1), (u64::MAX, 1), (0, MEMORY as u32 + 1)] {
            let Err(error) = one.memory.region().part(offset, length) else {
                return Err(format!("{length} bytes at {offset}").into());
            };
            ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        }
        ensure!(one.memory.copy_from(MEMORY as u64 - 1, &[0; 2]).is_err(), "copied beyond the end");
        Ok(())
    }

    pub(super) fn queues_that_are_full() -> Outcome {
        let sides = Sides::of(SRD)?;
        let other = &sides.other;
        let full = (0..1000).find_map(|id| {
            other.memory.region().part(0, 64).and_then(|part| other.pair.receive(id, part)).err()
        });
        let error = full.ok_or("a queue without end")?;
        ensure!(VerbsFailure::of(&error) == Some(VerbsFailure::QueueFull), "{error}");
        ensure!(error.kind() == ErrorKind::Busy, "{error}");
        Ok(())
    }

    pub(super) fn queues_that_fail() -> Outcome {
        let sides = Sides::of(SRD)?;
        let Sides { one, other, to_other, .. } = &sides;
        other.pair.receive(5, other.memory.region().part(0, 64)?)?;
        other.pair.fail()?;
        let error = fails(other, CompletionStatus::Flushed)?;
        ensure!(error.kind() == ErrorKind::Gone, "{error}");
        one.pair.send(1, one.memory.region().part(0, 64)?, None, to_other)?;
        fails(one, CompletionStatus::NoSuchQueuePair)?;
        Ok(())
    }
}

mod devices {
    use super::*;

    pub(super) fn without_rdma() -> Outcome {
        let context = context("efa_2")?;
        let Err(error) = context.require_rdma_write() else { return Err("it has RDMA writes".into()) };
        ensure!(VerbsFailure::of(&error) == Some(VerbsFailure::NoRdmaWrite), "{error}");
        // Its peers do not read from it either, which its driver says of the region.
        let one = Side::with("efa_2", SRD, AccessFlags::LOCAL_WRITE)?;
        let sides = Sides::between(one, Side::of("efa_0", SRD)?)?;
        let Sides { one, other, to_other, .. } = &sides;
        let (part, there) = (one.memory.region().part(0, 64)?, other.memory.region().remote());
        for (result, expected) in [
            (one.pair.write(1, part, there, None, to_other), VerbsFailure::NoRdmaWrite),
            (one.pair.read(2, part, there, to_other), VerbsFailure::NoRdmaRead),
        ] {
            let Err(error) = result else { return Err("it was posted".into()) };
            ensure!(VerbsFailure::of(&error) == Some(expected), "{error}");
            ensure!(error.kind() == ErrorKind::Unsupported && error.remedy_text().is_some(), "{error}");
        }
        // Messages it has.
        other.pair.receive(1, other.memory.region().part(0, 64)?)?;
        one.pair.send(3, part, None, to_other)?;
        one.completion()?.ok("send")?;
        other.completion()?.ok("receive")?;
        Ok(())
    }

    pub(super) fn without_connections() -> Outcome {
        let context = context("efa_0")?;
        let (domain, completions) = (context.protection_domain()?, context.completion_queue(8)?);
        let options = QueuePairOptions::default().transport(Transport::ReliableConnection);
        let Err(error) = domain.queue_pair(&completions, &completions, options) else {
            return Err("EFA has connections".into());
        };
        ensure!(VerbsFailure::of(&error) == Some(VerbsFailure::NoSuchTransport), "{error}");
        Ok(())
    }

    pub(super) fn with_less_room() -> Outcome {
        let context = context("efa_0")?;
        let (domain, completions) = (context.protection_domain()?, context.completion_queue(8)?);
        let most = context.capabilities();
        for options in [
            QueuePairOptions::default().requests(0),
            QueuePairOptions::default().requests(most.maximum_requests + 1),
            QueuePairOptions::default().receives(most.maximum_receives + 1),
        ] {
            let Err(error) = domain.queue_pair(&completions, &completions, options) else {
                return Err(format!("{options:?}").into());
            };
            ensure!(error.kind() == ErrorKind::InvalidInput, "{error}");
        }
        Ok(())
    }
}
