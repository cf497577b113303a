//! What a machine needs so that a file can go through RDMA devices.

use devmem_lab::Machine;

use super::options::MachineOptions;
use super::providers::value;

/// A processor that the kernel knows to let cards reach each other.
const PROCESSOR: &str = "EPYC";

/// One to send, one to receive.
const DEVICES: [&str; 2] = ["efa", "efa"];

/// The sender's options: the second device is its.
const SENDER: &str = "--path rdma --rdma efa_1";

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
    let devices = if chosen.has_rdma() { &[][..] } else { &DEVICES };
    let machine = devices.iter().fold(machine, |machine, device| machine.rdma(device));
    (if chosen.has_ways() { machine } else { machine.cpu(PROCESSOR) }, SENDER)
}
