//! RDMA's data path in the lab: emulated EFA devices with the kernel's own driver, rdma-core's libraries of the
//! distribution, and memory of an emulated GPU.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

mod connections;
mod failures;
#[path = "../harness/trials.rs"]
mod harness;
mod libraries;
mod lifetimes;
mod sides;
mod transfers;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(exit_code) = libraries::play() {
        return exit_code;
    }
    devmem_lab::test_program()
        .nic("gve")
        .rdma("efa")
        .rdma("efa")
        .rdma("efa:rdma-write=off,rdma-read=off")
        .gpu("amdgpu")
        .module("rdma_rxe")
        // One that the kernel knows to let the devices reach each other.
        .cpu("EPYC")
        .main(|| {
            let tests =
                [transfers::TESTS, failures::TESTS, lifetimes::TESTS, libraries::TESTS, connections::TESTS];
            harness::run(Arguments::from_args(), &tests.concat(), None)
        })
}
