//! The backends that need no GPU, and DMA-bufs themselves, on a real kernel.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

#[path = "../harness/every_copy/mod.rs"]
mod every_copy;
#[path = "../harness/mod.rs"]
mod harness;
mod udmabuf;

use std::process::ExitCode;
use std::sync::Arc;

use devmem_backends::cpu_copy::CpuCopy;
use devmem_backends::{discover, find};
use libtest_mimic::Arguments;

use every_copy::{COPY_TESTS, Copies};
use harness::every_provider::PROVIDER_TESTS;
use harness::{Outcome, trial};

/// The backends that every guest serves.
const BACKENDS: [&str; 2] = ["udmabuf", "dma-heap"];

fn every_backend_works_here() -> Outcome {
    let discovery = discover();
    for backend in BACKENDS {
        let works = discovery.providers.iter().any(|provider| provider.identity().backend == backend);
        ensure!(works, "{backend}: {discovery}");
    }
    // The others look for a GPU, of which this guest has none, and for the Vulkan loader, which it has not either.
    for missing in &discovery.unavailable {
        let lacks = if missing.backend == "vulkan" { "libvulkan.so.1" } else { "no DRM device" };
        ensure!(missing.reason.to_string().contains(lacks), "{}", missing.reason);
    }
    Ok(())
}

fn main() -> ExitCode {
    devmem_lab::test_program().main(|| {
        let mut arguments = Arguments::from_args();
        // Tests that count memory are disturbed by others.
        arguments.test_threads = Some(1);
        let mut trials = vec![
            trial("every_backend_works_here".to_owned(), every_backend_works_here),
            trial(
                "udmabuf::parts_of_memfds_become_one_buffer".to_owned(),
                udmabuf::parts_of_memfds_become_one_buffer,
            ),
            trial(
                "udmabuf::huge_pages_are_used_when_they_are_there".to_owned(),
                udmabuf::huge_pages_are_used_when_they_are_there,
            ),
        ];
        for provider in discover().providers {
            for &(name, test) in PROVIDER_TESTS {
                let of = Arc::clone(&provider);
                trials.push(trial(format!("{}::{name}", provider.identity().name), move || test(&*of)));
            }
        }
        for &(name, test) in COPY_TESTS {
            trials.push(trial(format!("cpu_copy::{name}"), move || {
                let provider = find("udmabuf")?;
                test(&Copies {
                    copy: Arc::new(CpuCopy),
                    source: Arc::clone(&provider),
                    destination: provider,
                })
            }));
        }
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}
