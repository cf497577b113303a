//! RDMA in software (`rdma_rxe`), on top of a NIC: a driver that makes no memory regions of DMA-bufs, and whose ports are
//! those of the NIC.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use devmem_provider::{Forecast, Pin, Require};
use devmem_receive::rdma::{AccessFlags, Device, Event, ProtectionDomain, RegistrationRefusal};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::harness::{Failure, Outcome, ensure};
use crate::setup::{SIZE, system};

const NAME: &str = "rxe0";
const NIC: &str = "eth0";

/// `rdma/rdma_netlink.h`: the client, its commands, and attributes that are text.
const NLDEV: u16 = 5 << 10;
const NEWLINK: u16 = 3;
const DEV_NAME: u16 = 2;
const NDEV_NAME: u16 = 51;
const LINK_TYPE: u16 = 65;
/// `NLM_F_REQUEST | NLM_F_ACK` of `linux/netlink.h`.
const WITH_ANSWER: u16 = 1 | 4;

/// Makes the device, if it does not exist.
fn device() -> Result<Device, Failure> {
    if let Ok(device) = Device::find(NAME) {
        return Ok(device);
    }
    let mut attributes = Vec::new();
    for (kind, text) in [(DEV_NAME, NAME), (LINK_TYPE, "rxe"), (NDEV_NAME, NIC)] {
        let length = u16::try_from(4 + text.len() + 1)?;
        attributes.extend(length.to_ne_bytes());
        attributes.extend(kind.to_ne_bytes());
        attributes.extend(text.as_bytes());
        attributes.push(0);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    let mut message = u32::try_from(16 + attributes.len())?.to_ne_bytes().to_vec();
    message.extend((NLDEV + NEWLINK).to_ne_bytes());
    message.extend(WITH_ANSWER.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(attributes);
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRDMA)?;
    sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    ensure!(error == Some(0), "the kernel says {error:?}");
    Ok(Device::find(NAME)?)
}

pub(crate) fn makes_no_regions_of_dma_bufs() -> Outcome {
    let device = device()?;
    ensure!(device.pci.is_none() && device.driver.is_none(), "{device:?}");
    let mut domain = ProtectionDomain::open(&device)?;
    let buffer = system(SIZE)?;
    let refusals = [
        domain.probe(AccessFlags::LOCAL_WRITE).err(),
        Pin::new(&mut domain, &*buffer, Require::Anywhere).err(),
    ];
    for error in refusals {
        let error = error.ok_or("it was registered")?;
        ensure!(RegistrationRefusal::of(&error) == Some(RegistrationRefusal::NoDmaBufSupport), "{error:?}");
        ensure!(error.remedy_text().is_some_and(|remedy| remedy.contains("rxe")), "{error}");
        println!("    {error}");
    }
    Forecast::of(&domain, &*buffer)?;
    Ok(())
}

pub(crate) fn ports_come_and_go_as_events() -> Outcome {
    let domain = ProtectionDomain::open(&device()?)?;
    let mut events = domain.events()?;
    while events.next_event()?.is_some() {}
    let mut wait_for = |wanted: Event| -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let mut ready = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, 100u16)?;
            while let Some(event) = events.next_event()? {
                seen.push(event);
            }
            if seen.contains(&wanted) {
                return Ok(());
            }
        }
        Err(format!("{wanted:?} did not come, but {seen:?}").into())
    };
    set_link("down")?;
    let down = wait_for(Event::PortDown(1));
    set_link("up")?;
    down?;
    wait_for(Event::PortActive(1))
}

fn set_link(state: &str) -> Outcome {
    let status = Command::new("ip").args(["link", "set", NIC, state]).status()?;
    ensure!(status.success(), "ip link set {state}");
    Ok(())
}
