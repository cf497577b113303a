//! The machine in the lab: its NICs, and buffers for their queues.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;

use devmem_provider::{DmaBuf, Provider, Request};
use devmem_receive::netdev::Binding;
use devmem_receive::nic::{Flow, Nic, Plan, Prepared, Queues};

use crate::harness::{Failure, Outcome, ensure};

/// The NIC under test, which has four queues.
pub(crate) const NIC: &str = "eth0";
/// The NIC of the sending machine, which has five.
pub(crate) const PEER_NIC: &str = "eth1";
pub(crate) const PEER_NAMESPACE: &str = "/run/netns/peer";

/// Where the flow under test arrives.
pub(crate) const PORT: u16 = 5201;

/// Enough for the receive rings of every queue.
pub(crate) const BUFFER_BYTES: u64 = 16 << 20;

pub(crate) fn plan(queues: u32) -> Plan {
    Plan::new(Queues::count(queues), Flow::tcp_port(PORT))
}

pub(crate) fn prepare(queues: u32) -> Result<Prepared, Failure> {
    Ok(Nic::open(NIC)?.prepare(&plan(queues))?)
}

pub(crate) fn provider() -> Result<Arc<dyn Provider>, Failure> {
    Ok(devmem_backends::discover().find("udmabuf")?)
}

pub(crate) fn dma_buf(bytes: u64) -> Result<DmaBuf, Failure> {
    Ok(provider()?.allocate(&Request::bytes(bytes))?.export()?)
}

/// Binds queues to a new buffer.
pub(crate) fn bind(nic: &Nic, queues: &[u32], buffer_bytes: u64) -> Result<Binding, Failure> {
    Ok(Binding::new(nic.ifindex(), queues, dma_buf(buffer_bytes)?.as_fd())?)
}

/// Takes the link of [`NIC`] `up` or `down`. Its addresses stay: the kernel drops those of IPv6 otherwise.
pub(crate) fn set_link(state: &str) -> Outcome {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{NIC}/keep_addr_on_down"), "1")?;
    let status = Command::new("ip").args(["link", "set", NIC, state]).status()?;
    ensure!(status.success(), "ip link set {state}");
    Ok(())
}
