//! Reliable connections, by the kernel's RDMA device of software (`rdma_rxe`) with itself.

use std::process::Command;

use devmem_provider::{ErrorKind, Request};
use devmem_receive::rdma::verbs::{Completed, CompletionStatus, RemoteMemory, Transport};
use devmem_receive::rdma::{Device, Registration, RegistrationRefusal};

use crate::harness::{Failure, Outcome, Test, ensure, tests};
use crate::sides::{Side, Sides, context, pattern};

pub(crate) const TESTS: &[Test] = tests! {
    rc :: { messages, writes_and_reads, wrong_key, dma_bufs_are_refused },
};

const DEVICE: &str = "rxe0";

/// Two queue pairs that are connected with each other.
fn connected() -> Result<Sides, Failure> {
    if Device::find(DEVICE).is_err() {
        let added =
            Command::new("rdma").args(["link", "add", DEVICE, "type", "rxe", "netdev", "eth0"]).output()?;
        ensure!(added.status.success(), "{added:?}");
    }
    let side = || Side::of(DEVICE, Transport::ReliableConnection);
    Sides::between(side()?, side()?)
}

mod rc {
    use super::*;

    pub(super) fn messages() -> Outcome {
        let sides = connected()?;
        let Sides { one, other, to_other, to_one } = &sides;
        for (from, to, peer) in [(one, other, to_other), (other, one, to_one)] {
            let sent = pattern(10_000, u64::from(from.pair.number()) + 1);
            from.fill(0, &sent)?;
            to.pair.receive(3, to.memory.region().part(50_000, 20_000)?)?;
            from.pair.send(4, from.memory.region().part(0, 10_000)?, Some(8), peer)?;
            from.completion()?.ok("send")?;
            let received = to.completion()?.ok("receive")?;
            ensure!(
                (received.id, received.bytes, received.immediate) == (3, 10_000, Some(8)),
                "{received:?}"
            );
            ensure!(to.read(50_000, 10_000)? == sent, "other bytes came");
        }
        Ok(())
    }

    pub(super) fn writes_and_reads() -> Outcome {
        let sides = connected()?;
        let Sides { one, other, to_other, .. } = &sides;
        let sent = pattern(200_000, 11);
        one.fill(0, &sent)?;
        let there = other.memory.region().remote();
        let part = one.memory.region().part(0, 200_000)?;
        other.pair.receive(1, other.memory.region().part(0, 1)?)?;
        one.pair.write(2, part, there.at(1000), Some(77), to_other)?;
        ensure!(one.completion()?.ok("write")?.operation == Some(Completed::Write), "it was no write");
        let told = other.completion()?.ok("receive")?;
        ensure!((told.operation, told.immediate) == (Some(Completed::WrittenByPeer), Some(77)), "{told:?}");
        ensure!(other.read(1000, 200_000)? == sent, "other bytes came");
        one.fill(0, &vec![0; 200_000])?;
        one.pair.read(3, part, there.at(1000), to_other)?;
        ensure!(one.completion()?.ok("read")?.operation == Some(Completed::Read), "it was no read");
        ensure!(one.read(0, 200_000)? == sent, "other bytes were read");
        Ok(())
    }

    pub(super) fn wrong_key() -> Outcome {
        let sides = connected()?;
        let Sides { one, other, to_other, .. } = &sides;
        let there = other.memory.region().remote();
        let wrong = RemoteMemory { key: there.key ^ 0xff00, ..there };
        one.pair.write(1, one.memory.region().part(0, 64)?, wrong, None, to_other)?;
        let failed = one.completion()?;
        ensure!(failed.status == CompletionStatus::RemoteAccess, "{failed:?}");
        // A connection ends with that.
        one.pair.write(2, one.memory.region().part(0, 64)?, there, None, to_other)?;
        let flushed = one.completion()?;
        ensure!(flushed.status == CompletionStatus::Flushed, "{flushed:?}");
        Ok(())
    }

    pub(super) fn dma_bufs_are_refused() -> Outcome {
        drop(connected()?);
        let domain = context(DEVICE)?.protection_domain()?;
        let dma_buf = devmem_backends::find("udmabuf")?.allocate(&Request::bytes(4096))?.export()?;
        let Err(error) = domain.register(&dma_buf, Registration::whole(&dma_buf)) else {
            return Err("rxe registers DMA-bufs".into());
        };
        let refusal = RegistrationRefusal::of(&error);
        ensure!(refusal == Some(RegistrationRefusal::NoDmaBufSupport), "{refusal:?}: {error}");
        ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
        Ok(())
    }
}
