//! Where a buffer's pages are once devmem TCP is attached.

use devmem_provider::{Placement, Provider, Request, Residency, Result};
use devmem_receive::devmem::{BindRefusal, DevmemTcp};
use devmem_receive::nic::Nic;

use super::finding::{Finding, State, without_remedy};
use super::nic::Looked as LookedNic;
use super::provider::Looked as LookedProvider;
use super::sysfs;

/// Where payload comes to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// The provider has no other memory than the system's.
    System,
    /// Where it was allocated, in the device's memory.
    Stays,
    /// In system memory, where the driver moves it.
    Moves,
    /// The driver refuses the importer for buffers in device memory.
    Refused,
    /// Nothing is known.
    Unknown,
}

/// What is known of a kernel driver's answer to an importer without peer-to-peer.
struct Known {
    /// The kernel driver.
    driver: &'static str,
    /// The backend, where it decides; any otherwise.
    backend: Option<&'static str>,
    landing: Landing,
    /// Where that is to be read in the kernel's source.
    source: &'static str,
}

/// As read in the source of Linux 7.2, and as measured in the lab (docs/support-matrix.md). The first that fits counts.
const KNOWN: &[Known] = &[
    Known {
        driver: "amdgpu",
        backend: None,
        landing: Landing::Moves,
        source: "amdgpu_dma_buf_pin() in drivers/gpu/drm/amd/amdgpu/amdgpu_dma_buf.c",
    },
    Known {
        // Mesa's driver allocates memory that may lie in VRAM only.
        driver: "xe",
        backend: Some("vulkan"),
        landing: Landing::Refused,
        source: "xe_dma_buf_attach() in drivers/gpu/drm/xe/xe_dma_buf.c",
    },
    Known {
        driver: "xe",
        backend: None,
        landing: Landing::Moves,
        source: "xe_dma_buf_pin() in drivers/gpu/drm/xe/xe_dma_buf.c",
    },
    Known {
        driver: "i915",
        backend: Some("i915"),
        landing: Landing::Moves,
        source: "i915_gem_dmabuf_attach() in drivers/gpu/drm/i915/gem/i915_gem_dmabuf.c",
    },
    Known {
        driver: "nouveau",
        backend: None,
        landing: Landing::Moves,
        source: "nouveau_gem_prime_pin() in drivers/gpu/drm/nouveau/nouveau_prime.c",
    },
    Known {
        driver: "virtio_gpu",
        backend: None,
        landing: Landing::Stays,
        source: "virtio_gpu_vram_map_dma_buf() in drivers/gpu/drm/virtio/virtgpu_vram.c",
    },
];

/// Tries where that is possible without a trace, and otherwise tells what is known.
pub(super) fn find(
    provider: &dyn Provider,
    looked: &LookedProvider,
    nic: &Nic,
    nic_looked: &LookedNic,
) -> (Landing, Finding) {
    let who = &looked.identity.name;
    if looked.own_memory.is_none() {
        let says = format!("{who} has system memory only, which every NIC reaches");
        let evidence = format!("no heap of {who} is in device memory");
        return (Landing::System, Finding::new(State::Ok, ABOUT, says, evidence));
    }
    let (landing, evidence) = match attempt(provider, looked, nic, nic_looked) {
        Some(seen) => seen,
        None => by_knowledge(&looked.identity.driver, looked.identity.backend, looked.identity.pci),
    };
    (landing, told(landing, who, evidence))
}

const ABOUT: &str = "where payload lies";

fn told(landing: Landing, who: &str, evidence: String) -> Finding {
    let driver = "its driver";
    match landing {
        Landing::System | Landing::Stays => {
            Finding::new(State::Ok, ABOUT, format!("in {who}'s device memory: {driver} leaves the buffer there"), evidence)
        }
        Landing::Moves => Finding::new(
            State::Caution,
            ABOUT,
            format!(
                "in system memory: devmem TCP attaches without peer-to-peer, and {driver} then moves a buffer out of \
                 {who}'s device memory"
            ),
            evidence,
        )
        .remedy(
            "demand device memory (Require::DeviceLocal) where system memory is not acceptable: the bind is then refused. \
             Nothing keeps a buffer of this driver in device memory for devmem TCP in today's kernels",
        ),
        Landing::Refused => Finding::new(
            State::Caution,
            ABOUT,
            format!(
                "nowhere, for buffers in {who}'s device memory: devmem TCP attaches without peer-to-peer, and {driver} \
                 refuses that. Buffers in system memory work"
            ),
            evidence,
        )
        .remedy("allocate in system memory, or so that the buffer may move there"),
        Landing::Unknown => Finding::new(
            State::Unknown,
            ABOUT,
            format!("not known: what {driver} does with a buffer in device memory is decided by a bind"),
            evidence,
        )
        .remedy("devmem-conformance run measures it"),
    }
}

/// What is known of a driver, without a try.
fn by_knowledge(driver: &str, backend: &str, pci: Option<devmem_provider::PciAddress>) -> (Landing, String) {
    // Vulkan's drivers have names of their own, and virtio's are bound a level below the PCI function.
    let bound = pci.and_then(sysfs::driver).filter(|bound| bound != "virtio-pci");
    let driver = bound.as_deref().unwrap_or(driver);
    let decided = "not tried: a bind decides, and devmem-conformance run measures it";
    match known(driver, backend) {
        Some(known) => (known.landing, format!("known of {driver}: {}; {decided}", known.source)),
        None => (Landing::Unknown, format!("nothing is known of {driver}; {decided}")),
    }
}

fn known(driver: &str, backend: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        known.driver == driver.replace('-', "_") && known.backend.is_none_or(|wanted| wanted == backend)
    })
}

/// Lets the kernel attach and map a page of the provider's for a queue that it then refuses to restart, because header
/// split is off (`net/core/devmem.c`: the memory is mapped before any queue is looked at). Nothing changes on the NIC, and
/// the page is given back. `None` if that cannot be done here, or does not tell.
fn attempt(
    provider: &dyn Provider,
    looked: &LookedProvider,
    nic: &Nic,
    nic_looked: &LookedNic,
) -> Option<(Landing, String)> {
    let queue = nic_looked.idle_queue.filter(|_| nic_looked.refuses_bindings)?;
    let request = Request::bytes(looked.granularity).prefer(Placement::DeviceLocal);
    let buffer = provider.allocate(&request).ok()?;
    let before = buffer.residency().ok()?;
    if before.residency != Residency::DeviceLocal {
        return None;
    }
    let dma_buf = buffer.export().ok()?;
    let refusal = bind(nic, queue, &dma_buf).err()?;
    let tried = format!(
        "tried on queue {queue} of {nic} with a buffer of {}: the kernel",
        sysfs::bytes(looked.granularity)
    );
    match BindRefusal::of(&refusal)? {
        BindRefusal::ExporterRefusedAttachment => {
            Some((Landing::Refused, format!("{tried} said: {}", without_remedy(&refusal))))
        }
        BindRefusal::HeaderSplitDisabled => {
            let after = buffer.residency().ok()?;
            let landing = match after.residency {
                Residency::System => Landing::Moves,
                // The kernel may have refused before it attached: then nothing could move.
                Residency::DeviceLocal => {
                    known(&looked.identity.driver, looked.identity.backend)
                        .filter(|known| known.landing == Landing::Stays)?
                        .landing
                }
                _ => return None,
            };
            Some((
                landing,
                format!(
                    "{tried} attached and mapped it, then refused the queue because header split is off, which was \
                     wanted; before it was {before}, afterwards {after}"
                ),
            ))
        }
        _ => None,
    }
}

fn bind(nic: &Nic, queue: u32, dma_buf: &devmem_provider::DmaBuf) -> Result<()> {
    use devmem_provider::Importer;
    // Dropped at once, should somebody have turned header split on meanwhile.
    DevmemTcp::new(nic, [queue]).attach(dma_buf).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_their_kernel_names() {
        let landing = |driver: &str, backend: &str| by_knowledge(driver, backend, None).0;
        assert_eq!(landing("amdgpu", "amdgpu"), Landing::Moves);
        assert_eq!(landing("amdgpu", "vulkan"), Landing::Moves);
        assert_eq!(landing("xe", "xe"), Landing::Moves);
        assert_eq!(landing("xe", "vulkan"), Landing::Refused);
        assert_eq!(landing("virtio-gpu", "virtio-gpu"), Landing::Stays);
        assert_eq!(landing("panthor", "panthor"), Landing::Unknown);
    }

    #[test]
    fn what_moves_is_no_success_without_a_word() {
        for landing in [Landing::Moves, Landing::Refused, Landing::Unknown] {
            let finding = told(landing, "gpu", "evidence".to_owned());
            assert!(finding.remedy.is_some() && finding.state != State::Ok, "{finding:?}");
        }
    }
}
