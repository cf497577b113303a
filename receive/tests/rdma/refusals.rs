//! What is refused, with which reason.

use std::fs::{File, Permissions, rename, set_permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use devmem_provider::{Error, ErrorKind, Placement, Request, Residency};
use devmem_receive::rdma::{AccessFlags, Device, ProtectionDomain, Registration, RegistrationRefusal};
use nix::errno::Errno;

use crate::harness::{Failure, Outcome, ensure};
use crate::privilege;
use crate::setup::{DEVICE, PLAIN_DEVICE, SIZE, domain, domain_of, is_in, provider, system};
use crate::witness::regions;

const LOCAL: AccessFlags = AccessFlags::LOCAL_WRITE;

/// What no device takes, with the reason, and what the kernel says to it.
fn bad() -> Vec<(Registration, RegistrationRefusal, Errno)> {
    use RegistrationRefusal::{BeyondEnd, Empty, InvalidAccess, Misaligned};
    let whole = || Registration::of(0, SIZE);
    vec![
        (Registration::of(0, 0), Empty, Errno::EINVAL),
        (Registration::of(0, SIZE + 1), BeyondEnd, Errno::EINVAL),
        (Registration::of(SIZE, 4096), BeyondEnd, Errno::EINVAL),
        (Registration::of(u64::MAX - 4095, SIZE).at(0), BeyondEnd, Errno::EINVAL),
        (whole().at(1), Misaligned, Errno::EINVAL),
        (Registration::of(1, 1).at(4096), Misaligned, Errno::EINVAL),
        (whole().access(AccessFlags::REMOTE_WRITE), InvalidAccess, Errno::EINVAL),
        (whole().access(AccessFlags::from_bits_retain(1 << 6 | 1)), InvalidAccess, Errno::EINVAL),
        (whole().access(AccessFlags::from_bits_retain(1 << 15 | 1)), InvalidAccess, Errno::EINVAL),
    ]
}

fn refused(error: Option<Error>, reason: RegistrationRefusal) -> Outcome {
    let error = error.ok_or("it was not refused")?;
    ensure!(RegistrationRefusal::of(&error) == Some(reason), "{reason:?} expected: {error:?}");
    ensure!(error.kind() == reason.kind() && error.remedy_text().is_some(), "{error:?}");
    Ok(())
}

pub(crate) fn what_no_device_takes() -> Outcome {
    let (domain, dma_buf) = (domain()?, system(SIZE)?.export()?);
    for (registration, reason, _) in bad() {
        let error = domain.register(&dma_buf, registration.clone()).err();
        ensure!(
            error.as_ref().is_some_and(|error| error.errno().is_none()),
            "the kernel was asked: {error:?}"
        );
        refused(error, reason).map_err(|failure| format!("{registration}: {failure}"))?;
    }
    Ok(())
}

/// What is refused without asking the kernel, the kernel refuses.
pub(crate) fn the_kernel_agrees() -> Outcome {
    let (domain, dma_buf) = (domain()?, system(SIZE)?.export()?);
    for (registration, _, errno) in bad() {
        let error = domain.register_unchecked(dma_buf.as_fd(), registration.clone()).err();
        let error = error.ok_or_else(|| format!("the kernel takes {registration}"))?;
        ensure!(error.errno() == Some(errno), "{registration}: {error:?}");
    }
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

pub(crate) fn what_this_device_does_not_offer() -> Outcome {
    let dma_buf = system(SIZE)?.export()?;
    let [full, plain] = [domain_of(DEVICE)?, domain_of(PLAIN_DEVICE)?];
    for access in [LOCAL | AccessFlags::REMOTE_READ, LOCAL | AccessFlags::REMOTE_WRITE] {
        full.probe(access)?;
        full.register(&dma_buf, Registration::whole(&dma_buf).access(access))?;
        let error = plain.register(&dma_buf, Registration::whole(&dma_buf).access(access)).err();
        refused(error, RegistrationRefusal::AccessNotOffered)?;
        refused(plain.probe(access).err(), RegistrationRefusal::AccessNotOffered)?;
    }
    plain.probe(LOCAL)?;
    // A wish that a device may ignore.
    plain.register(&dma_buf, Registration::whole(&dma_buf).access(LOCAL | AccessFlags::RELAXED_ORDERING))?;
    let atomic = Registration::whole(&dma_buf).access(LOCAL | AccessFlags::REMOTE_ATOMIC);
    refused(full.register(&dma_buf, atomic).err(), RegistrationRefusal::AccessNotOffered)
}

pub(crate) fn what_is_no_dma_buf() -> Outcome {
    let domain = domain()?;
    let file = File::open("/proc/version")?;
    let error = domain.register_unchecked(file.as_fd(), Registration::of(0, 4096)).err();
    refused(error, RegistrationRefusal::NotADmaBuf)
}

/// Does something while the node of a device is away.
fn without_node(work: impl FnOnce(&Device) -> Outcome) -> Outcome {
    let device = Device::find(DEVICE)?;
    let node = device.node.clone().ok_or("no node")?;
    let away = Path::new("/dev/infiniband/away");
    rename(&node, away)?;
    let result = work(&device);
    rename(away, &node)?;
    result
}

pub(crate) fn a_node_that_is_not_there() -> Outcome {
    without_node(|device| {
        let error = ProtectionDomain::open(device).err();
        println!("    {}", error.as_ref().map(ToString::to_string).unwrap_or_default());
        refused(error, RegistrationRefusal::MissingNode)
    })?;
    let mut device = Device::find(DEVICE)?;
    device.node = None;
    refused(ProtectionDomain::open(&device).err(), RegistrationRefusal::NoUserAccess)
}

pub(crate) fn a_node_that_may_not_be_opened() -> Outcome {
    let device = Device::find(DEVICE)?;
    let node = device.node.clone().ok_or("no node")?;
    let before = std::fs::metadata(&node)?.permissions();
    ensure!(before.mode() & 0o777 == 0o666, "the kernel lets everybody open it: {before:?}");
    set_permissions(&node, Permissions::from_mode(0o600))?;
    let error = privilege::without(|| Ok(ProtectionDomain::open(&device).err()));
    set_permissions(&node, before)?;
    let error = error?;
    println!("    {}", error.as_ref().map(ToString::to_string).unwrap_or_default());
    refused(error, RegistrationRefusal::NoPermission)
}

/// Memory that may lie on the device alone, without a way to it.
pub(crate) fn an_exporter_refuses() -> Outcome {
    let domain = domain()?;
    for name in ["xe", "i915"] {
        let request = Request::bytes(SIZE).require(Placement::DeviceLocal);
        let buffer = provider(name)?.allocate(&request)?;
        let dma_buf = buffer.export()?;
        let error = domain.register(&dma_buf, Registration::whole(&dma_buf)).err();
        refused(error, RegistrationRefusal::ExporterRefused)
            .map_err(|failure| format!("{name}: {failure}"))?;
        is_in(&*buffer, Residency::DeviceLocal)?;
    }
    ensure!(regions(0)?.is_empty(), "a region is left");
    Ok(())
}

pub(crate) fn a_refusal_leaves_nothing() -> Outcome {
    let (domain, dma_buf) = (domain_of(PLAIN_DEVICE)?, system(SIZE)?.export()?);
    let before = dma_buf.file_information()?.count;
    let open = descriptors()?;
    for _ in 0..20 {
        let registration = Registration::whole(&dma_buf).access(LOCAL | AccessFlags::REMOTE_READ);
        let error = domain.register(&dma_buf, registration).err().ok_or("it was not refused")?;
        ensure!(error.kind() == ErrorKind::Unsupported, "{error}");
    }
    ensure!(dma_buf.file_information()?.count == before, "references are left");
    ensure!(descriptors()? == open, "descriptors are left");
    Ok(())
}

pub(crate) fn descriptors() -> Result<usize, Failure> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}
