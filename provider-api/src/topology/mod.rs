//! Whether a device can reach another's memory across PCI, as far as can be told without trying.
//!
//! Drivers of GPUs ask the kernel's `pci_p2pdma_distance()` when an importer attaches to their DMA-buf, and
//! say nothing of its answer: where it is negative, the buffer moves to system memory. A [`Topology`]
//! foretells that answer for two PCI functions, with everything it rests on. The rule is that of
//! `calc_map_type_and_dist()` in `drivers/pci/p2pdma.c` of Linux 7.2:
//!
//! 1. Both functions are followed upwards, bridge by bridge. If the ways meet below a root, and no function
//!    on them redirects requests upstream by ACS (Access Control Services), the devices reach each other
//!    directly, by bus addresses. Redirection counts on the two functions themselves, on every bridge
//!    between them, and on the bridge where the ways meet.
//! 2. Otherwise requests go through the host bridge. The kernel believes that to work with AMD processors
//!    of the Zen generations and later, and with [host bridges](KNOWN_HOST_BRIDGES) that are known for it.
//! 3. Otherwise, or if the kernel was built without `CONFIG_PCI_P2PDMA`, there is no way.
//!
//! Each fact is read from `/sys` and `/proc`. ACS lies beyond the first 64 bytes of the configuration
//! space, which are all that the kernel shows to the unprivileged; then the verdict says that it is
//! [unknown](Verdict::Unknown) unless the rest of the rule decides, and how to find out.
//!
//! A verdict is no proof. What decides is where the pages are once an importer is attached:
//! [`Pin`](crate::Pin).

mod access_control;
mod configuration_space;
mod display;
mod endpoint;
mod host_bridge;
mod iommu;
mod kernel;
mod machine;
mod processor;
mod rule;
mod verdict;

pub use access_control::{AccessControl, Unread};
pub use endpoint::{Endpoint, Function, RuntimeStatus, Window};
pub use host_bridge::{HostBridge, KNOWN_HOST_BRIDGES, KnownHostBridge, Representative};
pub use iommu::{IommuDomain, IommuGroup};
pub use kernel::{Kernel, PeerToPeerSupport};
pub use machine::Machine;
pub use processor::Processor;
pub use verdict::{Caution, Obstacle, Permission, Question, Route, Verdict};

use crate::pci::PciAddress;

/// Two PCI functions, what lies between them, and what the kernel will say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The function whose memory is exported: a GPU. The kernel calls it the provider.
    pub exporter: Endpoint,
    /// The function that wants to reach that memory: a NIC. The kernel calls it the client.
    pub importer: Endpoint,
    /// The nearest function that is on the way from both to their roots, if there is one: a bridge, or the
    /// function itself where both are the same.
    pub common: Option<PciAddress>,
    /// How many hops they are apart, counted as the kernel does: up to the common function and down again;
    /// where there is none, up and out of both roots. Of use for choosing the nearer of several.
    pub distance: usize,
    /// The processor, on which the rule depends.
    pub processor: Processor,
    /// What the running kernel was built with.
    pub kernel: Kernel,
    /// What follows.
    pub verdict: Verdict,
}

impl Topology {
    /// Adds what the exporter's driver tells of the size of its memory in bytes, for
    /// [`cautions`](Self::cautions).
    #[must_use]
    pub fn with_exporter_memory(mut self, bytes: u64) -> Self {
        self.exporter.memory = Some(bytes);
        self
    }

    /// What may stand in the way although the verdict does not depend on it.
    #[must_use]
    pub fn cautions(&self) -> Vec<Caution> {
        let mut cautions = Vec::new();
        if self.exporter.runtime_status == Some(RuntimeStatus::Suspended) {
            cautions.push(Caution::ExporterSuspended(self.exporter.address()));
        }
        if let (Some(window), Some(memory)) = (self.exporter.window(), self.exporter.memory)
            && window.size < memory
        {
            cautions.push(Caution::SmallWindow { window, memory });
        }
        cautions.extend(
            self.exporter.windows.iter().filter(|window| !window.assigned).map(|window| {
                Caution::UnassignedWindow { function: self.exporter.address(), window: *window }
            }),
        );
        if let (Verdict::Reachable(Route::BusAddresses { .. } | Route::Either { .. }), Some(group)) =
            (&self.verdict, &self.importer.iommu)
            && group.domain == IommuDomain::Translated
        {
            cautions.push(Caution::IommuTranslates(self.importer.address()));
        }
        cautions
    }

    /// The functions whose ACS decides whether requests between the two are redirected.
    fn between(&self) -> impl Iterator<Item = &Function> {
        let below = |function: &&Function| Some(function.address) != self.common;
        let meeting = self.exporter.path().skip_while(below).take(1);
        self.exporter.path().take_while(below).chain(meeting).chain(self.importer.path().take_while(below))
    }
}
