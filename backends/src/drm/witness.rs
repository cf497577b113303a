//! Attributing memory to one buffer, by a DRM file that holds nothing else.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use devmem_provider::{DmaBuf, Residency, ResidencyEvidence, Result};

use nix::errno::Errno;

use super::errors::failed;
use super::fdinfo::Regions;
use super::file::DrmFile;

/// A second DRM file of a device, opened when it is first needed, into which one buffer at a time is imported.
#[derive(Debug, Default)]
pub(crate) struct Witness(Mutex<Option<DrmFile>>);

impl Witness {
    /// What a buffer takes in each region.
    pub(crate) fn look(&self, node: &Path, dma_buf: &DmaBuf) -> Result<Regions> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match slot.take() {
            Some(file) => slot.insert(file),
            None => slot.insert(DrmFile::open(node).map_err(|error| match error.errno() {
                // The node was there before.
                Some(errno @ Errno::ENOENT) => failed(errno, "open", node),
                _ => error,
            })?),
        };
        // A driver may account page tables and the like to a file that holds no buffer.
        let before = Regions::parse(&file.fdinfo()?);
        let handle = file.import(dma_buf)?;
        let after = file.fdinfo();
        file.close_handle(handle);
        Ok(Regions::parse(&after?).since(&before))
    }
}

/// What a look at one buffer's usage shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// It lies somewhere.
    Seen(ResidencyEvidence),
    /// It has no pages: none yet, or none any more.
    NoPages,
}

/// Judges where a buffer of `size` bytes lies, by what it takes in each region. `is_device` tells device memory by a
/// region's name.
pub(crate) fn judge(usage: &Regions, size: u64, is_device: fn(&str) -> bool) -> Look {
    let filled = || usage.iter().filter(|(_, usage)| usage.resident > 0);
    let sum = |device: bool| -> u64 {
        filled().filter(|(region, _)| is_device(region) == device).map(|(_, usage)| usage.resident).sum()
    };
    let residency = match (sum(true), sum(false)) {
        (0, 0) => return if usage.is_empty() { Look::Seen(untold()) } else { Look::NoPages },
        (device, 0) if device >= size => Residency::DeviceLocal,
        (0, system) if system >= size => Residency::System,
        _ => Residency::Unknown,
    };
    let regions: Vec<String> =
        filled().map(|(region, usage)| format!("drm-resident-{region} by {}", usage.resident)).collect();
    let region = filled().max_by_key(|(_, usage)| usage.resident).map(|(region, _)| region.to_owned());
    Look::Seen(ResidencyEvidence {
        residency,
        region,
        evidence: format!(
            "its import raised, in the fdinfo of a DRM file without other buffers, {} of {size} bytes",
            regions.join(" and ")
        ),
    })
}

fn untold() -> ResidencyEvidence {
    ResidencyEvidence {
        residency: Residency::Unknown,
        region: None,
        evidence: "the driver prints no memory in fdinfo".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Look {
        judge(&Regions::parse(text), 1 << 20, |region| region.starts_with("vram"))
    }

    fn seen(text: &str) -> (Residency, Option<String>) {
        match look(text) {
            Look::Seen(evidence) => (evidence.residency, evidence.region),
            Look::NoPages => panic!("no pages"),
        }
    }

    #[test]
    fn the_region_that_holds_all_of_it_decides() {
        let vram = "drm-resident-vram0:\t1 MiB\ndrm-resident-gtt:\t0\n";
        assert_eq!(seen(vram), (Residency::DeviceLocal, Some("vram0".to_owned())));
        let gtt = "drm-total-vram0:\t1 MiB\ndrm-resident-vram0:\t0\ndrm-resident-gtt:\t1 MiB\n";
        assert_eq!(seen(gtt), (Residency::System, Some("gtt".to_owned())));
    }

    #[test]
    fn what_is_split_or_incomplete_is_unknown() {
        assert_eq!(seen("drm-resident-vram0:\t512 KiB\ndrm-resident-gtt:\t512 KiB\n").0, Residency::Unknown);
        assert_eq!(seen("drm-resident-vram0:\t4 KiB\n").0, Residency::Unknown);
        assert_eq!(seen("drm-driver:\tnouveau\n").0, Residency::Unknown);
    }

    #[test]
    fn a_buffer_without_pages_lies_nowhere() {
        assert_eq!(look("drm-total-local0:\t1 MiB\ndrm-resident-local0:\t0\n"), Look::NoPages);
    }
}
