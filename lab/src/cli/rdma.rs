//! What a machine needs so that a file can go through RDMA devices.

use devmem_lab::Machine;

use super::options::MachineOptions;
use super::processors::TRUSTED;
use super::providers::value;

/// One to receive, one to send.
const DEVICES: [&str; 2] = ["efa", "efa"];

/// Adds what the path needs that the tool's options name, unless a machine of another kind was chosen. Returns the options
/// for the sender, too.
pub(super) fn add(
    machine: Machine,
    tool_options: &[String],
    chosen: &MachineOptions,
) -> (Machine, &'static str) {
    if value(tool_options, "--path") != Some("rdma") {
        return (machine, "");
    }
    let (machine, devices) = match chosen.rdma_devices() {
        0 => (DEVICES.iter().fold(machine, |machine, device| machine.rdma(device)), DEVICES.len()),
        devices => (machine, devices),
    };
    // A single device reaches itself.
    let sender = if devices > 1 { "--path rdma --rdma efa_1" } else { "--path rdma --rdma efa_0" };
    (if chosen.has_ways() { machine } else { machine.cpu(TRUSTED) }, sender)
}
