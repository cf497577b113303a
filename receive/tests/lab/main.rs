//! The receive path in the lab: an unmodified kernel, its real NIC driver, an emulated NIC.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

mod devmem;
#[path = "../harness/mod.rs"]
mod harness;
mod machine;
mod nic;
mod paths;
mod sender;
mod setup;
mod zcrx;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use nic::roles;

fn main() -> ExitCode {
    if let Some(exit_code) = harness::play(&[&[sender::SEND], roles::ALL, zcrx::ROLES].concat()) {
        return exit_code;
    }
    devmem_lab::test_program()
        .nic("gve:queues=4")
        .nic("gve:queues=5")
        // What the kernel says to an attempt to bind gve's queue 0.
        .allow_warning("page_pool_disable_direct_recycling")
        .main(|| {
            harness::run(
                Arguments::from_args(),
                &[paths::TESTS, devmem::TESTS, nic::TESTS, zcrx::TESTS].concat(),
                None,
            )
        })
}
