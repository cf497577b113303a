//! Objects that are dropped, in any order, and what is left of them.

use devmem_provider::{Importer, Placement, Request};
use devmem_receive::rdma::RegistrationRefusal;
use devmem_receive::rdma::verbs::{QueuePairOptions, Transport};
use devmem_receive::rdma::{AccessFlags, Registration};

use crate::harness::{Failure, Outcome, Test, ensure, tests};
use crate::sides::{Side, Sides, context, everything};

pub(crate) const TESTS: &[Test] = tests! {
    objects :: { leave_nothing_behind, may_be_dropped_in_any_order, are_dropped_with_requests_outstanding },
    regions :: { are_refused_with_the_reason },
};

/// Open descriptors, and mappings of devices.
fn held() -> Result<(usize, usize), Failure> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let devices = maps.lines().filter(|line| line.contains("infiniband")).count();
    Ok((std::fs::read_dir("/proc/self/fd")?.count(), devices))
}

mod objects {
    use super::*;

    pub(super) fn leave_nothing_behind() -> Outcome {
        let (first, second) = (context("efa_0")?, context("efa_1")?);
        let round = || -> Outcome {
            let side = |context| Side::on(context, Transport::ScalableReliableDatagram, everything());
            let sides = Sides::between(side(&first)?, side(&second)?)?;
            let Sides { one, other, to_other, .. } = &sides;
            let part = one.memory.region().part(0, 64)?;
            one.pair.write(1, part, other.memory.region().remote(), None, to_other)?;
            one.completion()?.ok("write")?;
            let more: Result<Vec<_>, _> = (0..3).map(|_| one.pair.connect(&other.pair.endpoint())).collect();
            drop(more?);
            Ok(())
        };
        // Libraries keep things after the first use.
        round()?;
        let before = held()?;
        // A device has 256 domains, and 1024 address handles.
        for _ in 0..300 {
            round()?;
        }
        let after = held()?;
        ensure!(after == before, "{before:?} descriptors and mappings before, {after:?} afterwards");
        Ok(())
    }

    pub(super) fn may_be_dropped_in_any_order() -> Outcome {
        let before = held()?;
        let Sides { one, other, to_other, to_one } = Sides::of(Transport::ScalableReliableDatagram)?;
        drop((one.completions, one.domain));
        // The queue pair keeps what it is completed in.
        one.pair.write(
            1,
            one.memory.region().part(0, 64)?,
            other.memory.region().remote(),
            None,
            &to_other,
        )?;
        drop((one.pair, to_one, other.domain, other.memory, other.completions));
        drop((one.memory, other.pair));
        drop(to_other);
        let after = held()?;
        ensure!(after == before, "{before:?} descriptors and mappings before, {after:?} afterwards");
        Ok(())
    }

    pub(super) fn are_dropped_with_requests_outstanding() -> Outcome {
        let sides = Sides::of(Transport::ScalableReliableDatagram)?;
        let Sides { one, to_other, .. } = &sides;
        // The other side has no receives: they are tried again and again.
        for id in 0..4 {
            one.pair.send(id, one.memory.region().part(0, 4096)?, None, to_other)?;
            one.pair.receive(id, one.memory.region().part(0, 4096)?)?;
        }
        drop(sides);
        Sides::of(Transport::ScalableReliableDatagram)?;
        Ok(())
    }
}

mod regions {
    use super::*;

    pub(super) fn are_refused_with_the_reason() -> Outcome {
        let context = context("efa_2")?;
        let gpu = devmem_backends::find("amdgpu")?;
        let buffer = gpu.allocate(&Request::bytes(1 << 20).prefer(Placement::DeviceLocal))?;
        let dma_buf = buffer.export()?;
        let domain = context.protection_domain()?;
        let reason = |registration| {
            domain.register(&dma_buf, registration).err().and_then(|error| RegistrationRefusal::of(&error))
        };
        for (registration, expected) in [
            (Registration::of(0, (1 << 20) + 1), RegistrationRefusal::BeyondEnd),
            (Registration::of(0, 0), RegistrationRefusal::Empty),
            (Registration::of(0, 4096).at(1), RegistrationRefusal::Misaligned),
            (Registration::of(0, 4096).access(AccessFlags::REMOTE_WRITE), RegistrationRefusal::InvalidAccess),
            // The device does not let peers write.
            (
                Registration::of(0, 4096).access(AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE),
                RegistrationRefusal::AccessNotOffered,
            ),
        ] {
            let said = registration.to_string();
            let found = reason(registration);
            ensure!(found == Some(expected), "{said}: {found:?}");
        }
        ensure!(reason(Registration::whole(&dma_buf)).is_none(), "all of it was refused");
        let mut importer = domain.clone();
        let error = domain.host_memory(0, AccessFlags::empty()).err().ok_or("no bytes were registered")?;
        ensure!(!importer.is_refusal_of_exporter(&error), "{error}");
        drop(importer.attach(&dma_buf)?);
        let completions = context.completion_queue(4)?;
        domain.queue_pair(&completions, &completions, QueuePairOptions::default())?;
        Ok(())
    }
}
