//! How much memory the machine has: what limits a buffer in system memory.

use devmem_provider::{Error, ErrorKind, Heap, Placement, Request, Residency, ResidencyEvidence, Result};

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SystemMemory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

impl SystemMemory {
    pub(crate) fn read() -> Result<Self> {
        let path = "/proc/meminfo";
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::from_io(error, "read").on(path).remedy("mount /proc"))?;
        Self::parse(&text).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "read").on(path).because("it has no MemTotal or MemAvailable")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let kibibytes = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self { total: kibibytes("MemTotal")?, available: kibibytes("MemAvailable")? })
    }

    /// This memory as a provider's heap.
    pub(crate) fn heap(self, name: &str, granularity: u64, maximum_allocation: Option<u64>) -> Heap {
        Heap {
            name: name.to_owned(),
            placement: Placement::System,
            size: Some(self.total),
            used: Some(self.total.saturating_sub(self.available)),
            cpu_visible: Some(self.total),
            maximum_allocation,
            granularity,
        }
    }

    /// Refuses what would make the kernel kill processes to find memory: the exporters of system memory
    /// allocate until the machine has nothing left.
    pub(crate) fn check_available(self, request: &Request) -> Result<()> {
        if request.size() <= self.available {
            return Ok(());
        }
        Err(Error::new(ErrorKind::OutOfMemory, format!("allocate {} bytes", request.size()))
            .because(format!("only {} bytes of system memory are available", self.available))
            .remedy("ask for less, or free memory"))
    }
}

/// Refuses placements that system memory cannot keep to.
pub(crate) fn check_placement(request: &Request, provider: &str) -> Result<()> {
    match request.placement() {
        Some(placement) if placement != Placement::System && request.is_required() => {
            Err(Error::new(ErrorKind::Unsupported, format!("allocate in {placement}"))
                .on(provider)
                .because("it hands out system memory only")
                .remedy("prefer the placement instead of requiring it, or choose a GPU's provider"))
        }
        _ => Ok(()),
    }
}

/// The residency of memory that has nowhere else to go.
pub(crate) fn always_system(evidence: impl Into<String>) -> ResidencyEvidence {
    ResidencyEvidence { residency: Residency::System, region: None, evidence: evidence.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_prints() {
        let text = "MemTotal:       24585432 kB\nMemFree:          301232 kB\nMemAvailable:   21934100 kB\n";
        let memory = SystemMemory::parse(text).unwrap();
        assert_eq!(memory, SystemMemory { total: 24_585_432 * 1024, available: 21_934_100 * 1024 });
        assert_eq!(SystemMemory::parse("MemTotal: 1 kB\n"), None);
        assert_eq!(SystemMemory::parse("MemTotal: x kB\nMemAvailable: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn more_than_is_available_is_refused() {
        let memory = SystemMemory { total: 1 << 30, available: 1 << 20 };
        assert!(memory.check_available(&Request::bytes(1 << 20)).is_ok());
        let error = memory.check_available(&Request::bytes((1 << 20) + 4096)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn only_a_required_device_placement_is_refused() {
        let request = Request::bytes(4096);
        assert!(check_placement(&request, "udmabuf").is_ok());
        assert!(check_placement(&request.clone().prefer(Placement::DeviceLocal), "udmabuf").is_ok());
        assert!(check_placement(&request.clone().require(Placement::System), "udmabuf").is_ok());
        assert!(check_placement(&request.require(Placement::DeviceLocal), "udmabuf").is_err());
    }
}
