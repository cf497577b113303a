//! The memory of a DRM file's buffers as its fdinfo tells it (`Documentation/gpu/drm-usage-stats.rst`).

use std::collections::BTreeMap;

/// What is accounted to one region, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// `drm-total-REGION`: the size of the buffers. amdgpu accounts it to the region that a buffer prefers, the other
    /// drivers to the one where it is.
    pub(crate) total: u64,
    /// `drm-resident-REGION`, or `drm-memory-REGION` of older drivers: what lies in the region now.
    pub(crate) resident: u64,
}

/// The usage of every region that a driver prints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Regions(BTreeMap<String, Usage>);

impl Regions {
    /// Reads the lines about memory; all others are ignored.
    pub(crate) fn parse(text: &str) -> Self {
        let mut regions: BTreeMap<String, Usage> = BTreeMap::new();
        let entries = || text.lines().filter_map(|line| line.strip_prefix("drm-")?.split_once(':'));
        // The deprecated key first: where both are printed, the newer one decides.
        for (key, value) in entries() {
            if let (Some(region), Some(bytes)) = (key.strip_prefix("memory-"), bytes(value)) {
                regions.entry(region.to_owned()).or_default().resident = bytes;
            }
        }
        for (key, value) in entries() {
            let Some(bytes) = bytes(value) else { continue };
            if let Some(region) = key.strip_prefix("resident-") {
                regions.entry(region.to_owned()).or_default().resident = bytes;
            } else if let Some(region) = key.strip_prefix("total-") {
                regions.entry(region.to_owned()).or_default().total = bytes;
            }
        }
        Self(regions)
    }

    /// What was added to each region since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let added = self.0.iter().map(|(region, now)| {
            let then = before.0.get(region).copied().unwrap_or_default();
            let usage = Usage {
                total: now.total.saturating_sub(then.total),
                resident: now.resident.saturating_sub(then.resident),
            };
            (region.clone(), usage)
        });
        Self(added.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The regions and their usage, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.0.iter().map(|(region, usage)| (region.as_str(), *usage))
    }
}

/// `N`, `N KiB` or `N MiB` (`drm_fdinfo_print_size()`); the documentation allows GiB too.
fn bytes(value: &str) -> Option<u64> {
    let mut words = value.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    let unit: u64 = match words.next() {
        None => 1,
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some("GiB") => 1 << 30,
        Some(_) => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AMDGPU: &str = "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-client-id:\t7\n\
        drm-pdev:\t0000:03:00.0\npasid:\t32770\ndrm-total-cpu:\t0\ndrm-shared-cpu:\t0\ndrm-resident-cpu:\t0\n\
        drm-total-gtt:\t0\ndrm-resident-gtt:\t16 MiB\ndrm-total-vram:\t16 MiB\ndrm-shared-vram:\t16 MiB\n\
        drm-resident-vram:\t12 KiB\ndrm-memory-vram:\t12 KiB\ndrm-memory-gtt: \t16384 KiB\n\
        amd-evicted-vram:\t16384 KiB\n";

    fn usage(regions: &Regions, name: &str) -> Option<Usage> {
        regions.iter().find(|(region, _)| *region == name).map(|(_, usage)| usage)
    }

    #[test]
    fn reads_what_the_kernel_prints() {
        let regions = Regions::parse(AMDGPU);
        assert_eq!(usage(&regions, "vram"), Some(Usage { total: 16 << 20, resident: 12 << 10 }));
        assert_eq!(usage(&regions, "gtt"), Some(Usage { total: 0, resident: 16 << 20 }));
        assert_eq!(usage(&regions, "evicted"), None);
    }

    #[test]
    fn the_older_key_serves_where_the_newer_is_missing() {
        let regions = Regions::parse("drm-memory-vram:\t5 KiB\n");
        assert_eq!(usage(&regions, "vram"), Some(Usage { total: 0, resident: 5 << 10 }));
    }

    #[test]
    fn what_was_added_is_what_a_buffer_takes() {
        let before = Regions::parse("drm-resident-vram0:\t8 KiB\ndrm-total-vram0:\t8 KiB\n");
        let after = Regions::parse(
            "drm-resident-vram0:\t4 KiB\ndrm-total-vram0:\t72 KiB\ndrm-resident-gtt:\t64 KiB\n",
        );
        let added = after.since(&before);
        assert_eq!(usage(&added, "vram0"), Some(Usage { total: 64 << 10, resident: 0 }));
        assert_eq!(usage(&added, "gtt"), Some(Usage { total: 0, resident: 64 << 10 }));
    }

    #[test]
    fn a_driver_that_prints_no_memory_has_no_regions() {
        assert!(Regions::parse("drm-driver:\tnouveau\ndrm-client-id:\t2\n").is_empty());
        assert!(Regions::parse("drm-total-vram:\t1 parsec\ndrm-resident-vram:\t-1\n").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(text in "(drm-(total|resident|memory)-[a-z]{0,5}:[ \t]?[0-9]{0,25} ?(KiB|MiB|GiB|x)?\n){0,8}") {
            let regions = Regions::parse(&text);
            let _ = regions.since(&Regions::parse(""));
        }
    }
}
