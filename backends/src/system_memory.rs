//! How much memory the machine has: what limits a buffer in system memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use devmem_provider::{Error, ErrorKind, Heap, Placement, Request, Residency, ResidencyEvidence, Result};

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SystemMemory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

const MEMINFO: &str = "/proc/meminfo";

impl SystemMemory {
    /// Reads the figures in one system call.
    fn read(meminfo: &File) -> Result<Self> {
        let mut start = [0; 1024];
        let length = meminfo.read_at(&mut start, 0).map_err(unreadable)?;
        let text = start.get(..length).and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(Self::parse).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "read").on(MEMINFO).because("it has no MemTotal or MemAvailable")
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
    fn check_available(self, request: &Request) -> Result<()> {
        if request.size() <= self.available {
            return Ok(());
        }
        Err(Error::new(ErrorKind::OutOfMemory, format!("allocate {} bytes", request.size()))
            .because(format!("only {} bytes of system memory are available", self.available))
            .remedy("ask for less, or free memory"))
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::from_io(error, "read").on(MEMINFO).remedy("mount /proc")
}

/// The part of the available memory that may be handed out before the kernel is asked again.
const CREDIT: u64 = 4;

/// What system memory a provider may still hand out, so that it refuses before the kernel kills processes.
///
/// The kernel is asked for what is available only when a quarter of its last answer has been handed out:
/// most allocations cost no system call for it.
#[derive(Debug)]
pub(crate) struct SystemBudget {
    meminfo: File,
    total: u64,
    credit: AtomicU64,
}

impl SystemBudget {
    pub(crate) fn open() -> Result<Self> {
        let meminfo = File::open(MEMINFO).map_err(unreadable)?;
        let memory = SystemMemory::read(&meminfo)?;
        Ok(Self { meminfo, total: memory.total, credit: AtomicU64::new(memory.available / CREDIT) })
    }

    /// All memory of the machine, in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The memory as it is now.
    pub(crate) fn now(&self) -> Result<SystemMemory> {
        SystemMemory::read(&self.meminfo)
    }

    /// Takes a request from the budget.
    pub(crate) fn take(&self, request: &Request) -> Result<()> {
        let spend = |credit: u64| credit.checked_sub(request.size());
        if self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok() {
            return Ok(());
        }
        let memory = self.now()?;
        memory.check_available(request)?;
        self.credit.store((memory.available / CREDIT).saturating_sub(request.size()), Ordering::Relaxed);
        Ok(())
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
    fn the_kernel_is_asked_again_when_the_credit_is_spent() {
        let budget = SystemBudget::open().unwrap();
        let quarter = budget.credit.load(Ordering::Relaxed);
        budget.take(&Request::bytes(quarter / 2)).unwrap();
        assert_eq!(budget.credit.load(Ordering::Relaxed), quarter - quarter / 2);
        budget.take(&Request::bytes(quarter)).unwrap();
        let error = budget.take(&Request::bytes(budget.total() + 1)).unwrap_err();
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
