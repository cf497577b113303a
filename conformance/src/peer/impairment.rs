//! Impairing what the peer sends: packets that are lost, late, twice there, or in another order.

use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use devmem_receive::netlink::{self, Netem, Route, TrafficControl};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::verdict::Skip;

/// The handle of our netem, by which that of a peer that was killed is known again.
const HANDLE: u16 = 0xde7e;

/// How long an impairment of another session is waited for: the one before may be ending.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest delay, so that a connection of control over the same device stays usable.
const LONGEST_DELAY: u16 = 500;
/// The greatest loss, in parts of a thousand; likewise.
const GREATEST_LOSS: u16 = 300;

/// What becomes of the packets that the peer sends, in parts of a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Impairment {
    /// Packets that are dropped.
    pub(crate) loss: u16,
    /// Packets that overtake those that are delayed.
    pub(crate) reorder: u16,
    /// Packets that are sent twice.
    pub(crate) duplicate: u16,
    /// How long packets are delayed, in milliseconds.
    pub(crate) delay: u16,
}

/// What an impairment has done, by the count of the device's queueing discipline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Impaired {
    /// Packets that were sent, the lost ones not counted. A packet of the device may be many of the wire's.
    pub(crate) sent: u32,
    /// Packets that were dropped.
    pub(crate) dropped: u32,
}

/// An impairment that is in effect. Dropping it lifts it.
#[derive(Debug)]
pub(super) struct InEffect {
    control: TrafficControl,
    ifindex: u32,
    /// Held by one peer of the network namespace at a time; the kernel takes it from one that is gone.
    _lock: UnixListener,
}

impl InEffect {
    /// Impairs what leaves by the device that leads to `to`. A skip says why that cannot be had here.
    pub(super) fn new(to: IpAddr, impairment: &Impairment) -> Result<Self, Skip> {
        let ifindex = device(to)?;
        let lock = locked(ifindex)?;
        let mut control = TrafficControl::open().map_err(|error| refused(&error))?;
        let before = control.of_device(ifindex).map_err(|error| refused(&error))?;
        if before.is_some_and(|left| left.handle == u32::from(HANDLE) << 16) {
            // We hold the lock, so whoever added it is gone.
            control.remove(ifindex, HANDLE).map_err(|error| refused(&error))?;
        }
        let netem = Netem {
            loss: impairment.loss.min(GREATEST_LOSS),
            duplicate: impairment.duplicate,
            reorder: impairment.reorder,
            delay: Duration::from_millis(impairment.delay.min(LONGEST_DELAY).into()),
        };
        control.add_netem(ifindex, HANDLE, &netem).map_err(|error| refused(&error))?;
        Ok(Self { control, ifindex, _lock: lock })
    }

    /// Lifts it, and tells what it has done.
    pub(super) fn lift(mut self) -> std::io::Result<Impaired> {
        let found = self.control.of_device(self.ifindex).map_err(std::io::Error::other)?;
        let ours = found.filter(|found| found.handle == u32::from(HANDLE) << 16);
        let ours = ours.ok_or_else(|| std::io::Error::other("somebody else has removed the impairment"))?;
        Ok(Impaired { sent: ours.packets, dropped: ours.dropped })
    }
}

impl Drop for InEffect {
    fn drop(&mut self) {
        // It is gone if somebody else has removed it, or the device.
        let _ = self.control.remove(self.ifindex, HANDLE);
    }
}

/// The device that leads to an address, which must not be on this side.
fn device(to: IpAddr) -> Result<u32, Skip> {
    let attempt = || -> netlink::Result<_> {
        let mut route = Route::open()?;
        let ifindex = route.interface_towards(to)?;
        Ok((ifindex, route.link_by_name("lo").is_ok_and(|lo| lo.ifindex == ifindex)))
    };
    match attempt() {
        Ok((ifindex, false)) => Ok(ifindex),
        Ok((_, true)) => Err(Skip {
            reason: "the NIC's address is one of the peer's own".to_owned(),
            found_by: "asking the kernel for the route".to_owned(),
            remedy: Some("put the peer where packets to the NIC leave by a device of its own".to_owned()),
        }),
        Err(error) => Err(Skip {
            reason: format!("the peer knows no way to the NIC: {error}"),
            found_by: "asking the kernel for the route".to_owned(),
            remedy: Some("give the peer's device an address of the same network".to_owned()),
        }),
    }
}

/// Names in the abstract namespace belong to the network namespace, and are free again when their owner is gone.
fn locked(ifindex: u32) -> Result<UnixListener, Skip> {
    let name = format!("devmem-conformance impairs device {ifindex}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let bound =
            SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(lock) => return Ok(lock),
            Err(error)
                if error.raw_os_error() == Some(Errno::EADDRINUSE as i32) && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => {
                return Err(Skip {
                    reason: format!("another run impairs the peer's device: {error}"),
                    found_by: "binding a name that only one peer has".to_owned(),
                    remedy: Some("wait for its end".to_owned()),
                });
            }
        }
    }
}

fn refused(error: &netlink::Error) -> Skip {
    let remedy = match error.errno() {
        Some(Errno::EPERM) => "give the peer CAP_NET_ADMIN, or run it as root",
        Some(Errno::ENOENT) => "load sch_netem where the peer runs: `modprobe sch_netem`",
        Some(Errno::EEXIST) => {
            "the device has a queueing discipline that somebody chose: `tc qdisc del dev DEVICE root` where the peer runs"
        }
        _ => "see tc-netem(8)",
    };
    Skip {
        reason: format!("the peer cannot impair what it sends: {error}"),
        found_by: "adding netem to the peer's device".to_owned(),
        remedy: Some(remedy.to_owned()),
    }
}
