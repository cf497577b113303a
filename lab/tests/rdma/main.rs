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

fn main() {
    if std::env::var_os("DEVMEM_LAB_GUEST").is_some() {
        guest::run();
        return;
    }
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    // This processor is one whose devices the kernel lets reach each other.
    let machine = Machine::new().gpu("amdgpu").rdma("efa").rdma("efa:rdma-read=off").cpu("EPYC");
    let machine = machine.command([program.to_str().unwrap()]).kernel_of_environment().unwrap();
    let outcome = machine.run().unwrap();
    assert!(outcome.is_success(), "{}", outcome.report());
    println!("{}", outcome.stdout_text());
}
