//! Two emulated EFAs and an emulated GPU with the kernel's own drivers: DMA-bufs become memory regions, and what the
//! devices write lies where it should.
//!
//! The program calls the kernel by itself, without libibverbs.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod buffers;
mod guest;
mod program;
mod sys;
mod uverbs;

use devmem_lab::Machine;

/// What the guest is told of its processor: whether the kernel lets devices on it reach each other.
const PEERS: &str = "peers";
const STRANGERS: &str = "strangers";

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "--list" => return,
        PEERS => return guest::peers(),
        STRANGERS => return guest::strangers(),
        _ => {}
    }
    let program = std::env::current_exe().unwrap();
    for (processor, case) in [("EPYC", PEERS), ("max", STRANGERS)] {
        let machine = Machine::new().gpu("amdgpu").rdma("efa").rdma("efa:rdma-read=off").cpu(processor);
        let command = [program.to_str().unwrap(), case];
        let outcome = machine.command(command).kernel_of_environment().unwrap().run().unwrap();
        assert!(outcome.is_success(), "{case}: {}", outcome.report());
        println!("{case}: {}", outcome.stdout_text().trim_end());
    }
}
